"""Tokens that somebody else made: each is 401, wherever a token is taken."""

import base64
import json
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import jwt
import pytest
from django.conf import settings
from rest_framework.test import APIClient
from rest_framework_simplejwt.tokens import Token

from accounts.models import User
from accounts.signing import key_id
from tests.backend.tokens import new_session

pytestmark = pytest.mark.django_db

Claims = dict[str, Any]
KEY = settings.JWT_KEY_RING[0]


def sign(claims: Claims, *, key: Any = KEY, algorithm: str | None = "HS256") -> str:
    return jwt.encode(claims, key, algorithm=algorithm, headers={"kid": key_id(KEY)})


def unsigned(claims: Claims, algorithm: str) -> str:
    head, body = (
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
        for part in ({"alg": algorithm, "typ": "JWT", "kid": key_id(KEY)}, claims)
    )
    return f"{head}.{body}."


def claims_of(token: Token) -> Claims:
    options: Any = {"verify_signature": False}
    return jwt.decode(str(token), options=options)


def without(claims: Claims, name: str) -> Claims:
    return {key: value for key, value in claims.items() if key != name}


FORGERIES: dict[str, Callable[[Claims], str]] = {
    "alg none": lambda claims: unsigned(claims, "none"),
    "alg None": lambda claims: unsigned(claims, "None"),
    "empty signature": lambda claims: unsigned(claims, "HS256"),
    "another key": lambda claims: sign(
        claims, key="another key of more than 64 characters, which is not that of the server"
    ),
    "the key of Django": lambda claims: sign(claims, key=settings.SECRET_KEY),
    "another algorithm": lambda claims: sign(claims, algorithm="HS512"),
    "altered": lambda claims: sign(claims)[:-6] + "AAAAAA",
    "expired": lambda claims: sign({**claims, "exp": int(time.time()) - 1}),
    "without expiry": lambda claims: sign(without(claims, "exp")),
    "another audience": lambda claims: sign({**claims, "aud": "somebody-else"}),
    "without audience": lambda claims: sign(without(claims, "aud")),
    "another issuer": lambda claims: sign({**claims, "iss": "somebody-else"}),
    "without issuer": lambda claims: sign(without(claims, "iss")),
    "another kind": lambda claims: sign({**claims, "token_type": "sliding"}),
    "without a kind": lambda claims: sign(without(claims, "token_type")),
    "without a session": lambda claims: sign(without(claims, "sid")),
    "another session": lambda claims: sign({**claims, "sid": str(uuid4())}),
    "no session's name": lambda claims: sign({**claims, "sid": "1"}),
    "without a key's name": lambda claims: jwt.encode(claims, KEY, algorithm="HS256"),
    "the name of no key": lambda claims: jwt.encode(claims, KEY, algorithm="HS256", headers={"kid": "0" * 16}),
    "nobody": lambda claims: sign({**claims, "user_id": "999999"}),
    "not yet": lambda claims: sign({**claims, "nbf": int(time.time()) + 60}),
}


def test_forgeries_start_from_tokens_that_work(anonymous: APIClient, alice: User) -> None:
    pair = new_session(alice)
    access, refresh = sign(claims_of(pair.access_token)), sign(claims_of(pair))

    with_access = anonymous.get("/auth/users/me/", headers={"Authorization": f"Bearer {access}"})
    with_refresh = anonymous.post("/auth/jwt/refresh/", {"refresh": refresh})

    assert (with_access.status_code, with_refresh.status_code) == (HTTPStatus.OK, HTTPStatus.OK)


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_forged_access_token_is_unauthorized(anonymous: APIClient, alice: User, forge: Callable[[Claims], str]) -> None:
    token = forge(claims_of(new_session(alice).access_token))

    response = anonymous.get("/api/transactions/", headers={"Authorization": f"Bearer {token}"})

    assert response.status_code == HTTPStatus.UNAUTHORIZED


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_forged_refresh_token_is_unauthorized(
    anonymous: APIClient, alice: User, forge: Callable[[Claims], str]
) -> None:
    token = forge(claims_of(new_session(alice)))

    response = anonymous.post("/auth/jwt/refresh/", {"refresh": token})

    assert response.status_code == HTTPStatus.UNAUTHORIZED


def test_refresh_token_is_no_access_token(anonymous: APIClient, alice: User) -> None:
    token = new_session(alice)

    response = anonymous.get("/api/transactions/", headers={"Authorization": f"Bearer {token}"})

    assert response.status_code == HTTPStatus.UNAUTHORIZED


def test_access_token_is_no_refresh_token(anonymous: APIClient, alice: User) -> None:
    token = new_session(alice).access_token

    response = anonymous.post("/auth/jwt/refresh/", {"refresh": str(token)})

    assert response.status_code == HTTPStatus.UNAUTHORIZED


@pytest.mark.parametrize(
    "header",
    ["Bearer", "Bearer ", "Bearer a b", "Bearer \u00e9", "bearer", "Bearer " + "x" * 7000, "Bearer null", "\u00ff"],
)
def test_malformed_authorization_header_is_unauthorized(anonymous: APIClient, db: None, header: str) -> None:
    response = anonymous.get("/api/transactions/", headers={"Authorization": header})

    assert response.status_code == HTTPStatus.UNAUTHORIZED
