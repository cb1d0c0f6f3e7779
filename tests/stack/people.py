"""The cast: accounts that a test makes for itself, over HTTP, as anybody would."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import httpx

PASSWORD = "correct horse battery staple"


def unique(name: str) -> str:
    """Return a name that no earlier run has taken."""
    return f"{name}-{uuid4().hex[:12]}"


def connect(base_url: str, **options: Any) -> httpx.Client:
    """Return a client that takes nothing from the environment, no proxy above all."""
    return httpx.Client(base_url=base_url, trust_env=False, timeout=20, **options)


@dataclass(frozen=True)
class Person:
    """An account, its tokens, and a client that sends the access token."""

    name: str
    access: str
    refresh: str
    client: httpx.Client

    def record(self, description: str, amount: str = "1.00") -> dict[str, Any]:
        """Record a transaction and return it as the API shows it."""
        answer = self.client.post("/api/transactions/", json={"amount": amount, "description": description})
        assert answer.status_code == HTTPStatus.CREATED, answer.text
        return dict(answer.json())

    def descriptions(self) -> list[str]:
        """Return what the first page of the list holds, newest first."""
        answer = self.client.get("/api/transactions/")
        assert answer.status_code == HTTPStatus.OK, answer.text
        return [row["description"] for row in answer.json()["results"]]


def sign_up(base_url: str, name: str, **options: Any) -> Person:
    """Register a new account under a name that begins with ``name``, and log in."""
    credentials = {"username": unique(name), "password": PASSWORD}
    client = connect(base_url, **options)
    registered = client.post("/auth/users/", json=credentials)
    assert registered.status_code == HTTPStatus.CREATED, registered.text
    tokens = client.post("/auth/jwt/create/", json=credentials)
    assert tokens.status_code == HTTPStatus.OK, tokens.text
    pair = tokens.json()
    client.headers["Authorization"] = f"Bearer {pair['access']}"
    return Person(credentials["username"], pair["access"], pair["refresh"], client)
