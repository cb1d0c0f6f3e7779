"""Refresh tokens that work once: ``POST /auth/jwt/refresh/``."""

from http import HTTPStatus
from typing import Any

import pytest
from rest_framework.test import APIClient
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken

from accounts.models import User
from tests.backend.accounts.visitors import HANDS, ROUNDS, at_once
from tests.backend.tokens import new_session

pytestmark = pytest.mark.django_db


def refresh(client: APIClient, token: str) -> Any:
    return client.post("/auth/jwt/refresh/", {"refresh": token})


@pytest.fixture
def token(alice: User) -> str:
    """Return a fresh refresh token of Alice."""
    return str(new_session(alice))


def test_refresh_gives_the_next_pair(anonymous: APIClient, token: str) -> None:
    response = refresh(anonymous, token)

    assert response.status_code == HTTPStatus.OK
    pair = response.json()
    assert set(pair) == {"access", "refresh"}
    assert pair["refresh"] != token
    assert refresh(anonymous, pair["refresh"]).status_code == HTTPStatus.OK


def test_refresh_gives_an_access_token_that_works(anonymous: APIClient, token: str) -> None:
    access = refresh(anonymous, token).json()["access"]

    response = anonymous.get("/auth/users/me/", headers={"Authorization": f"Bearer {access}"})

    assert response.status_code == HTTPStatus.OK


def test_refresh_with_a_spent_token_is_unauthorized(anonymous: APIClient, token: str) -> None:
    refresh(anonymous, token)

    response = refresh(anonymous, token)

    assert response.status_code == HTTPStatus.UNAUTHORIZED
    assert response.json() == {"detail": "Token is invalid or spent", "code": "token_not_valid"}


def test_refresh_stores_no_token(anonymous: APIClient, token: str) -> None:
    refresh(anonymous, token)

    stored = list(OutstandingToken.objects.values_list("token", flat=True))

    assert stored == ["", ""]


@pytest.mark.django_db(transaction=True)
def test_refresh_of_one_token_by_many_at_once_succeeds_once(alice: User) -> None:
    def statuses(token: str) -> list[int]:
        return sorted(at_once(HANDS, lambda _: int(refresh(APIClient(), token).status_code)))

    for _ in range(ROUNDS):
        assert statuses(str(new_session(alice))) == [HTTPStatus.OK] + [HTTPStatus.UNAUTHORIZED] * (HANDS - 1)
    assert BlacklistedToken.objects.count() == ROUNDS
    assert OutstandingToken.objects.count() == 2 * ROUNDS


def test_refresh_for_a_deleted_account_is_unauthorized(anonymous: APIClient, alice: User, token: str) -> None:
    alice.delete()

    assert refresh(anonymous, token).status_code == HTTPStatus.UNAUTHORIZED


def test_refresh_for_a_disabled_account_is_unauthorized(anonymous: APIClient, alice: User, token: str) -> None:
    User.objects.filter(pk=alice.pk).update(is_active=False)

    assert refresh(anonymous, token).status_code == HTTPStatus.UNAUTHORIZED


def test_refresh_for_a_closed_account_is_unauthorized(anonymous: APIClient, alice: User, token: str) -> None:
    alice.close()

    assert refresh(anonymous, token).status_code == HTTPStatus.UNAUTHORIZED


def test_refresh_that_is_refused_spends_nothing(anonymous: APIClient, alice: User, token: str) -> None:
    User.objects.filter(pk=alice.pk).update(is_active=False)
    refresh(anonymous, token)
    User.objects.filter(pk=alice.pk).update(is_active=True)

    assert refresh(anonymous, token).status_code == HTTPStatus.OK


def test_refresh_needs_a_token(anonymous: APIClient) -> None:
    response = anonymous.post("/auth/jwt/refresh/", {})

    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert response.json() == {"refresh": ["This field is required."]}


def test_verify_accepts_a_fresh_token_of_either_kind(anonymous: APIClient, alice: User) -> None:
    pair = new_session(alice)

    for token in (pair, pair.access_token):
        response = anonymous.post("/auth/jwt/verify/", {"token": str(token)})

        assert response.status_code == HTTPStatus.OK
        assert response.json() == {}


def test_verify_refuses_a_spent_token(anonymous: APIClient, token: str) -> None:
    refresh(anonymous, token)

    response = anonymous.post("/auth/jwt/verify/", {"token": token})

    assert response.status_code == HTTPStatus.UNAUTHORIZED


@pytest.mark.parametrize("token", ["", "abc", "a.b.c", "eyJhbGciOiJub25lIn0.e30."])
def test_verify_refuses_what_is_no_token(anonymous: APIClient, token: str) -> None:
    response = anonymous.post("/auth/jwt/verify/", {"token": token})

    expected = HTTPStatus.UNAUTHORIZED if token else HTTPStatus.BAD_REQUEST
    assert response.status_code == expected
