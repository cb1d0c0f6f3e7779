"""Guessing the password of one account from many addresses, and what its owner notices of it."""

from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from http import HTTPStatus
from typing import Any

import pytest
from django.contrib.auth import hashers
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.utils import timezone

from accounts.attempts import attempt, remove_expired, unlock
from accounts.models import FailedAttempts, Session, User
from config.middleware import DatabaseUnavailableMiddleware
from tests.backend.accounts.visitors import (
    ELSEWHERE,
    HOME,
    PASSWORD,
    ROUNDS,
    at_once,
    client,
    log_in,
    register,
    try_login,
)
from tests.backend.removal import while_removing

pytestmark = pytest.mark.django_db

LIMIT = 10
REFUSED = {"detail": "Too many failed attempts. Try again later."}
NAMES = ["alice", "disabled", "closed", "nobody"]


@pytest.fixture
def accounts() -> dict[str, User]:
    found = {"alice": register("alice"), "disabled": register("disabled", is_active=False), "c": register("c")}
    found["c"].close()
    return found


def address(number: int) -> str:
    return f"198.51.100.{number}"


def guess(name: str, times: int = LIMIT) -> list[int]:
    """Guess wrong, each time from another address; return the statuses."""
    return [try_login(name, "wrong", address(number)).status_code for number in range(times)]


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows with every use of the password hasher."""
    used: list[str] = []
    hasher = type(hashers.get_hasher())
    for method in ("encode", "verify"):
        original = getattr(hasher, method)

        def noted(*args: Any, _original: Callable[..., Any] = original, _method: str = method, **kwargs: Any) -> Any:
            used.append(_method)
            return _original(*args, **kwargs)

        monkeypatch.setattr(hasher, method, noted)
    return used


# Many addresses, one account ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["alice", "disabled", "nobody"])
def test_after_ten_failures_from_anywhere_the_password_is_not_looked_at(
    accounts: dict[str, User], name: str, hashes: list[str]
) -> None:
    assert guess(name) == [HTTPStatus.UNAUTHORIZED] * LIMIT
    hashes.clear()

    answer = try_login(name, PASSWORD, ELSEWHERE)

    assert (answer.status_code, answer.json()) == (HTTPStatus.TOO_MANY_REQUESTS, REFUSED)
    assert 0 < int(answer["Retry-After"]) <= 900
    assert hashes == []


def test_the_refusal_tells_nobody_whether_there_is_such_an_account(accounts: dict[str, User]) -> None:
    answers = []
    for name in ("alice", "disabled", f"closed:{accounts['c'].pk}", "nobody"):
        guess(name)
        answers.append(try_login(name, "wrong", ELSEWHERE))

    assert {answer.status_code for answer in answers} == {HTTPStatus.TOO_MANY_REQUESTS}
    assert len({answer.content for answer in answers}) == 1
    assert {name for answer in answers for name in answer.headers} == set(answers[0].headers)


def test_every_way_to_write_a_name_counts_for_the_same_account(accounts: dict[str, User]) -> None:
    register("christi")
    # For PostgreSQL the last two are in lower case the same as the first; for Python the last is not.
    for number, name in enumerate(["christi", "CHRISTI", "ChrisTi", "chr\u0130sti", "chr\u0130st\u0130"] * 2):
        assert try_login(name, "wrong", address(number)).status_code == HTTPStatus.UNAUTHORIZED

    for name in ("christi", "CHRISTI", "christ\u0130"):
        assert try_login(name, PASSWORD, ELSEWHERE).status_code == HTTPStatus.TOO_MANY_REQUESTS, name


def test_other_accounts_are_not_concerned(accounts: dict[str, User]) -> None:
    register("bob")
    guess("alice", LIMIT + 5)

    assert try_login("bob", PASSWORD, ELSEWHERE).status_code == HTTPStatus.OK


def test_the_window_ends_and_a_new_one_begins(accounts: dict[str, User]) -> None:
    guess("alice", LIMIT + 5)
    FailedAttempts.objects.update(ends_at=timezone.now())

    assert guess("alice") == [HTTPStatus.UNAUTHORIZED] * LIMIT
    assert try_login("alice", PASSWORD, ELSEWHERE).status_code == HTTPStatus.TOO_MANY_REQUESTS


def test_refused_attempts_do_not_prolong_the_window(accounts: dict[str, User]) -> None:
    guess("alice", LIMIT + 1)
    ends_at = FailedAttempts.objects.get().ends_at

    guess("alice", 5)

    assert FailedAttempts.objects.get().ends_at == ends_at
    assert ends_at - timezone.now() == pytest.approx(timedelta(seconds=900), abs=timedelta(seconds=10))


def test_limit_and_window_are_settings(accounts: dict[str, User], settings: Any) -> None:
    settings.ACCOUNT_FAILURES_LIMIT = 2
    settings.ACCOUNT_FAILURES_WINDOW_SECONDS = 60

    assert guess("alice", 3) == [HTTPStatus.UNAUTHORIZED] * 2 + [HTTPStatus.TOO_MANY_REQUESTS]
    assert int(try_login("alice")["Retry-After"]) <= 60


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("round_", range(ROUNDS))
def test_many_attempts_at_once_are_no_way_round(round_: int, cheap_hashes: None, hashes: list[str]) -> None:
    register("alice")
    hashes.clear()

    answers = at_once(40, lambda hand: try_login("alice", "wrong", address(hand)).status_code)

    assert sorted(answers) == [HTTPStatus.UNAUTHORIZED] * LIMIT + [HTTPStatus.TOO_MANY_REQUESTS] * (40 - LIMIT)
    assert len(hashes) == LIMIT


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("round_", range(ROUNDS))
def test_logins_of_the_owner_at_once_succeed_or_wait_a_second(round_: int, cheap_hashes: None) -> None:
    register("alice")

    answers = at_once(2 * LIMIT, lambda hand: try_login("alice", PASSWORD, address(hand)))

    statuses = [answer.status_code for answer in answers]
    assert set(statuses) <= {HTTPStatus.OK, HTTPStatus.TOO_MANY_REQUESTS}
    assert statuses.count(HTTPStatus.OK) >= LIMIT
    assert {answer["Retry-After"] for answer in answers if answer.status_code != HTTPStatus.OK} <= {"1"}
    assert try_login("alice", PASSWORD, ELSEWHERE).status_code == HTTPStatus.OK


def test_attempts_in_flight_are_told_to_wait_a_second(accounts: dict[str, User]) -> None:
    with ExitStack() as stack:
        for _ in range(LIMIT):
            stack.enter_context(attempt(name="alice", address=None))
        answer = try_login("alice", PASSWORD, ELSEWHERE)

    assert (answer.status_code, answer["Retry-After"]) == (HTTPStatus.TOO_MANY_REQUESTS, "1")
    assert "moment" in answer.json()["detail"]
    # None of them has succeeded.
    assert int(try_login("alice", PASSWORD, ELSEWHERE)["Retry-After"]) > 1


@pytest.mark.parametrize("known", [False, True])
def test_attempts_that_end_in_503_lock_nobody_out(
    accounts: dict[str, User], monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    if known:
        log_in("alice", address=HOME)

    def fail(*_: Any) -> None:
        raise OperationalError("the connection is lost")

    with monkeypatch.context() as broken:
        broken.setattr(User, "check_password", fail)
        statuses = {try_login("alice").status_code for _ in range(LIMIT)}

    assert statuses == {HTTPStatus.SERVICE_UNAVAILABLE}
    assert log_in("alice").is_in()
    assert FailedAttempts.objects.filter(count__gt=0).count() == 0


def test_attempts_that_were_never_settled_are_given_up(accounts: dict[str, User]) -> None:
    try_login("alice", "wrong", ELSEWHERE)
    FailedAttempts.objects.update(in_flight=LIMIT - 1, in_flight_until=timezone.now() + timedelta(seconds=30))
    assert try_login("alice", PASSWORD, ELSEWHERE)["Retry-After"] == "1"

    FailedAttempts.objects.update(in_flight_until=timezone.now())

    assert try_login("alice", PASSWORD, ELSEWHERE).status_code == HTTPStatus.OK
    assert FailedAttempts.objects.get().count == 1


def test_an_attempt_of_a_window_that_is_over_counts_in_no_other(accounts: dict[str, User]) -> None:
    with attempt(name="alice", address=None):
        FailedAttempts.objects.update(ends_at=timezone.now())
        guess("alice", 1)

    assert (FailedAttempts.objects.get().count, FailedAttempts.objects.get().in_flight) == (1, 0)


# Its owner ----------------------------------------------------------------------------------------


def test_the_owner_is_not_locked_out_of_where_the_account_is_used_from(accounts: dict[str, User]) -> None:
    log_in("alice", address=HOME)
    guess("alice", LIMIT + 20)

    assert try_login("alice", PASSWORD, ELSEWHERE).status_code == HTTPStatus.TOO_MANY_REQUESTS
    assert log_in("alice", address=HOME).is_in()


def test_an_address_stays_known_after_the_session_has_ended(accounts: dict[str, User]) -> None:
    log_in("alice", address=HOME).client.post("/auth/jwt/logout-all/")
    guess("alice", LIMIT + 1)

    assert try_login("alice", PASSWORD, HOME).status_code == HTTPStatus.OK


def test_an_address_stays_known_after_the_session_has_run_out(accounts: dict[str, User]) -> None:
    log_in("alice", address=HOME)
    Session.objects.update(expires_at=timezone.now() - timedelta(days=60))
    call_command("upkeep")
    guess("alice", LIMIT + 1)

    assert try_login("alice", PASSWORD, ELSEWHERE).status_code == HTTPStatus.TOO_MANY_REQUESTS
    assert try_login("alice", PASSWORD, HOME).status_code == HTTPStatus.OK


def test_a_known_address_has_a_limit_of_its_own(accounts: dict[str, User]) -> None:
    log_in("alice", address=HOME)

    statuses = [try_login("alice", "wrong", HOME).status_code for _ in range(LIMIT + 1)]

    assert statuses == [HTTPStatus.UNAUTHORIZED] * LIMIT + [HTTPStatus.TOO_MANY_REQUESTS]
    assert try_login("alice", PASSWORD, HOME).status_code == HTTPStatus.TOO_MANY_REQUESTS
    assert try_login("alice", PASSWORD, ELSEWHERE).status_code == HTTPStatus.OK


def test_an_address_that_another_account_is_used_from_is_not_known(accounts: dict[str, User]) -> None:
    register("mallory")
    log_in("mallory", address=ELSEWHERE)
    guess("alice")

    assert try_login("alice", PASSWORD, ELSEWHERE).status_code == HTTPStatus.TOO_MANY_REQUESTS


def test_an_ipv6_address_is_known_with_its_network(accounts: dict[str, User]) -> None:
    log_in("alice", address="2001:db8:1:2::1")
    guess("alice", LIMIT + 1)

    assert try_login("alice", PASSWORD, "2001:db8:1:2:ffff::7").status_code == HTTPStatus.OK
    assert try_login("alice", PASSWORD, "2001:db8:1:3::1").status_code == HTTPStatus.TOO_MANY_REQUESTS


def test_ones_own_mistypings_are_forgotten_after_a_login_from_home(accounts: dict[str, User]) -> None:
    log_in("alice", address=HOME)
    for _ in range(3):
        for _ in range(LIMIT - 1):
            try_login("alice", "wrong", HOME)
        assert try_login("alice", PASSWORD, HOME).status_code == HTTPStatus.OK


def test_a_login_from_elsewhere_forgets_nobody_elses_attempts(accounts: dict[str, User]) -> None:
    guess("alice", LIMIT - 1)

    assert try_login("alice", PASSWORD, "203.0.113.1").status_code == HTTPStatus.OK
    assert try_login("alice", "wrong", "203.0.113.2").status_code == HTTPStatus.UNAUTHORIZED
    assert try_login("alice", PASSWORD, "203.0.113.3").status_code == HTTPStatus.TOO_MANY_REQUESTS


def test_many_logins_that_succeed_are_not_counted(accounts: dict[str, User]) -> None:
    for number in range(LIMIT + 5):
        assert try_login("alice", PASSWORD, address(number)).status_code == HTTPStatus.OK


# Other ways to a password -------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["set_password", "change_email", "close"])
def test_the_present_password_cannot_be_guessed_with_a_stolen_token(
    accounts: dict[str, User], way: str, hashes: list[str]
) -> None:
    thief = log_in("alice", address=HOME)
    thief.address = ELSEWHERE

    def try_password(password: str) -> Any:
        given = {"current_password": password, "new_password": "another-long-passphrase", "email": "m@example.com"}
        if way == "set_password":
            return thief.client.post("/auth/users/set_password/", given)
        if way == "change_email":
            return thief.client.patch("/auth/users/me/", given)
        return thief.client.delete("/auth/users/me/", given)

    assert [try_password("wrong").status_code for _ in range(LIMIT)] == [HTTPStatus.BAD_REQUEST] * LIMIT
    hashes.clear()
    answer = try_password(PASSWORD)

    assert (answer.status_code, answer.json()) == (HTTPStatus.TOO_MANY_REQUESTS, REFUSED)
    assert int(answer["Retry-After"]) > 0
    assert hashes == []
    # Counted together with logins from elsewhere; its owner is at home.
    assert try_login("alice", PASSWORD, "203.0.113.9").status_code == HTTPStatus.TOO_MANY_REQUESTS
    assert try_login("alice", PASSWORD, HOME).status_code == HTTPStatus.OK


def test_a_view_outside_the_api_answers_the_same(accounts: dict[str, User]) -> None:
    from accounts.attempts import TooManyFailures  # noqa: PLC0415

    answer = DatabaseUnavailableMiddleware(lambda _: None).process_exception(None, TooManyFailures(30))  # type: ignore

    assert answer is not None
    assert (answer.status_code, answer["Retry-After"]) == (HTTPStatus.TOO_MANY_REQUESTS, "30")


# What is stored -----------------------------------------------------------------------------------


def test_nothing_that_was_typed_is_stored(accounts: dict[str, User]) -> None:
    client(ELSEWHERE).post("/auth/jwt/create/", {"username": "hunter2-typed-here", "password": "wrong"})

    (row,) = FailedAttempts.objects.values()

    assert "hunter2" not in str(row)
    assert len(row["account_key"]) == 64


def test_windows_that_are_over_are_removed(accounts: dict[str, User]) -> None:
    guess("alice", 1)
    guess("nobody", 1)
    FailedAttempts.objects.filter(pk=FailedAttempts.objects.earliest("pk").pk).update(ends_at=timezone.now())

    assert remove_expired() == {"failed attempts": 1}
    assert FailedAttempts.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_an_attempt_that_begins_a_window_while_the_last_is_removed_counts() -> None:
    register("alice")
    guess("alice", 1)
    FailedAttempts.objects.update(ends_at=timezone.now())

    while_removing(remove_expired, lambda: guess("alice", LIMIT))

    assert FailedAttempts.objects.get().count == LIMIT


def test_an_operator_unlocks_an_account(accounts: dict[str, User], capsys: pytest.CaptureFixture[str]) -> None:
    log_in("alice", address=HOME)
    for _ in range(LIMIT + 1):
        try_login("alice", "wrong", HOME)
    guess("alice", LIMIT + 1)

    call_command("unlock", "ALICE")

    assert capsys.readouterr().out == "20 failed attempts on this account are forgotten.\n"
    assert try_login("alice", PASSWORD, HOME).status_code == HTTPStatus.OK
    assert try_login("alice", PASSWORD, ELSEWHERE).status_code == HTTPStatus.OK
    assert unlock(name="alice") == 0


def test_unlocking_nobody_says_so(accounts: dict[str, User]) -> None:
    with pytest.raises(CommandError, match="There is no account of that name"):
        call_command("unlock", "nobody")
