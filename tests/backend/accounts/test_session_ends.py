"""What must end sessions, ends them at once: for access and refresh tokens, whoever does it and by whichever way."""

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any

import pytest
from django.contrib.auth import authenticate
from django.contrib.auth.forms import AdminPasswordChangeForm, UserChangeForm
from django.core.management import call_command
from django.db import IntegrityError, connection, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.utils.http import urlsafe_base64_encode
from rest_framework.exceptions import AuthenticationFailed
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken

from accounts.hashers import Argon2idPasswordHasher
from accounts.mail import TOKENS
from accounts.models import OutgoingMail, Session, User
from accounts.serializers import AccountSerializer
from accounts.sessions import open_session
from config.middleware import DatabaseUnavailableMiddleware
from tests.backend.accounts.visitors import (
    HANDS,
    PASSWORD,
    ROUNDS,
    Visitor,
    at_once,
    client,
    log_in,
    register,
    try_login,
)
from tests.backend.tokens import new_session
from transactions.models import Transaction

pytestmark = pytest.mark.django_db

NEXT = "another-long-passphrase"
COFFEE = {"amount": "-3.20", "description": "Coffee"}


@pytest.fixture
def alice() -> User:
    return register("alice")


# The matrix ---------------------------------------------------------------------------------------


def log_out(here: Visitor, alice: User) -> None:
    assert here.client.post("/auth/jwt/logout/").status_code == HTTPStatus.NO_CONTENT


def log_out_everywhere(here: Visitor, alice: User) -> None:
    assert here.client.post("/auth/jwt/logout-all/").status_code == HTTPStatus.NO_CONTENT


def change_password(here: Visitor, alice: User) -> None:
    answer = here.client.post("/auth/users/set_password/", {"current_password": PASSWORD, "new_password": NEXT})
    assert answer.status_code == HTTPStatus.NO_CONTENT


def try_reset(alice: User) -> Any:
    alice.refresh_from_db()  # a link is good until the next login
    link = {
        "uid": urlsafe_base64_encode(str(alice.pk).encode()),
        "token": TOKENS[OutgoingMail.Kind.PASSWORD_RESET].make_token(alice),
    }
    return client().post("/auth/users/reset_password_confirm/", {**link, "new_password": NEXT})


def reset_password(here: Visitor, alice: User) -> None:
    answer = try_reset(alice)
    assert answer.status_code == HTTPStatus.NO_CONTENT, answer.content


def change_password_in_the_admin_site(here: Visitor, alice: User) -> None:
    form = AdminPasswordChangeForm(alice, {"password1": NEXT, "password2": NEXT, "usable_password": "true"})
    assert form.is_valid(), form.errors
    form.save()


def take_the_password_in_the_admin_site(here: Visitor, alice: User) -> None:
    form = AdminPasswordChangeForm(alice, {"usable_password": "false"})
    assert form.is_valid(), form.errors
    form.save()
    assert not User.objects.get(pk=alice.pk).has_usable_password()


def change_password_on_the_command_line(here: Visitor, alice: User) -> None:
    call_command("changepassword", "alice")
    assert User.objects.get(pk=alice.pk).check_password(NEXT)


def set_password_to_none(here: Visitor, alice: User) -> None:
    alice.set_password(None)
    alice.save()


def disable(here: Visitor, alice: User) -> None:
    alice.is_active = False
    alice.save()


def disable_in_the_admin_site(here: Visitor, alice: User) -> None:
    given = {"username": "alice", "date_joined": alice.date_joined, "email": alice.email}
    form: Any = UserChangeForm(given, instance=alice)
    assert form.is_valid(), form.errors
    form.save()
    assert not User.objects.get(pk=alice.pk).is_active


def disable_by_a_query(here: Visitor, alice: User) -> None:
    User.objects.filter(pk=alice.pk).update(is_active=False)


def close(here: Visitor, alice: User) -> None:
    answer = here.client.delete("/auth/users/me/", {"current_password": PASSWORD})
    assert answer.status_code == HTTPStatus.NO_CONTENT


def delete(here: Visitor, alice: User) -> None:
    alice.delete()


ENDS: list[Callable[[Visitor, User], None]] = [
    log_out,
    log_out_everywhere,
    change_password,
    change_password_in_the_admin_site,
    take_the_password_in_the_admin_site,
    change_password_on_the_command_line,
    set_password_to_none,
    disable,
    disable_in_the_admin_site,
    disable_by_a_query,
    close,
    delete,
]


def name(end: Callable[[Visitor, User], None]) -> str:
    return end.__name__


@pytest.fixture(autouse=True)
def nobody_at_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getpass", lambda prompt="": NEXT)


@pytest.mark.parametrize("end", ENDS, ids=name)
def test_an_access_token_stops_at_the_next_request(alice: User, end: Callable[[Visitor, User], None]) -> None:
    here = log_in("alice")
    assert here.read() == HTTPStatus.OK

    end(here, alice)

    assert here.read() == HTTPStatus.UNAUTHORIZED


@pytest.mark.parametrize("end", ENDS, ids=name)
def test_a_refresh_token_stops_at_the_next_request(alice: User, end: Callable[[Visitor, User], None]) -> None:
    here = log_in("alice").renew()

    end(here, alice)

    answer = here.try_refresh()
    assert answer.status_code == HTTPStatus.UNAUTHORIZED
    assert answer.json()["code"] == "token_not_valid"


@pytest.mark.parametrize("end", [item for item in ENDS if item is not log_out], ids=name)
def test_every_other_session_of_the_account_stops_too(alice: User, end: Callable[[Visitor, User], None]) -> None:
    register("bob")
    here, there, bob = log_in("alice"), log_in("alice"), log_in("bob")

    end(here, alice)

    assert there.is_out()
    assert bob.is_in()


def test_an_account_that_is_active_again_has_no_session_left(alice: User) -> None:
    here = log_in("alice")
    disable(here, alice)

    alice.is_active = True
    alice.save()

    assert here.is_out()


# What must not end them ---------------------------------------------------------------------------


def test_a_change_of_the_address_ends_no_session(alice: User) -> None:
    here = log_in("alice")

    given = {"email": "a@example.com", "current_password": PASSWORD}
    assert here.client.patch("/auth/users/me/", given).status_code == HTTPStatus.OK

    assert here.is_in()


def test_a_save_of_something_else_ends_no_session(alice: User) -> None:
    here = log_in("alice")

    fresh = User.objects.get(pk=alice.pk)
    fresh.first_name = "Alice"
    fresh.save()

    assert here.is_in()


def test_a_refused_change_of_password_ends_no_session(alice: User) -> None:
    here = log_in("alice")

    for given in (
        {"current_password": "wrong", "new_password": NEXT},
        {"current_password": PASSWORD, "new_password": "1"},
    ):
        assert here.client.post("/auth/users/set_password/", given).status_code == HTTPStatus.BAD_REQUEST

    assert here.is_in()


def test_a_stronger_hash_of_the_same_password_ends_no_session(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    here = log_in("alice")
    weaker = User.objects.get(pk=alice.pk).password
    monkeypatch.setattr(Argon2idPasswordHasher, "time_cost", 3)

    log_in("alice")

    assert User.objects.get(pk=alice.pk).password != weaker, "the hash was not made stronger"
    assert here.is_in()


# Races --------------------------------------------------------------------------------------------


def visit(account: User) -> Visitor:
    """Return a login of the account, without the password, which takes long."""
    token = new_session(account)
    return Visitor(str(token.access_token), str(token))


def test_a_stronger_hash_does_not_undo_a_change_of_password(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = User.objects.get(pk=alice.pk)
    alice.set_password(NEXT)
    alice.save()
    monkeypatch.setattr(Argon2idPasswordHasher, "time_cost", 3)

    assert stale.check_password(PASSWORD)  # by what it has read

    assert User.objects.get(pk=alice.pk).check_password(NEXT)


@pytest.mark.parametrize("change", [{"password": "another"}, {"is_active": False}])
def test_a_login_that_was_checked_before_the_account_changed_opens_nothing(alice: User, change: dict[str, Any]) -> None:
    request = RequestFactory().post("/")
    checked = authenticate(request, username="alice", password=PASSWORD)
    assert isinstance(checked, User)
    User.objects.filter(pk=alice.pk).update(**change)

    with pytest.raises(AuthenticationFailed):
        open_session(user=checked, request=request)

    assert not Session.objects.exists()
    assert not OutstandingToken.objects.exists()
    assert User.objects.get(pk=alice.pk).last_login is None


def test_an_account_that_logs_in_waits_for_no_activation_any_more(alice: User) -> None:
    """Whatever has made it active; a link that still comes must not undo a later decision to disable it."""
    User.objects.filter(pk=alice.pk).update(awaits_activation=True)

    assert try_login("alice").status_code == HTTPStatus.OK

    account = User.objects.get(pk=alice.pk)
    assert not account.awaits_activation
    assert account.last_login is not None


def reset_password_between_logins(here: Visitor, alice: User) -> None:
    """Each login spends the link: then take the next one, so that the reset comes in the middle."""
    for _ in range(HANDS):
        answer = try_reset(alice)
        if answer.status_code != HTTPStatus.BAD_REQUEST:
            break
    assert answer.status_code == HTTPStatus.NO_CONTENT, answer.content


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("end", [change_password, reset_password_between_logins, disable, close], ids=name)
def test_no_login_survives_an_end_that_it_races_with(
    mail_on: None, cheap_hashes: None, settings: Any, end: Callable[[Visitor, User], None]
) -> None:
    settings.ACCOUNT_FAILURES_LIMIT = HANDS  # of more logins at once some would be refused
    for number in range(ROUNDS):
        alice = register(f"alice{number}")
        here, username = visit(alice), alice.username

        def act(hand: int, *, alice: User = alice, here: Visitor = here, username: str = username) -> Any:
            return try_login(username) if hand else end(here, alice)

        _, *answers = at_once(HANDS, act)

        assert {answer.status_code for answer in answers} <= {HTTPStatus.OK, HTTPStatus.UNAUTHORIZED}
        visitors = [Visitor(**answer.json()) for answer in answers if answer.status_code == HTTPStatus.OK]
        assert not Session.objects.filter(ended_at=None).exists()
        assert all(visitor.is_out() for visitor in [here, *visitors])


def end_the_session(here: Visitor, alice: User) -> None:
    assert here.client.delete(f"/auth/sessions/{here.session}/").status_code == HTTPStatus.NO_CONTENT


def refresh_until_refused(visitor: Visitor) -> Visitor:
    """Refresh again and again, so that the end comes in the middle; return the visitor with its last pair."""
    for _ in range(200):
        answer = visitor.try_refresh()
        if answer.status_code != HTTPStatus.OK:
            assert answer.status_code == HTTPStatus.UNAUTHORIZED, answer.content
            return visitor
        visitor = Visitor(**answer.json())
    raise AssertionError("its refreshes do not end")


ENDS_OF_ONE_SESSION = [log_out, end_the_session]
ENDS_OF_ALL_SESSIONS = [log_out_everywhere, change_password, reset_password, disable, close, delete]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("end", [*ENDS_OF_ONE_SESSION, *ENDS_OF_ALL_SESSIONS], ids=name)
def test_no_refresh_survives_an_end_that_it_races_with(
    mail_on: None, cheap_hashes: None, end: Callable[[Visitor, User], None]
) -> None:
    for number in range(ROUNDS):
        alice = register(f"alice{number}")
        here = visit(alice)
        # Where one session ends, all of them refresh that one, and one of them is the first.
        others = [here if end in ENDS_OF_ONE_SESSION else visit(alice) for _ in range(HANDS - 1)]

        def act(hand: int, *, alice: User = alice, here: Visitor = here, others: list[Visitor] = others) -> Visitor:
            if hand:
                return refresh_until_refused(others[hand - 1])
            end(here, alice)
            return here

        last = at_once(HANDS, act)
        assert not Session.objects.filter(ended_at=None).exists()
        assert all(visitor.is_out() for visitor in last)


@pytest.mark.django_db(transaction=True)
def test_a_token_is_refreshed_or_ends_its_session_whoever_is_first() -> None:
    alice = register("alice")
    for _ in range(ROUNDS):
        here = visit(alice)

        def act(hand: int, *, here: Visitor = here) -> Any:
            if hand % 2:
                return here.try_refresh()
            return client().post("/auth/jwt/blacklist/", {"refresh": here.refresh})

        answers = at_once(HANDS, act)

        assert Counter(answer.status_code for answer in answers) == {
            HTTPStatus.OK: 1,
            HTTPStatus.UNAUTHORIZED: HANDS - 1,
        }
        [first] = [answer.json() for answer in answers if answer.status_code == HTTPStatus.OK]
        assert Visitor(**first).is_in() if first else here.is_out()


ASKED: dict[str, Callable[[Visitor], Any]] = {
    "record": lambda here: here.client.post("/api/transactions/", COFFEE),
    "record with a key": lambda here: here.client.post("/api/transactions/", COFFEE, headers={"Idempotency-Key": "k"}),
    "login": lambda _: try_login("alice"),
    "refresh": Visitor.try_refresh,
    "blacklist": lambda here: client().post("/auth/jwt/blacklist/", {"refresh": here.refresh}),
    "set_password": lambda here: here.client.post(
        "/auth/users/set_password/", {"current_password": PASSWORD, "new_password": NEXT}
    ),
    "patch": lambda here: here.client.patch("/auth/users/me/", {"current_password": PASSWORD, "email": "a@b.org"}),
    "close": lambda here: here.client.delete("/auth/users/me/", {"current_password": PASSWORD}),
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("asked", ASKED)
def test_an_account_that_is_deleted_while_it_asks_is_answered_401(asked: str) -> None:
    alice = register("alice")
    here = log_in("alice")

    def ask() -> Any:
        try:
            return ASKED[asked](here)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as other:
        with transaction.atomic():
            alice.delete()
            answer = other.submit(ask)
            wait_for_a_lock()

        assert answer.result().status_code == HTTPStatus.UNAUTHORIZED
        code = "" if asked == "login" else answer.result().json()["code"]
        assert code in {"", "session_over", "token_not_valid"}
        assert answer.result()["WWW-Authenticate"].startswith("Bearer")
    assert not User.objects.exists()
    assert not Transaction.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_deletion_that_meets_what_the_account_writes_is_told_so() -> None:
    alice = register("alice")
    Transaction.objects.create(user=alice, amount=1, description="after the deletion has looked for transactions")

    with pytest.raises(IntegrityError) as lost, transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("DELETE FROM accounts_user")  # of which the database finds out in the end
    answer = DatabaseUnavailableMiddleware(lambda _: HttpResponse()).process_exception(HttpRequest(), lost.value)

    assert answer is not None
    assert answer.status_code == HTTPStatus.CONFLICT


def wait_for_a_lock() -> None:
    """Wait until another connection waits for what this one has locked."""
    deadline = time.monotonic() + 20
    with connection.cursor() as cursor:
        waits = 0
        while not waits:
            assert time.monotonic() < deadline, "nobody waits"
            time.sleep(0.02)
            cursor.execute(
                "SELECT count(*) FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY (pg_blocking_pids(pid))"
            )
            (waits,) = cursor.fetchone()


WRITES: dict[str, tuple[str, str, dict[str, str]]] = {
    "set_password": ("post", "/auth/users/set_password/", {"new_password": "of-whoever-had-the-old-one"}),
    "put": ("put", "/auth/users/me/", {"email": "mallory@example.com"}),
    "patch": ("patch", "/auth/users/me/", {"email": "mallory@example.com"}),
    "close": ("delete", "/auth/users/me/", {}),
}


def by_another_password(alice: User) -> None:
    alice.set_password(NEXT)
    alice.save()


def by_disabling(alice: User) -> None:
    alice.is_active = False
    alice.save()


def by_closing(alice: User) -> None:
    alice.close()


def by_deleting(alice: User) -> None:
    alice.delete()


@pytest.mark.parametrize(
    "change", [by_another_password, by_disabling, by_closing, by_deleting], ids=lambda change: change.__name__
)
@pytest.mark.parametrize("write", WRITES)
def test_a_password_that_was_checked_before_the_account_changed_changes_nothing(
    alice: User, monkeypatch: pytest.MonkeyPatch, write: str, change: Callable[[User], None]
) -> None:
    here = log_in("alice")
    alice.refresh_from_db()
    check = User.check_password

    def change_meanwhile(self: User, password: str) -> bool:
        is_right = check(self, password)
        change(alice)
        return is_right

    monkeypatch.setattr(User, "check_password", change_meanwhile)
    method, path, given = WRITES[write]
    answer = getattr(here.client, method)(path, {"current_password": PASSWORD, **given})

    assert (answer.status_code, answer.json()["code"]) == (HTTPStatus.UNAUTHORIZED, "session_over")
    expected = [] if change is by_deleting else [(alice.username, alice.email, alice.password, alice.is_active)]
    assert list(User.objects.values_list("username", "email", "password", "is_active")) == expected


def test_an_address_that_stays_the_same_is_not_written(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes no password: what is there by now may be another, or that of a closed account."""
    here = log_in("alice")
    unchanged = AccountSerializer.validate

    def change_meanwhile(self: AccountSerializer, given: dict[str, Any]) -> Any:
        changes = unchanged(self, given)
        User.objects.filter(pk=alice.pk).update(email="new@example.com")
        return changes

    monkeypatch.setattr(AccountSerializer, "validate", change_meanwhile)

    assert here.client.patch("/auth/users/me/", {"email": alice.email}).status_code == HTTPStatus.OK
    assert User.objects.get(pk=alice.pk).email == "new@example.com"


def test_the_end_of_the_sessions_commits_with_its_cause(alice: User) -> None:
    here = log_in("alice")

    with transaction.atomic():
        change_password_in_the_admin_site(here, alice)
        assert here.is_out()
        transaction.set_rollback(True)

    assert here.is_in()
