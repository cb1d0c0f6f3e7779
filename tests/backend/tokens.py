"""Tokens as a login hands them out, without the login."""

from datetime import timedelta

from django.utils import timezone

from accounts.models import Session, User
from accounts.tokens import SessionRefreshToken


def new_session(account: User) -> SessionRefreshToken:
    """Open a session of ``account`` and return its refresh token; ``access_token`` of it is the other half."""
    session = Session.objects.create(user=account, expires_at=timezone.now() + timedelta(days=1))
    return SessionRefreshToken.of(session)
