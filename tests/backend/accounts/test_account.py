"""One's own account: ``/auth/users/me/`` and ``/auth/users/set_password/``."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.mail import ask_for, deliver_due
from accounts.models import OutgoingMail, User
from tests.backend.accounts.visitors import HANDS, PASSWORD, ROUNDS, at_once, client, register, stored
from tests.backend.tokens import new_session
from transactions.models import Transaction

pytestmark = pytest.mark.django_db

ME = "/auth/users/me/"
SignIn = Callable[[User], APIClient]


def refresh(client: APIClient, token: Any) -> Any:
    return client.post("/auth/jwt/refresh/", {"refresh": str(token)})


# Reading and changing ---------------------------------------------------------------------------------------------


def test_account_shows_its_owner_nothing_but_its_details(as_alice: APIClient, alice: User, bob: User) -> None:
    response = as_alice.get(ME)

    assert response.status_code == HTTPStatus.OK
    assert response.json() == {"id": alice.pk, "username": "alice", "email": "alice@example.com"}


@pytest.mark.parametrize("method", ["put", "patch"])
def test_account_email_can_be_changed(as_alice: APIClient, alice: User, password: str, method: str) -> None:
    response = getattr(as_alice, method)(ME, {"email": "alice@example.org", "current_password": password})

    assert response.status_code == HTTPStatus.OK
    assert response.json() == {"id": alice.pk, "username": "alice", "email": "alice@example.org"}
    alice.refresh_from_db()
    assert alice.email == "alice@example.org"


@pytest.mark.usefixtures("mail_on")
@pytest.mark.parametrize("email", ["alice@example.org", ""])
def test_account_email_that_was_changed_is_told_to_the_former_address(
    as_alice: APIClient, alice: User, password: str, mailoutbox: list[Any], email: str
) -> None:
    as_alice.patch(ME, {"email": email, "current_password": password})

    assert deliver_due() == {"sent": 1}
    (mail,) = mailoutbox
    assert (mail.to, mail.subject) == (["alice@example.com"], "Your e-mail address was changed")
    assert mail.body.startswith("Hello alice,")
    assert "example.org" not in mail.body, "it tells who has the account now"
    assert "alice@example.com" not in "".join(OutgoingMail.objects.values_list("address", flat=True))


@pytest.mark.usefixtures("mail_on")
def test_account_email_that_was_not_changed_or_is_the_first_is_told_to_nobody(
    as_alice: APIClient, alice: User, bob: User, password: str
) -> None:
    as_alice.patch(ME, {"email": alice.email, "current_password": password})
    as_alice.patch(ME, {"email": bob.email, "current_password": password})
    as_alice.patch(ME, {"email": "alice@example.org", "current_password": "wrong"})
    User.objects.filter(pk=alice.pk).update(email="")
    as_alice.patch(ME, {"email": "alice@example.org", "current_password": password})

    assert User.objects.get(pk=alice.pk).email == "alice@example.org"
    assert not OutgoingMail.objects.exists()


def test_account_email_that_was_changed_is_told_to_nobody_without_mail(
    as_alice: APIClient, alice: User, password: str
) -> None:
    as_alice.patch(ME, {"email": "alice@example.org", "current_password": password})

    assert not OutgoingMail.objects.exists()


@pytest.mark.usefixtures("mail_on")
def test_the_former_address_of_an_account_that_is_closed_is_forgotten(
    as_alice: APIClient, alice: User, password: str, mailoutbox: list[Any]
) -> None:
    as_alice.patch(ME, {"email": "another@example.org", "current_password": password})
    close(as_alice, password)

    assert "alice" not in stored()
    assert (deliver_due(), mailoutbox) == ({}, [])


@pytest.mark.parametrize("email", ["alice@example.org", "Alice@Example.com", ""])
@pytest.mark.parametrize("given", [{}, {"current_password": "wrong"}])
@pytest.mark.parametrize("method", ["put", "patch"])
def test_account_email_cannot_be_changed_without_the_password(
    as_alice: APIClient, alice: User, method: str, given: dict[str, str], email: str
) -> None:
    response = getattr(as_alice, method)(ME, {"email": email, **given})

    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert list(response.json()) == ["current_password"]
    alice.refresh_from_db()
    assert alice.email == "alice@example.com"


@pytest.mark.parametrize("method", ["put", "patch"])
def test_account_that_keeps_its_email_needs_no_password(as_alice: APIClient, alice: User, method: str) -> None:
    for given in ({"email": alice.email}, {}):
        assert getattr(as_alice, method)(ME, given).status_code == HTTPStatus.OK


@pytest.mark.parametrize("email", ["bob@example.com", "BOB@example.COM"])
@pytest.mark.parametrize("method", ["put", "patch"])
def test_account_cannot_take_the_email_of_another(
    as_alice: APIClient, bob: User, password: str, method: str, email: str
) -> None:
    response = getattr(as_alice, method)(ME, {"email": email, "current_password": password})

    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert response.json() == {"email": ["A user with that email address already exists."]}


@pytest.mark.parametrize("given", [{}, {"current_password": "wrong"}])
@pytest.mark.parametrize("method", ["put", "patch"])
def test_account_that_asks_without_the_password_is_not_told_who_has_an_address(
    as_alice: APIClient, bob: User, method: str, given: dict[str, str]
) -> None:
    taken, free = (
        getattr(as_alice, method)(ME, {"email": email, **given}) for email in (bob.email, "free@example.com")
    )

    assert taken.status_code == HTTPStatus.BAD_REQUEST
    assert (taken.status_code, taken.content) == (free.status_code, free.content)


@pytest.mark.django_db(transaction=True)
def test_account_that_claims_an_email_with_many_others_at_once_gets_it_or_a_refusal(cheap_hashes: None) -> None:
    clients = [client() for _ in range(HANDS)]
    for hand, visitor in enumerate(clients):
        visitor.credentials(HTTP_AUTHORIZATION=f"Bearer {new_session(register(f'person{hand}')).access_token}")

    for number in range(ROUNDS):
        email = f"wanted{number}@example.com"

        def claim(hand: int, *, email: str = email) -> int:
            return int(clients[hand].patch(ME, {"email": email, "current_password": PASSWORD}).status_code)

        assert sorted(at_once(HANDS, claim)) == [HTTPStatus.OK] + [HTTPStatus.BAD_REQUEST] * (HANDS - 1)
        assert User.objects.filter(email=email).count() == 1


@pytest.mark.parametrize("email", ["alice@example.com", "Alice@Example.com", ""])
def test_account_can_keep_or_clear_its_email(as_alice: APIClient, bob: User, password: str, email: str) -> None:
    given = {"email": email, "current_password": password}
    assert as_alice.patch(ME, given).status_code == HTTPStatus.OK


@pytest.mark.parametrize("method", ["put", "patch"])
def test_account_ignores_fields_that_are_the_servers(as_alice: APIClient, alice: User, method: str) -> None:
    unchanged = User.objects.values().get(pk=alice.pk)
    forbidden = {
        "id": 77,
        "username": "mallory",
        "password": "another-passphrase",
        "is_staff": True,
        "is_superuser": True,
        "is_active": False,
        "date_joined": "2020-01-01T00:00:00Z",
        "user_permissions": [1],
    }

    response = getattr(as_alice, method)(ME, forbidden)

    assert response.status_code == HTTPStatus.OK
    assert User.objects.values().get(pk=alice.pk) == unchanged


# The password -----------------------------------------------------------------------------------------------------


def set_password(client: APIClient, current: str, new: str) -> Any:
    return client.post("/auth/users/set_password/", {"current_password": current, "new_password": new})


def test_set_password_changes_the_password(as_alice: APIClient, alice: User, password: str) -> None:
    response = set_password(as_alice, password, "another-passphrase")

    assert response.status_code == HTTPStatus.NO_CONTENT
    alice.refresh_from_db()
    assert alice.check_password("another-passphrase")


def test_set_password_ends_every_session(as_alice: APIClient, alice: User, password: str) -> None:
    sessions = [new_session(alice) for _ in range(3)]

    set_password(as_alice, password, "another-passphrase")

    assert {refresh(as_alice, token).status_code for token in sessions} == {HTTPStatus.UNAUTHORIZED}


def test_set_password_leaves_the_sessions_of_others(as_alice: APIClient, bob: User, password: str) -> None:
    session = new_session(bob)

    set_password(as_alice, password, "another-passphrase")

    assert refresh(as_alice, session).status_code == HTTPStatus.OK


def test_set_password_needs_the_current_one(as_alice: APIClient, alice: User) -> None:
    session = new_session(alice)

    response = set_password(as_alice, "wrong", "another-passphrase")

    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert response.json() == {"current_password": ["Invalid password."]}
    assert refresh(as_alice, session).status_code == HTTPStatus.OK


@pytest.mark.parametrize(
    "weak", ["short", "password123", "1234567890123", "alice@example.com", "x" * 129, " " * 8, "\u3000" * 8]
)
def test_set_password_refuses_a_weak_one(as_alice: APIClient, password: str, weak: str) -> None:
    response = set_password(as_alice, password, weak)

    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert list(response.json()) == ["new_password"]


# Closing ----------------------------------------------------------------------------------------------------------


def close(client: APIClient, current: str) -> Any:
    return client.delete(ME, {"current_password": current})


@pytest.fixture
def closed(alice: User, as_alice: APIClient, coffee: Transaction, password: str) -> User:
    """Return Alice's account after she has closed it."""
    response = close(as_alice, password)
    assert response.status_code == HTTPStatus.NO_CONTENT
    alice.refresh_from_db()
    return alice


def test_closing_needs_the_password(as_alice: APIClient, alice: User) -> None:
    wrong, missing = close(as_alice, "wrong"), as_alice.delete(ME)

    assert wrong.status_code == missing.status_code == HTTPStatus.BAD_REQUEST
    assert list(wrong.json()) == list(missing.json()) == ["current_password"]
    alice.refresh_from_db()
    assert alice.is_active


def test_closing_keeps_the_transactions(closed: User) -> None:
    assert Transaction.objects.get().user == closed


def test_closing_makes_login_impossible(closed: User, anonymous: APIClient, password: str) -> None:
    for name in ("alice", closed.username):
        response = anonymous.post("/auth/jwt/create/", {"username": name, "password": password})

        assert response.status_code == HTTPStatus.UNAUTHORIZED


def test_closing_ends_every_token(closed: User, as_alice: APIClient) -> None:
    assert as_alice.get(ME).status_code == HTTPStatus.UNAUTHORIZED
    assert as_alice.get("/api/transactions/").status_code == HTTPStatus.UNAUTHORIZED


def test_closing_ends_every_session(as_alice: APIClient, alice: User, password: str) -> None:
    session = new_session(alice)
    close(as_alice, password)
    User.objects.filter(pk=alice.pk).update(is_active=True)  # what blacklists the token is not that she is inactive

    assert refresh(as_alice, session).status_code == HTTPStatus.UNAUTHORIZED


def test_closing_leaves_nothing_personal(closed: User) -> None:
    assert (closed.email, closed.first_name, closed.last_name) == ("", "", "")
    assert "alice" not in closed.username
    assert not closed.has_usable_password()


def test_closing_leaves_nothing_personal_in_any_table(alice: User, password: str) -> None:
    visitor = client("192.0.2.77", HTTP_USER_AGENT="Alice's telephone")
    tokens = visitor.post("/auth/jwt/create/", {"username": "alice", "password": password}).json()
    visitor.credentials(HTTP_AUTHORIZATION=f"Bearer {tokens['access']}")
    visitor.post("/api/transactions/", {"amount": "1", "description": "Coffee"}, headers={"Idempotency-Key": "k"})
    ask_for(kind=OutgoingMail.Kind.PASSWORD_RESET, address="ALICE@example.com")
    personal = ["alice", "192.0.2.77", "telephone", alice.password.lower()]
    assert all(word in stored() for word in personal)

    assert close(visitor, password).status_code == HTTPStatus.NO_CONTENT

    assert [word for word in personal if word in stored()] == []
    assert User.objects.get(pk=alice.pk).last_login is None


@pytest.mark.usefixtures("mail_on")
def test_mail_that_waits_for_a_closed_account_reaches_nobody(alice: User, mailoutbox: list[Any]) -> None:
    register("carol")
    User.objects.filter(username="carol").update(email="")
    ask_for(kind=OutgoingMail.Kind.PASSWORD_RESET, address=alice.email)
    alice.close()
    OutgoingMail.objects.update(due_at=timezone.now())  # as after a failure that the close came in between

    deliver_due()

    assert mailoutbox == []


def test_closing_frees_name_and_email(closed: User, anonymous: APIClient, password: str) -> None:
    response = anonymous.post("/auth/users/", {"username": "alice", "password": password, "email": "alice@example.com"})

    assert response.status_code == HTTPStatus.CREATED


def test_closing_works_whatever_names_others_have_taken(
    as_alice: APIClient, alice: User, anonymous: APIClient, password: str
) -> None:
    name = f"closed-{alice.pk}"
    anonymous.post("/auth/users/", {"username": name, "password": password})

    assert close(as_alice, password).status_code == HTTPStatus.NO_CONTENT


def test_name_of_a_closed_account_cannot_be_registered(closed: User, anonymous: APIClient, password: str) -> None:
    name = closed.username.replace(str(closed.pk), str(closed.pk + 1))

    response = anonymous.post("/auth/users/", {"username": name, "password": password})

    assert response.status_code == HTTPStatus.BAD_REQUEST


def test_two_accounts_can_be_closed(alice: User, bob: User, sign_in: SignIn, password: str) -> None:
    statuses = [close(sign_in(account), password).status_code for account in (alice, bob)]

    assert statuses == [HTTPStatus.NO_CONTENT] * 2
