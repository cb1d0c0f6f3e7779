"""What the tests of accounts need beyond the cast: an API with mail, and a mail server."""

from collections.abc import Iterator
from importlib import import_module, reload
from typing import Any

import pytest
from django.urls import clear_url_caches

from accounts.hashers import Argon2idPasswordHasher
from tests.backend.accounts.mail_server import MailServer


@pytest.fixture
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash passwords made from now on at the least cost: where many race, hashing takes longer than all the rest."""
    monkeypatch.setattr(Argon2idPasswordHasher, "time_cost", 1)
    monkeypatch.setattr(Argon2idPasswordHasher, "memory_cost", 8)


def route_again() -> None:
    """Let the routes depend on the settings as they are now; a process reads them once, at its start."""
    for name in ("accounts.urls", "config.urls"):
        reload(import_module(name))
    clear_url_caches()


@pytest.fixture
def mail_on(settings: Any) -> Iterator[None]:
    """Configure mail, as its two variables would; Django's own test mailbox takes what is sent."""
    settings.MAIL_ENABLED = True
    settings.PASSWORD_RESET_URL = "https://app.example.com/reset/{uid}/{token}"
    settings.ACTIVATION_URL = "https://app.example.com/activate/{uid}/{token}"
    settings.DEFAULT_FROM_EMAIL = "Transactions <noreply@example.com>"
    route_again()
    yield
    settings.PASSWORD_RESET_URL = ""
    settings.ACTIVATION_ENABLED = False
    route_again()


@pytest.fixture
def activation_on(mail_on: None, settings: Any) -> None:
    """Let registrations be confirmed by mail; ``mail_on`` undoes it."""
    settings.ACTIVATION_ENABLED = True
    route_again()


@pytest.fixture
def mail_server(mail_on: None, settings: Any) -> Iterator[MailServer]:
    """Send mail to a real server on this host."""
    with MailServer() as server:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
        yield server
