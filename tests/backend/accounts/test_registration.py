"""Registration: ``POST /auth/users/``."""

from http import HTTPStatus
from typing import Any

import pytest
from django.db import IntegrityError
from rest_framework.test import APIClient

from accounts.models import User
from tests.backend.accounts.visitors import HANDS, ROUNDS, at_once

pytestmark = pytest.mark.django_db


def register(client: APIClient, **fields: Any) -> Any:
    return client.post("/auth/users/", fields)


def test_registration_needs_a_name_and_a_password_only(anonymous: APIClient, password: str) -> None:
    response = register(anonymous, username="carol", password=password)

    assert response.status_code == HTTPStatus.CREATED
    assert response.json() == {"id": User.objects.get().pk, "username": "carol", "email": ""}


def test_registration_stores_the_password_as_argon2id(anonymous: APIClient, password: str) -> None:
    register(anonymous, username="carol", password=password)

    assert User.objects.get().password.startswith("argon2$argon2id$v=19$m=19456,t=2,p=1$")


def test_registration_without_email_is_open_to_several_accounts(anonymous: APIClient, password: str) -> None:
    first = register(anonymous, username="carol", password=password)
    second = register(anonymous, username="dave", password=password, email="")

    assert (first.status_code, second.status_code) == (HTTPStatus.CREATED, HTTPStatus.CREATED)


@pytest.mark.parametrize("name", ["alice", "Alice", "ALICE", "\uff41lice"])
def test_registration_refuses_a_taken_name_in_any_case(
    anonymous: APIClient, alice: User, password: str, name: str
) -> None:
    response = register(anonymous, username=name, password=password)

    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert User.objects.count() == 1


def test_registration_names_the_field_of_a_taken_name(anonymous: APIClient, alice: User, password: str) -> None:
    response = register(anonymous, username="Alice", password=password)

    assert response.json() == {"username": ["A user with that username already exists."]}


@pytest.mark.parametrize("email", ["alice@example.com", "ALICE@Example.COM"])
def test_registration_refuses_a_taken_email_in_any_case(
    anonymous: APIClient, alice: User, password: str, email: str
) -> None:
    response = register(anonymous, username="carol", password=password, email=email)

    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert response.json() == {"email": ["A user with that email address already exists."]}


@pytest.mark.parametrize(
    ("weak", "why"),
    [
        ("a7#kQ2z", "too short"),
        ("password123", "too common"),
        ("8273645190", "entirely numeric"),
        ("carolcarol", "too similar"),
        ("x" * 129, "at most 128"),
    ],
)
def test_registration_refuses_a_weak_password(anonymous: APIClient, weak: str, why: str) -> None:
    response = register(anonymous, username="carolcarol", password=weak)

    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert list(response.json()) == ["password"]
    assert why in str(response.json()["password"])
    assert not User.objects.exists()


def test_registration_accepts_a_password_of_128_characters(anonymous: APIClient) -> None:
    long = "correct horse " * 9 + "ba"

    response = register(anonymous, username="carol", password=long)

    assert len(long) == 128
    assert response.status_code == HTTPStatus.CREATED


def test_registration_and_login_read_spaces_around_a_password_alike(anonymous: APIClient) -> None:
    fields = {"username": "carol", "password": "  surrounded by spaces  "}
    register(anonymous, **fields)

    assert anonymous.post("/auth/jwt/create/", fields).status_code == HTTPStatus.OK


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("username", ""),
        ("username", None),
        ("username", "two words"),
        ("username", "x" * 151),
        ("username", "nul\x00"),
        ("username", ["carol"]),
        ("username", {"a": 1}),
        ("username", True),
        ("email", "no address"),
        ("email", None),
        ("email", f"{'x' * 250}@example.com"),
        ("password", ""),
        ("password", None),
        ("password", "nul\x00nul\x00nul"),
    ],
)
def test_registration_names_the_bad_field(anonymous: APIClient, password: str, field: str, value: Any) -> None:
    fields = {"username": "carol", "password": password, "email": "carol@example.com", field: value}

    response = register(anonymous, **fields)

    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert list(response.json()) == [field]


def test_registration_ignores_fields_that_are_the_servers(anonymous: APIClient, password: str) -> None:
    response = register(
        anonymous,
        username="carol",
        password=password,
        id=77,
        is_staff=True,
        is_superuser=True,
        is_active=False,
        last_login="2020-01-01T00:00:00Z",
        groups=[1],
        user_permissions=[1],
    )

    assert response.status_code == HTTPStatus.CREATED
    carol = User.objects.get()
    assert carol.pk != 77
    assert (carol.is_staff, carol.is_superuser, carol.is_active) == (False, False, True)
    assert carol.last_login is None
    assert not carol.groups.exists()


def test_registration_never_returns_the_password(anonymous: APIClient, password: str) -> None:
    assert password not in register(anonymous, username="carol", password=password).content.decode()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("names", [["carol"], ["carol", "Carol", "CAROL", "cArol"]], ids=["same", "any case"])
def test_registration_of_one_name_by_many_at_once_succeeds_once(
    names: list[str], password: str, cheap_hashes: None
) -> None:
    def attempt(hand: int) -> int:
        return int(register(APIClient(), username=names[hand % len(names)], password=password).status_code)

    for _ in range(ROUNDS):
        statuses = sorted(at_once(HANDS, attempt))

        assert statuses == [HTTPStatus.CREATED] + [HTTPStatus.BAD_REQUEST] * (HANDS - 1)
        User.objects.get().delete()


@pytest.mark.django_db(transaction=True)
def test_registration_of_one_email_by_many_at_once_succeeds_once(
    anonymous: APIClient, password: str, cheap_hashes: None
) -> None:
    emails = ["carol@example.com", "Carol@EXAMPLE.com"]

    def attempt(hand: int) -> int:
        given = {"username": f"person{hand}", "email": emails[hand % 2], "password": password}
        return int(register(APIClient(raise_request_exception=False), **given).status_code)

    for _ in range(ROUNDS):
        statuses = sorted(at_once(HANDS, attempt))

        assert statuses == [HTTPStatus.CREATED] + [HTTPStatus.BAD_REQUEST] * (HANDS - 1)
        User.objects.get().delete()


@pytest.mark.parametrize("fields", [{"username": "ALICE"}, {"username": "carol", "email": "Alice@EXAMPLE.com"}])
def test_database_refuses_a_second_account_in_any_case_whatever_writes_it(alice: User, fields: dict[str, str]) -> None:
    with pytest.raises(IntegrityError, match="unique_in_any_case"):
        User.objects.bulk_create([User(**fields)])
