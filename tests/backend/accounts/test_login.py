"""Login and what tokens are: ``POST /auth/jwt/create/``."""

from http import HTTPStatus
from typing import Any

import jwt
import pytest
from django.conf import settings
from django.utils import timezone
from rest_framework.test import APIClient
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken

from accounts.models import User
from tests.backend.tokens import new_session

pytestmark = pytest.mark.django_db


def login(client: APIClient, username: str, password: str) -> Any:
    return client.post("/auth/jwt/create/", {"username": username, "password": password})


def claims(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


@pytest.mark.parametrize("name", ["alice", "Alice", "ALICE"])
def test_login_takes_the_name_in_any_case(anonymous: APIClient, alice: User, password: str, name: str) -> None:
    response = login(anonymous, name, password)

    assert response.status_code == HTTPStatus.OK
    assert set(response.json()) == {"access", "refresh"}


def test_login_gives_a_token_that_reads_the_account(anonymous: APIClient, alice: User, password: str) -> None:
    token = login(anonymous, "alice", password).json()["access"]

    response = anonymous.get("/auth/users/me/", headers={"Authorization": f"Bearer {token}"})

    assert response.status_code == HTTPStatus.OK
    assert response.json() == {"id": alice.pk, "username": "alice", "email": "alice@example.com"}


@pytest.mark.parametrize("header_type", ["JWT", "Token", "Basic", "bearertoken"])
def test_login_token_is_a_bearer_token(anonymous: APIClient, alice: User, header_type: str) -> None:
    token = new_session(alice).access_token

    response = anonymous.get("/auth/users/me/", headers={"Authorization": f"{header_type} {token}"})

    assert response.status_code == HTTPStatus.UNAUTHORIZED
    assert response["WWW-Authenticate"].startswith("Bearer ")


def test_login_with_a_wrong_password_and_as_nobody_answer_the_same(
    anonymous: APIClient, alice: User, password: str
) -> None:
    User.objects.create_user("disabled", password=password, is_active=False)

    wrong = login(anonymous, "alice", "wrong" + password)
    unknown = login(anonymous, "nobody", password)
    disabled = login(anonymous, "disabled", password)

    assert [item.status_code for item in (wrong, unknown, disabled)] == [HTTPStatus.UNAUTHORIZED] * 3
    assert wrong.json() == unknown.json() == disabled.json()
    assert wrong.json()["detail"] == "No active account found with the given credentials"


def test_login_takes_the_password_in_its_own_case_only(anonymous: APIClient, alice: User, password: str) -> None:
    assert login(anonymous, "alice", password.upper()).status_code == HTTPStatus.UNAUTHORIZED


def test_login_names_the_missing_fields(anonymous: APIClient) -> None:
    response = anonymous.post("/auth/jwt/create/", {})

    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert set(response.json()) == {"username", "password"}


def test_login_access_token_lives_15_minutes_and_refresh_token_one_day(
    anonymous: APIClient, alice: User, password: str
) -> None:
    pair = login(anonymous, "alice", password).json()

    access, refresh = claims(pair["access"]), claims(pair["refresh"])

    assert access["exp"] - access["iat"] == 15 * 60
    assert refresh["exp"] - refresh["iat"] == 24 * 60 * 60


def test_login_tokens_say_their_kind_issuer_and_audience(anonymous: APIClient, alice: User, password: str) -> None:
    pair = login(anonymous, "alice", password).json()

    access, refresh = claims(pair["access"]), claims(pair["refresh"])

    assert (access["token_type"], refresh["token_type"]) == ("access", "refresh")
    assert {access["iss"], refresh["iss"]} == {"transactions"}
    assert {access["aud"], refresh["aud"]} == {"transactions-api"}
    assert access["jti"] != refresh["jti"]


def test_login_tokens_hold_nothing_about_the_person(anonymous: APIClient, alice: User, password: str) -> None:
    access = claims(login(anonymous, "alice", password).json()["access"])

    assert set(access) == {"token_type", "exp", "iat", "jti", "user_id", "sid", "aud", "iss"}


def test_login_tokens_are_not_signed_with_the_key_of_django(anonymous: APIClient, alice: User, password: str) -> None:
    token = login(anonymous, "alice", password).json()["access"]

    options: Any = {"verify_aud": False}
    with pytest.raises(jwt.InvalidSignatureError):
        jwt.decode(token, settings.SECRET_KEY, algorithms=["HS256"], options=options)


def test_login_records_the_refresh_token_without_storing_it(anonymous: APIClient, alice: User, password: str) -> None:
    pair = login(anonymous, "alice", password).json()

    record = OutstandingToken.objects.get()

    assert (record.user, record.jti, record.token) == (alice, claims(pair["refresh"])["jti"], "")
    assert int(record.expires_at.timestamp()) == claims(pair["refresh"])["exp"]


def test_login_records_its_time(anonymous: APIClient, alice: User, password: str) -> None:
    before = timezone.now()

    login(anonymous, "alice", password)

    alice.refresh_from_db()
    assert alice.last_login is not None
    assert alice.last_login >= before
