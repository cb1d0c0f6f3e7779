"""A token is verified once and used often: what may be remembered of it, and for how long."""

import time
from http import HTTPStatus
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework_simplejwt.backends import TokenBackend

from accounts import authentication
from accounts.signing import token_backend
from tests.backend.accounts.visitors import Visitor, claims, log_in, register, try_login

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def nothing_is_remembered() -> None:
    """Begin with a process that has seen no token."""
    token_backend().verified.clear()


@pytest.fixture
def visitor() -> Visitor:
    """Return a session of Alice."""
    register("alice")
    return log_in("alice")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the tokens that are verified from now on."""
    tokens: list[Any] = []
    decode = TokenBackend.decode

    def note(backend: TokenBackend, token: Any, verify: bool = True) -> Any:
        tokens.append(token)
        return decode(backend, token, verify)

    monkeypatch.setattr(TokenBackend, "decode", note)
    return tokens


def test_a_token_is_verified_once(visitor: Visitor, decoded: list[Any]) -> None:
    assert [visitor.read() for _ in range(3)] == [HTTPStatus.OK] * 3

    assert len(decoded) == 1


def test_a_remembered_token_runs_out_like_any_other(visitor: Visitor, monkeypatch: pytest.MonkeyPatch) -> None:
    assert visitor.read() == HTTPStatus.OK
    (token,) = token_backend().verified.values()
    now = time.time()
    # The library reads the clock itself; this is the moment at which it would find the token expired.
    token["exp"] = int(now) - 1
    monkeypatch.setattr(TokenBackend, "decode", lambda *_, **__: {**token.payload})

    answer = visitor.client.get("/auth/users/me/")

    assert answer.status_code == HTTPStatus.UNAUTHORIZED
    assert answer.json() == {"detail": "Given token not valid for any token type", "code": "token_not_valid"}


def test_a_token_that_differs_in_one_letter_is_not_the_remembered_one(visitor: Visitor) -> None:
    assert visitor.read() == HTTPStatus.OK
    for place in (10, -20, -1):
        letters = list(visitor.access)
        letters[place] = "A" if letters[place] != "A" else "Q"

        assert Visitor("".join(letters), visitor.refresh).read() == HTTPStatus.UNAUTHORIZED


def test_what_is_remembered_is_bounded_and_holds_no_credential(
    visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "MOST_KEPT", 2)
    visitors = [log_in("alice") for _ in range(5)]

    for other in visitors:
        assert other.read() == HTTPStatus.OK
        assert len(token_backend().verified) <= 2
    kept = repr([(key, vars(token)) for key, token in token_backend().verified.items()])
    assert claims(visitors[-1].access)["jti"] in kept
    assert all(other.access not in kept for other in visitors)


def test_a_refresh_takes_one_statement_and_a_login_five(visitor: Visitor) -> None:
    with CaptureQueriesContext(connection) as refresh:
        assert visitor.try_refresh().status_code == HTTPStatus.OK
    with CaptureQueriesContext(connection) as login:
        assert try_login("alice").status_code == HTTPStatus.OK

    assert len(refresh) == 1
    # One finds out where from, two count the attempt, one looks the account up, one opens the session.
    assert len(login) == 5
