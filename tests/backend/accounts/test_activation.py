"""Registrations that are confirmed by mail."""

import re
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import pytest
from django.core import mail as mailbox
from django.utils import timezone

from accounts.mail import UNCONFIRMED_KEPT, deliver_due, remove_expired
from accounts.models import OutgoingMail, User
from tests.backend.accounts.visitors import (
    HANDS,
    PASSWORD,
    ROUNDS,
    at_once,
    client,
    log_in,
    register,
    stored,
    try_login,
)
from tests.backend.removal import while_removing

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("activation_on")]

BAD_LINK = {"token": ["This link is not valid, or not any more."]}


def sign_up(**given: Any) -> Any:
    return client().post(
        "/auth/users/", {"username": "alice", "email": "alice@example.com", "password": PASSWORD, **given}
    )


def activate(given: dict[str, Any]) -> Any:
    return client().post("/auth/users/activation/", given)


def resend(email: Any = "alice@example.com") -> Any:
    return client().post("/auth/users/resend_activation/", {"email": email})


def receive() -> dict[str, str]:
    assert deliver_due() == {"sent": 1}
    body = str(mailbox.outbox[-1].body)
    found = re.search(r"^https://app\.example\.com/activate/([^/\s]+)/([^/\s]+)$", body, re.MULTILINE)
    assert found, body
    return {"uid": found[1], "token": found[2]}


def test_a_registration_waits_for_its_confirmation() -> None:
    answer = sign_up()

    assert answer.status_code == HTTPStatus.CREATED
    assert answer.json() == {"id": User.objects.get().pk, "username": "alice", "email": "alice@example.com"}
    assert try_login("alice").status_code == HTTPStatus.UNAUTHORIZED
    given = receive()
    assert mailbox.outbox[-1].subject == "Confirm your registration"
    assert activate(given).status_code == HTTPStatus.NO_CONTENT
    assert log_in("alice").is_in()


@pytest.mark.parametrize("given", [{"email": ""}, {"email": "alice"}, {"email": None}])
def test_a_registration_needs_an_address(given: dict[str, Any]) -> None:
    answer = sign_up(**given)

    assert (answer.status_code, set(answer.json())) == (HTTPStatus.BAD_REQUEST, {"email"})


def test_a_registration_without_an_address_names_it() -> None:
    answer = client().post("/auth/users/", {"username": "alice", "password": PASSWORD})

    assert (answer.status_code, set(answer.json())) == (HTTPStatus.BAD_REQUEST, {"email"})


def test_nobody_registers_as_active() -> None:
    sign_up(is_active=True, awaits_activation=False)

    account = User.objects.get()
    assert (account.is_active, account.awaits_activation) == (False, True)


def test_a_refused_registration_sends_nothing() -> None:
    register("alice")

    assert sign_up().status_code == HTTPStatus.BAD_REQUEST
    assert not OutgoingMail.objects.exists()


def test_a_link_works_once() -> None:
    sign_up()
    given = receive()
    activate(given)

    answer = activate(given)

    assert (answer.status_code, answer.json()) == (HTTPStatus.BAD_REQUEST, BAD_LINK)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("round_", range(ROUNDS))
def test_of_many_uses_at_once_one_counts(round_: int) -> None:
    sign_up()
    given = receive()

    statuses = sorted(answer.status_code for answer in at_once(HANDS, lambda _: activate(given)))

    assert statuses == [HTTPStatus.NO_CONTENT] + [HTTPStatus.BAD_REQUEST] * (HANDS - 1)


def test_the_database_holds_no_link() -> None:
    sign_up()
    given = receive()
    assert "alice@example.com" in stored()

    assert given["token"].lower() not in stored()
    activate(given)
    assert given["token"].lower() not in stored()


@pytest.mark.parametrize("way", ["save", "query"])
def test_an_account_that_was_disabled_is_not_made_active_by_any_link(way: str) -> None:
    sign_up()
    given = receive()
    resend()
    second = receive()
    activate(given)
    account = User.objects.get()
    if way == "save":
        account.is_active = False
        account.save()
    else:
        User.objects.update(is_active=False)

    assert resend().status_code == HTTPStatus.NO_CONTENT
    assert deliver_due() == {"dropped": 1}
    assert activate(given).json() == activate(second).json() == BAD_LINK
    assert not User.objects.get().is_active


def test_an_account_that_an_operator_made_active_and_disabled_stays_disabled() -> None:
    sign_up()
    given = receive()
    account = User.objects.get()
    account.is_active = True
    account.save(update_fields=["is_active"])
    account.is_active = False
    account.save()

    assert activate(given).json() == BAD_LINK
    resend()
    assert deliver_due() == {"dropped": 1}


def test_the_link_of_one_kind_is_no_link_of_the_other() -> None:
    sign_up()
    given = receive()

    answer = client().post("/auth/users/reset_password_confirm/", {**given, "new_password": "another-long-passphrase"})
    assert answer.json() == BAD_LINK

    activate(given)
    client().post("/auth/users/reset_password/", {"email": "alice@example.com"})
    deliver_due()
    found = re.search(r"/reset/([^/\s]+)/([^/\s]+)$", str(mailbox.outbox[-1].body), re.MULTILINE)
    assert found
    User.objects.update(is_active=False, awaits_activation=True)
    assert activate({"uid": found[1], "token": found[2]}).json() == BAD_LINK


@pytest.mark.parametrize("field", ["uid", "token"])
@pytest.mark.parametrize("value", [5, None, [], {}, "", "x", "\0"])
def test_a_link_that_is_none_is_a_bad_request(field: str, value: Any) -> None:
    sign_up()

    answer = activate({**receive(), field: value})

    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert not User.objects.get().is_active


def test_the_mail_is_sent_again_only_to_who_waits_for_it() -> None:
    register("active")
    register("disabled", is_active=False)
    for name in ("active", "disabled", "nobody"):
        assert resend(f"{name}@example.com").status_code == HTTPStatus.NO_CONTENT

    assert deliver_due() == {"dropped": 3}
    assert mailbox.outbox == []


def test_an_account_that_waits_cannot_reset_its_password() -> None:
    sign_up()
    receive()
    client().post("/auth/users/reset_password/", {"email": "alice@example.com"})

    assert deliver_due() == {"dropped": 1}


def test_a_registration_that_nobody_confirms_gives_its_name_back() -> None:
    sign_up()
    register("disabled", is_active=False)
    old = timezone.now() - UNCONFIRMED_KEPT - timedelta(minutes=1)
    User.objects.update(date_joined=old)
    register("young", is_active=False, awaits_activation=True)

    assert remove_expired()["unconfirmed registrations"] == 1

    assert set(User.objects.values_list("username", flat=True)) == {"disabled", "young"}
    assert sign_up().status_code == HTTPStatus.CREATED


@pytest.mark.django_db(transaction=True)
def test_a_registration_that_is_confirmed_while_it_is_removed_is_either_there_or_refused() -> None:
    sign_up()
    given = receive()
    User.objects.update(date_joined=timezone.now() - 2 * UNCONFIRMED_KEPT)

    answer = while_removing(remove_expired, lambda: activate(given))

    if answer.status_code == HTTPStatus.NO_CONTENT:
        assert log_in("alice").is_in()
    else:
        assert (answer.status_code, answer.json()) == (HTTPStatus.BAD_REQUEST, BAD_LINK)
        assert not User.objects.exists()
