"""People who come in over the API from an address of their own, with a login like anybody's."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from threading import Barrier
from typing import Any, TypeVar

import jwt
from django.db import connection, connections
from rest_framework.test import APIClient

from accounts.models import User

T = TypeVar("T")

HANDS, ROUNDS = 20, 10
"""How many race at the same moment, and how often: a race is not lost every time."""

PASSWORD = "correct-horse-battery"
HOME = "192.0.2.10"
ELSEWHERE = "198.51.100.7"


def client(address: str = HOME, **options: Any) -> APIClient:
    """Return a client at ``address``, as nginx would name it; an error of the server is an answer."""
    return APIClient(raise_request_exception=False, headers={"X-Forwarded-For": address}, **options)


def register(name: str, **fields: Any) -> User:
    """Make an account with everybody's password."""
    return User.objects.create_user(name, f"{name}@example.com", PASSWORD, **fields)


def try_login(name: str, password: str = PASSWORD, address: str = HOME) -> Any:
    """Return the answer to a login."""
    return client(address).post("/auth/jwt/create/", {"username": name, "password": password})


@dataclass
class Visitor:
    """One login: a session with its present pair of tokens."""

    access: str
    refresh: str
    address: str = HOME

    @property
    def session(self) -> str:
        """The id of the session."""
        return str(claims(self.access)["sid"])

    @property
    def client(self) -> APIClient:
        """A client that sends the access token."""
        visitor = client(self.address)
        visitor.credentials(HTTP_AUTHORIZATION=f"Bearer {self.access}")
        return visitor

    def read(self) -> HTTPStatus:
        """Use the access token; return the status."""
        return HTTPStatus(self.client.get("/auth/users/me/").status_code)

    def try_refresh(self) -> Any:
        """Return the answer to a refresh; the visitor keeps its tokens."""
        return client(self.address).post("/auth/jwt/refresh/", {"refresh": self.refresh})

    def renew(self) -> Visitor:
        """Refresh, and return the visitor with the next pair."""
        answer = self.try_refresh()
        assert answer.status_code == HTTPStatus.OK, answer.content
        return Visitor(**answer.json(), address=self.address)

    def is_in(self) -> bool:
        """Whether both tokens work; spends the refresh token."""
        return self.read() == HTTPStatus.OK and self.try_refresh().status_code == HTTPStatus.OK

    def is_out(self) -> bool:
        """Whether neither token works."""
        return self.read() == HTTPStatus.UNAUTHORIZED and self.try_refresh().status_code == HTTPStatus.UNAUTHORIZED


def log_in(name: str, password: str = PASSWORD, address: str = HOME) -> Visitor:
    """Log in and return the visitor."""
    answer = try_login(name, password, address)
    assert answer.status_code == HTTPStatus.OK, answer.content
    return Visitor(**answer.json(), address=address)


def claims(token: str) -> dict[str, Any]:
    """Return what a token says, unchecked."""
    return jwt.decode(token, options={"verify_signature": False})


def stored() -> str:
    """Return every row of every table as text, in lower case."""
    with connection.cursor() as cursor:
        rows = []
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT "{table}"::text FROM "{table}"')  # noqa: S608 # the names are the database's own
            rows += [row for (row,) in cursor.fetchall()]
    return "\n".join(rows).lower()


def at_once(hands: int, action: Callable[[int], T]) -> list[T]:
    """Return what ``hands`` threads get that do ``action`` at the same moment, each over a connection of its own."""
    start = Barrier(hands)

    def act(hand: int) -> T:
        try:
            connections["default"].ensure_connection()
            start.wait(timeout=30)
            return action(hand)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(hands) as pool:
        return list(pool.map(act, range(hands)))
