"""A token of a third kind, or of a session that is none, is nobody's: 401 even where the right key has signed it."""

from http import HTTPStatus
from typing import Any

import pytest
from django.test import RequestFactory
from rest_framework.test import APIClient

from accounts.models import User
from accounts.sessions import open_session
from accounts.tokens import SessionAccessToken, SessionRefreshToken

pytestmark = pytest.mark.django_db

CHANGES: dict[str, dict[str, Any]] = {
    "a third kind": {"token_type": "sliding"},
    "no kind": {"token_type": None},
    "two kinds": {"token_type": ["access", "refresh"]},
    "no session": {"sid": None},
    "a session that is a number": {"sid": 1},
    "a session that is a list": {"sid": [1]},
    "a session that is an object": {"sid": {}},
}


@pytest.fixture
def pair(alice: User) -> dict[str, Any]:
    """Return the tokens of a new session of Alice's."""
    return open_session(user=alice, request=RequestFactory().post("/"))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", ["access", "refresh"])
def test_odd_token_is_unauthorized_wherever_it_is_shown(
    anonymous: APIClient, pair: dict[str, Any], kind: str, change: str
) -> None:
    token = (SessionAccessToken if kind == "access" else SessionRefreshToken)(pair[kind])
    token.payload.update(CHANGES[change])

    answers = [
        anonymous.get("/auth/users/me/", headers={"Authorization": f"Bearer {token}"}),
        anonymous.post("/auth/jwt/verify/", {"token": str(token)}),
        anonymous.post("/auth/jwt/refresh/", {"refresh": str(token)}),
        anonymous.post("/auth/jwt/blacklist/", {"refresh": str(token)}),
    ]

    assert [answer.status_code for answer in answers] == [HTTPStatus.UNAUTHORIZED] * 4


@pytest.mark.parametrize("kind", ["access", "refresh"])
def test_token_of_either_kind_is_verified(anonymous: APIClient, pair: dict[str, Any], kind: str) -> None:
    assert anonymous.post("/auth/jwt/verify/", {"token": str(pair[kind])}).status_code == HTTPStatus.OK
