"""Text is text: what the schema says of a field is what the field takes."""

import unicodedata
from http import HTTPStatus
from typing import Any

import pytest
from rest_framework.test import APIClient

from accounts.models import User
from transactions.models import Transaction

pytestmark = pytest.mark.django_db

LIST = "/api/transactions/"
PASSWORD = "correct-horse-battery"
BODIES: dict[str, dict[str, Any]] = {
    "/auth/users/": {"username": "carol", "password": PASSWORD, "email": "carol@example.com"},
    "/auth/jwt/create/": {"username": "alice", "password": PASSWORD},
    "/auth/jwt/refresh/": {"refresh": "x"},
    "/auth/jwt/verify/": {"token": "x"},
    "/auth/jwt/blacklist/": {"refresh": "x"},
}


@pytest.mark.parametrize("value", [0, 5, -1, 10**30, 0.5, True, [], {}])
def test_number_is_no_text(anonymous: APIClient, as_alice: APIClient, value: Any) -> None:
    asked = [(anonymous, path, body) for path, body in BODIES.items()]
    asked.append((as_alice, LIST, {"amount": "1", "description": "Coffee"}))
    asked.append((as_alice, "/auth/users/set_password/", {"current_password": PASSWORD, "new_password": PASSWORD * 2}))
    for client, path, body in asked:
        for name in body.keys() - {"amount"}:
            response = client.post(path, {**body, name: value})

            assert response.status_code == HTTPStatus.BAD_REQUEST, (path, name)
            assert list(response.json()) == [name], (path, response.content)
    assert User.objects.count() == 1
    assert not Transaction.objects.exists()


def test_number_is_no_password_for_closing_an_account(as_alice: APIClient) -> None:
    response = as_alice.delete("/auth/users/me/", {"current_password": 5})

    assert response.json() == {"current_password": ["Not a valid string."]}


def test_description_is_measured_as_it_was_sent_and_trimmed_afterwards(as_alice: APIClient) -> None:
    fits = as_alice.post(LIST, {"amount": "1", "description": " " + "x" * 253 + " "})
    too_long = as_alice.post(LIST, {"amount": "1", "description": "x" * 255 + " "})

    assert fits.json()["description"] == "x" * 253
    assert too_long.json() == {"description": ["Ensure this field has no more than 255 characters."]}


@pytest.mark.parametrize("blank", ["", " ", "\t\n\v\f\r", "\x1c\x1d\x1e\x1f", "\x85", "\u00a0", "\u2003\u3000"])
def test_blank_description_is_refused_by_api_and_schema_alike(as_alice: APIClient, blank: str) -> None:
    response = as_alice.post(LIST, {"amount": "1", "description": blank})

    assert response.json() == {"description": ["This field may not be blank."]}


# Names ----------------------------------------------------------------------------------------------------------------


def test_name_is_measured_in_the_form_in_which_it_is_stored(anonymous: APIClient) -> None:
    grows = "\ufdfa"  # one letter, stored as 18

    response = anonymous.post("/auth/users/", {"username": grows * 150, "password": PASSWORD})

    assert len(unicodedata.normalize("NFKC", grows * 150)) == 2700
    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert list(response.json()) == ["username"]


def test_name_may_not_become_what_no_name_may_be(anonymous: APIClient) -> None:
    response = anonymous.post("/auth/users/", {"username": "half\u00bd", "password": PASSWORD})  # stored with U+2044

    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert list(response.json()) == ["username"]


def test_name_is_one_name_in_every_way_of_writing_it(anonymous: APIClient) -> None:
    fullwidth = "\uff23arol"
    first = anonymous.post("/auth/users/", {"username": fullwidth, "password": PASSWORD})
    second = anonymous.post("/auth/users/", {"username": "carol", "password": PASSWORD})
    logins = [
        anonymous.post("/auth/jwt/create/", {"username": name, "password": PASSWORD}) for name in (fullwidth, "CAROL")
    ]

    assert first.json()["username"] == "Carol"
    assert second.json() == {"username": ["A user with that username already exists."]}
    assert [login.status_code for login in logins] == [HTTPStatus.OK] * 2


def test_registration_looks_at_no_token(anonymous: APIClient) -> None:
    body = {"username": "carol", "password": PASSWORD}

    response = anonymous.post("/auth/users/", body, headers={"Authorization": "Bearer long-expired"})

    assert response.status_code == HTTPStatus.CREATED


# Passwords ------------------------------------------------------------------------------------------------------------


def test_spaces_around_a_password_are_part_of_it(anonymous: APIClient) -> None:
    spaced = f" {PASSWORD} "
    registered = anonymous.post("/auth/users/", {"username": "carol", "password": spaced})
    with_spaces = anonymous.post("/auth/jwt/create/", {"username": "carol", "password": spaced})
    without = anonymous.post("/auth/jwt/create/", {"username": "carol", "password": PASSWORD})

    assert registered.status_code == HTTPStatus.CREATED
    assert with_spaces.status_code == HTTPStatus.OK
    assert without.status_code == HTTPStatus.UNAUTHORIZED


@pytest.mark.parametrize(("given", "why"), [("a7#kQ2z", "too short"), ("x" * 129, "at most 128")])
def test_new_password_is_measured_in_the_words_of_registration(as_alice: APIClient, given: str, why: str) -> None:
    body = {"current_password": PASSWORD, "new_password": given}

    response = as_alice.post("/auth/users/set_password/", body)

    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert why in response.json()["new_password"][0]


def test_password_can_be_changed_and_is_not_shown(as_alice: APIClient, anonymous: APIClient, alice: User) -> None:
    changed = as_alice.post(
        "/auth/users/set_password/", {"current_password": PASSWORD, "new_password": "a-long-passphrase"}
    )
    login = anonymous.post("/auth/jwt/create/", {"username": "alice", "password": "a-long-passphrase"})

    assert (changed.status_code, changed.content) == (HTTPStatus.NO_CONTENT, b"")
    assert login.status_code == HTTPStatus.OK


# Addresses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("email", [" carol@example.com", "carol@example.com ", "   "])
def test_address_has_nothing_around_it(as_alice: APIClient, email: str) -> None:
    response = as_alice.patch("/auth/users/me/", {"email": email})

    assert response.json() == {"email": ["Enter a valid email address."]}


def test_address_may_be_taken_back(as_alice: APIClient, password: str) -> None:
    given = {"email": "", "current_password": password}
    assert as_alice.patch("/auth/users/me/", given).json()["email"] == ""


# Pages ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["0", "-1", "last", "", "1.5", "\u0661", "\uff11", "9" * 40, " 1", "1_0"])
def test_page_of_sessions_is_a_plain_number(as_alice: APIClient, page: str) -> None:
    response = as_alice.get("/auth/sessions/", {"page": page})

    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert response.json() == {"page": ["Give a whole number from 1 to 2147483647."]}


def test_page_of_sessions_beyond_the_last_is_not_there(as_alice: APIClient) -> None:
    assert as_alice.get("/auth/sessions/", {"page": "1"}).status_code == HTTPStatus.OK
    assert as_alice.get("/auth/sessions/", {"page": "2"}).status_code == HTTPStatus.NOT_FOUND
