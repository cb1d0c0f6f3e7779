"""Tokens as a login hands them out, without the password."""

from django.test import RequestFactory

from accounts.models import User
from accounts.sessions import open_session
from accounts.tokens import SessionRefreshToken


def new_session(account: User) -> SessionRefreshToken:
    """Open a session of ``account`` and return its refresh token; ``access_token`` of it is the other half."""
    return SessionRefreshToken(open_session(user=account, request=RequestFactory().post("/"))["refresh"])
