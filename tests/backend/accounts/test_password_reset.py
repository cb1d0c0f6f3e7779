"""A forgotten password: from asking for a link to the new password, over a mail server that may be away."""

import json
import re
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import pytest
from django.core import mail as mailbox
from django.utils import timezone

from accounts.mail import BACKOFF, KEPT, MAILS_PER_HOUR, TOKENS, deliver_due, remove_expired
from accounts.models import OutgoingMail, Session, User
from config.upkeep import stopping
from tests.backend.accounts.mail_server import MailServer
from tests.backend.accounts.visitors import (
    ELSEWHERE,
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

pytestmark = pytest.mark.django_db

NEXT = "another-long-passphrase"
BAD_LINK = {"token": ["This link is not valid, or not any more."]}


@pytest.fixture
def alice(mail_on: None) -> User:
    return register("alice")


def ask(email: Any = "alice@example.com") -> Any:
    return client().post("/auth/users/reset_password/", {"email": email})


def confirm(given: dict[str, Any]) -> Any:
    # Written here and not by the client, which refuses what is no text.
    body = json.dumps({"new_password": NEXT, **given})
    return client().post("/auth/users/reset_password_confirm/", body, content_type="application/json")


def link(text: str) -> dict[str, str]:
    found = re.search(r"^https://app\.example\.com/reset/([^/\s]+)/([^/\s]+)\r?$", text, re.MULTILINE)
    assert found, text
    return {"uid": found[1], "token": found[2]}


def ask_and_receive() -> dict[str, str]:
    assert ask().status_code == HTTPStatus.NO_CONTENT
    assert deliver_due() == {"sent": 1}
    return link(str(mailbox.outbox[-1].body))


def make_due() -> None:
    OutgoingMail.objects.exclude(due_at=None).update(due_at=timezone.now())


# From the question to the new password ------------------------------------------------------------


def test_a_forgotten_password_is_replaced_over_a_link_in_a_mail(alice: User, mail_server: MailServer) -> None:
    assert ask("Alice@Example.com").status_code == HTTPStatus.NO_CONTENT
    assert mail_server.taken == [], "the request itself talked to the mail server"
    assert deliver_due() == {"sent": 1}
    ((recipients, message),) = mail_server.taken

    assert recipients == ["alice@example.com"], "to the address that the account has, not the one that was typed"
    assert message["Subject"] == "Choose a new password"
    assert message["From"] == "Transactions <noreply@example.com>"
    answer = confirm(link(message.get_content()))  # type: ignore[attr-defined]

    assert (answer.status_code, answer.content) == (HTTPStatus.NO_CONTENT, b"")
    assert try_login("alice", PASSWORD).status_code == HTTPStatus.UNAUTHORIZED
    assert try_login("alice", NEXT).status_code == HTTPStatus.OK


def test_a_reset_ends_every_session(alice: User) -> None:
    here, there = log_in("alice"), log_in("alice")
    given = ask_and_receive()
    assert there.is_in()

    confirm(given)

    assert here.is_out()
    assert not Session.objects.filter(ended_at=None).exists()


def test_a_reset_unlocks_the_account(alice: User) -> None:
    for number in range(11):
        try_login("alice", "wrong", f"198.51.100.{number}")
    assert try_login("alice", PASSWORD, ELSEWHERE).status_code == HTTPStatus.TOO_MANY_REQUESTS

    confirm(ask_and_receive())

    assert try_login("alice", NEXT, ELSEWHERE).status_code == HTTPStatus.OK


# The link -----------------------------------------------------------------------------------------


def test_a_link_works_once(alice: User) -> None:
    given = ask_and_receive()
    confirm(given)

    answer = confirm({**given, "new_password": "a-third-long-passphrase"})

    assert (answer.status_code, answer.json()) == (HTTPStatus.BAD_REQUEST, BAD_LINK)
    assert try_login("alice", NEXT).status_code == HTTPStatus.OK


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("round_", range(ROUNDS))
def test_of_two_links_and_many_uses_at_once_one_counts(round_: int, mail_on: None) -> None:
    register("alice")
    links = [ask_and_receive(), ask_and_receive()]

    answers = at_once(HANDS, lambda hand: confirm({**links[hand % 2], "new_password": f"passphrase-number-{hand}"}))

    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [HTTPStatus.NO_CONTENT] + [HTTPStatus.BAD_REQUEST] * (HANDS - 1)


def test_the_database_holds_no_link(alice: User) -> None:
    given = ask_and_receive()
    assert "alice@example.com" in stored()

    assert given["token"].lower() not in stored()
    confirm(given)
    assert given["token"].lower() not in stored()


def test_a_link_works_for_an_hour(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    given = ask_and_receive()
    generator = TOKENS[OutgoingMail.Kind.PASSWORD_RESET]
    now = generator._now()

    monkeypatch.setattr(generator, "_now", lambda: now + timedelta(minutes=61))
    assert confirm(given).json() == BAD_LINK

    monkeypatch.setattr(generator, "_now", lambda: now + timedelta(minutes=59))
    assert confirm(given).status_code == HTTPStatus.NO_CONTENT


@pytest.mark.parametrize("event", ["login", "address", "disabled", "closed", "deleted"])
def test_a_link_ends_with_what_it_was_for(alice: User, event: str) -> None:
    given = ask_and_receive()

    if event == "login":
        log_in("alice")
    elif event == "address":
        User.objects.filter(pk=alice.pk).update(email="new@example.com")
    elif event == "disabled":
        User.objects.filter(pk=alice.pk).update(is_active=False)
    elif event == "closed":
        alice.close()
    else:
        alice.delete()

    answer = confirm(given)
    assert (answer.status_code, answer.json()) == (HTTPStatus.BAD_REQUEST, BAD_LINK)


def test_a_link_for_another_account_is_refused(alice: User) -> None:
    register("bob")
    ask("bob@example.com")
    deliver_due()
    given = ask_and_receive()
    for_bob = link(next(str(item.body) for item in mailbox.outbox if item.to == ["bob@example.com"]))

    assert confirm({"uid": for_bob["uid"], "token": given["token"]}).json() == BAD_LINK
    assert User.objects.get(username="bob").check_password(PASSWORD)


@pytest.mark.parametrize("field", ["uid", "token"])
@pytest.mark.parametrize(
    "value", [5, 5.5, True, None, [], {}, "", "\0", "\ud800", "٣", "x" * 4000, "LTE", "MTI%", "====", "-", "a-b"]
)
def test_a_link_that_is_none_is_a_bad_request(alice: User, field: str, value: Any) -> None:
    answer = confirm({**ask_and_receive(), field: value})

    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert set(answer.json()) <= {"uid", "token"}
    assert User.objects.get().check_password(PASSWORD)


@pytest.mark.parametrize("password", ["short", "12345678901", "password", "x" * 129, "alice@example.com", "", 5])
def test_a_weak_password_is_refused_and_the_link_stays_good(alice: User, password: Any) -> None:
    given = ask_and_receive()

    answer = confirm({**given, "new_password": password})

    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert set(answer.json()) == {"new_password"}
    assert confirm(given).status_code == HTTPStatus.NO_CONTENT


@pytest.mark.parametrize("email", ["", "alice", "a@b@c", None, 5, [], "x" * 250 + "@example.com", "a\0@example.com"])
def test_what_is_no_address_is_a_bad_request(alice: User, email: Any) -> None:
    assert ask(email).status_code == HTTPStatus.BAD_REQUEST
    assert not OutgoingMail.objects.exists()


# Who gets mail ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nobody", "disabled", "keyless", "waiting"])
def test_nobody_else_gets_mail(alice: User, name: str) -> None:
    register("disabled", is_active=False)
    register("waiting", is_active=False, awaits_activation=True)
    User.objects.create_user("keyless", "keyless@example.com", None)

    assert ask(f"{name}@example.com").status_code == HTTPStatus.NO_CONTENT

    assert deliver_due() == {"dropped": 1}
    assert mailbox.outbox == []


def test_a_mailbox_cannot_be_filled_with_mail_that_others_asked_for(alice: User) -> None:
    for _ in range(MAILS_PER_HOUR + 3):
        ask()

    assert deliver_due() == {"sent": MAILS_PER_HOUR, "dropped": 3}
    assert len(mailbox.outbox) == MAILS_PER_HOUR

    OutgoingMail.objects.update(sent_at=timezone.now() - timedelta(minutes=61))
    ask()
    assert deliver_due() == {"sent": 1}


def test_the_address_that_was_typed_is_forgotten(alice: User) -> None:
    ask()
    ask("nobody@example.com")

    deliver_due()

    assert set(OutgoingMail.objects.values_list("address", "due_at")) == {("", None)}


def test_mails_that_are_long_done_with_are_removed(alice: User) -> None:
    ask()
    deliver_due()
    ask()
    assert remove_expired() == {"mails": 0, "unconfirmed registrations": 0}

    OutgoingMail.objects.update(created_at=timezone.now() - KEPT - timedelta(minutes=1))

    assert remove_expired()["mails"] == 1, "one is still to be sent"
    assert OutgoingMail.objects.get().due_at is not None


# A mail server that is away -----------------------------------------------------------------------


def test_a_mail_that_fails_is_tried_again_after_a_growing_pause_and_given_up(
    alice: User, mail_server: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    mail_server.answer = lambda recipient: f"451 not now, {recipient}"
    ask()

    for pause in BACKOFF:
        before = timezone.now()
        assert deliver_due() == {"failed": 1}
        due_at = OutgoingMail.objects.get().due_at
        assert due_at is not None
        assert due_at - before == pytest.approx(pause, abs=timedelta(seconds=5))
        assert deliver_due() == {}, "it is not due yet"
        make_due()
    assert deliver_due() == {"failed": 1}
    make_due()

    assert deliver_due() == {}
    assert OutgoingMail.objects.get().address == ""
    assert "given up after 5 attempts" in caplog.text
    assert "alice@example.com" not in caplog.text


def test_a_mail_that_failed_is_sent_once_the_server_is_back(
    alice: User, mail_server: MailServer, settings: Any
) -> None:
    port = settings.EMAIL_PORT
    settings.EMAIL_PORT = 1
    ask()
    assert deliver_due() == {"failed": 1}

    settings.EMAIL_PORT = port
    make_due()

    assert deliver_due() == {"sent": 1}
    assert len(mail_server.taken) == 1


def test_one_address_that_is_always_refused_keeps_no_other_mail(alice: User, mail_server: MailServer) -> None:
    register("bob")
    mail_server.answer = lambda recipient: "550 no such mailbox" if recipient.startswith("alice") else "250 ok"
    ask()
    ask("bob@example.com")

    assert [deliver_due(), deliver_due()] == [{"failed": 1}, {"sent": 1}]
    assert [recipients for recipients, _ in mail_server.taken] == [["bob@example.com"]]


@pytest.mark.django_db(transaction=True)
def test_no_mail_is_sent_twice_however_many_processes_send(mail_on: None, mail_server: MailServer) -> None:
    addresses = [f"person{number}@example.com" for number in range(12)]
    User.objects.bulk_create(
        # Registered with everybody's password they would take as many seconds to hash it.
        User(username=address.partition("@")[0], email=address, password="argon2$")
        for address in addresses
    )
    for round_ in range(1, ROUNDS + 1):
        OutgoingMail.objects.update(sent_at=None)  # more of one hour would be dropped
        for address in addresses:
            ask(address)

        at_once(HANDS, lambda _: deliver_due())

        taken = sorted(recipients[0] for recipients, _ in mail_server.taken)
        assert taken == sorted(addresses * round_)


def test_a_mail_of_a_process_that_was_killed_is_not_sent_twice(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def sent_and_killed(*_: Any) -> None:
        raise Killed

    ask()
    monkeypatch.setattr("django.core.mail.EmailMessage.send", sent_and_killed)
    with pytest.raises(Killed):
        deliver_due()
    monkeypatch.undo()

    make_due()
    assert deliver_due() == {}


def test_sending_stops_when_the_process_is_told_to(alice: User) -> None:
    ask()
    stopping.set()
    try:
        assert deliver_due() == {}
    finally:
        stopping.clear()
    assert deliver_due() == {"sent": 1}


# Without mail -------------------------------------------------------------------------------------

ROUTES = ["reset_password", "reset_password_confirm", "activation", "resend_activation"]


@pytest.mark.parametrize("route", ROUTES)
def test_without_mail_there_is_no_such_route(route: str) -> None:
    assert client().post(f"/auth/users/{route}/", {}).status_code == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize("route", ROUTES)
def test_with_mail_but_without_activation_there_is_only_the_reset(mail_on: None, route: str) -> None:
    expected = HTTPStatus.BAD_REQUEST if route.startswith("reset") else HTTPStatus.NOT_FOUND

    assert client().post(f"/auth/users/{route}/", {}).status_code == expected
