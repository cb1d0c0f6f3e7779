"""How a name and a password become an account."""

from typing import Any

from django.contrib.auth.backends import ModelBackend
from django.http import HttpRequest

from accounts.attempts import attempt
from accounts.models import User
from config.clients import client_address


class CountingBackend(ModelBackend):
    """Django's own, which hashes once whether or not there is such an account, with a bound on failed attempts.

    In the backend, so that it holds for the admin site as for the API.
    """

    def authenticate(
        self, request: HttpRequest | None, username: str | None = None, password: str | None = None, **kwargs: Any
    ) -> User | None:
        """Return the account; raise ``TooManyFailures`` where the password must not even be looked at."""
        if username is None or password is None:
            return None
        with attempt(name=username, address=client_address(request) if request is not None else None) as current:
            user = super().authenticate(request, username=username, password=password, **kwargs)
            current.succeeded = user is not None
        return user
