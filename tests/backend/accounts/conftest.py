"""What the tests of accounts need beyond the cast: cheap passwords, and a mail server."""

from collections.abc import Iterator
from typing import Any

import pytest

from accounts.hashers import Argon2idPasswordHasher
from tests.backend.accounts.mail_server import MailServer


@pytest.fixture
def cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hash passwords made from now on at the least cost: where many race, hashing takes longer than all the rest."""
    monkeypatch.setattr(Argon2idPasswordHasher, "time_cost", 1)
    monkeypatch.setattr(Argon2idPasswordHasher, "memory_cost", 8)


@pytest.fixture
def mail_server(mail_on: None, settings: Any) -> Iterator[MailServer]:
    """Send mail to a real server on this host."""
    with MailServer() as server:
        settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", server.port
        yield server
