"""A session from its login to its end: what its owner sees, what its tokens do, and when they stop."""

from collections.abc import Callable
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken

from accounts.authentication import NOTED_EVERY
from accounts.models import Session, User
from accounts.sessions import PLACES_KEPT, remove_expired
from tests.backend.accounts.visitors import (
    ELSEWHERE,
    HANDS,
    HOME,
    PASSWORD,
    ROUNDS,
    Visitor,
    at_once,
    claims,
    client,
    log_in,
    register,
    try_login,
)

pytestmark = pytest.mark.django_db

OVER = {"detail": "Token is invalid or spent", "code": "token_not_valid"}


@pytest.fixture
def alice() -> User:
    return register("alice")


def spend_earlier(seconds: float) -> None:
    """Let every spent token have been spent so long ago."""
    BlacklistedToken.objects.update(blacklisted_at=timezone.now() - timedelta(seconds=seconds))


def move_in_time(visitor: Visitor, **fields: Any) -> None:
    Session.objects.filter(pk=visitor.session).update(**fields)


# What its owner sees ------------------------------------------------------------------------------


def test_a_session_is_listed_with_where_and_when_it_was_opened(alice: User) -> None:
    before = timezone.now()
    answer = client(ELSEWHERE).post(
        "/auth/jwt/create/", {"username": "alice", "password": PASSWORD}, headers={"User-Agent": "Pocket/1.0"}
    )
    visitor = Visitor(**answer.json())

    (listed,) = visitor.client.get("/auth/sessions/").json()["results"]

    assert {name: value for name, value in listed.items() if not name.endswith("_at")} == {
        "id": visitor.session,
        "client_address": ELSEWHERE,
        "user_agent": "Pocket/1.0",
        "current": True,
    }
    session = Session.objects.get(pk=visitor.session)
    assert before <= session.created_at <= timezone.now()
    assert session.expires_at - session.created_at == pytest.approx(timedelta(days=30), abs=timedelta(seconds=5))


def test_a_session_is_listed_with_its_three_times(alice: User) -> None:
    visitor = log_in("alice")
    now = timezone.now()
    # So shortly ago that this request is not noted as one more use.
    times = {
        "created_at": now - timedelta(days=2),
        "last_used_at": now - timedelta(minutes=1),
        "expires_at": now + timedelta(days=3),
    }
    move_in_time(visitor, **times)

    (listed,) = visitor.client.get("/auth/sessions/").json()["results"]

    assert {name: datetime.fromisoformat(value) for name, value in listed.items() if name.endswith("_at")} == times


def test_the_list_holds_the_live_sessions_of_its_owner_and_marks_the_one_that_asks(alice: User) -> None:
    register("bob")
    phone, laptop, ended, run_out = (log_in("alice") for _ in range(4))
    log_in("bob")
    ended.client.post("/auth/jwt/logout/")
    move_in_time(run_out, expires_at=timezone.now())

    listed = laptop.client.get("/auth/sessions/").json()["results"]

    assert {row["id"]: row["current"] for row in listed} == {phone.session: False, laptop.session: True}


def test_the_list_is_last_used_first(alice: User) -> None:
    old, new = log_in("alice"), log_in("alice")
    assert [row["id"] for row in new.client.get("/auth/sessions/").json()["results"]] == [new.session, old.session]

    later = old.renew()

    assert [row["id"] for row in later.client.get("/auth/sessions/").json()["results"]] == [old.session, new.session]


def test_a_user_agent_of_any_length_and_content_opens_a_session(alice: User) -> None:
    answer = client().post(
        "/auth/jwt/create/",
        {"username": "alice", "password": PASSWORD},
        headers={"User-Agent": "x" * 300 + "\0"},
    )

    assert answer.status_code == HTTPStatus.OK
    assert Session.objects.get().user_agent == "x" * 200


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("garbage", None),
        ("", None),
        ("1.2.3.4, 5.6.7.8", None),
    ],
)
def test_an_address_that_is_none_keeps_nobody_from_logging_in(alice: User, given: str, kept: str | None) -> None:
    assert try_login("alice", address=given).status_code == HTTPStatus.OK
    assert Session.objects.get().client_address == kept


# How it is ended ----------------------------------------------------------------------------------


def test_a_session_of_ones_own_can_be_ended_and_the_others_live_on(alice: User) -> None:
    lost, here = log_in("alice"), log_in("alice")

    answer = here.client.delete(f"/auth/sessions/{lost.session}/")

    assert answer.status_code == HTTPStatus.NO_CONTENT
    assert lost.is_out()
    assert here.is_in()


@pytest.mark.parametrize("session", ["bob's", "ended", "unknown"])
def test_a_session_that_is_not_ones_own_or_not_live_is_not_found(alice: User, session: str) -> None:
    register("bob")
    bob, here, ended = log_in("bob"), log_in("alice"), log_in("alice")
    ended.client.post("/auth/jwt/logout/")
    key = {"bob's": bob.session, "ended": ended.session, "unknown": str(uuid4())}[session]

    answer = here.client.delete(f"/auth/sessions/{key}/")

    assert answer.status_code == HTTPStatus.NOT_FOUND
    assert answer.json() == {"detail": "No Session matches the given query."}
    assert bob.is_in()


def test_sessions_are_for_those_who_are_logged_in() -> None:
    assert client().get("/auth/sessions/").status_code == HTTPStatus.UNAUTHORIZED
    assert client().delete(f"/auth/sessions/{uuid4()}/").status_code == HTTPStatus.UNAUTHORIZED
    assert client().post("/auth/jwt/logout/").status_code == HTTPStatus.UNAUTHORIZED
    assert client().post("/auth/jwt/logout-all/").status_code == HTTPStatus.UNAUTHORIZED


def test_logout_ends_this_session_only(alice: User) -> None:
    here, there = log_in("alice"), log_in("alice")

    assert here.client.post("/auth/jwt/logout/").status_code == HTTPStatus.NO_CONTENT

    assert here.is_out()
    assert there.is_in()


def test_logout_everywhere_ends_every_session_of_the_account_only(alice: User) -> None:
    register("bob")
    here, there, bob = log_in("alice"), log_in("alice"), log_in("bob")

    assert here.client.post("/auth/jwt/logout-all/").status_code == HTTPStatus.NO_CONTENT

    assert here.is_out()
    assert there.is_out()
    assert bob.is_in()


def test_blacklist_ends_the_session_of_the_token(alice: User) -> None:
    here, there = log_in("alice"), log_in("alice")

    answer = client().post("/auth/jwt/blacklist/", {"refresh": here.refresh})

    assert (answer.status_code, answer.json()) == (HTTPStatus.OK, {})
    assert here.is_out()
    assert there.is_in()
    assert client().post("/auth/jwt/blacklist/", {"refresh": here.refresh}).status_code == HTTPStatus.UNAUTHORIZED


@pytest.mark.parametrize(("seconds", "is_in"), [(1, True), (60, False)])
def test_a_spent_token_given_back_after_the_grace_ends_the_session(alice: User, seconds: float, is_in: bool) -> None:
    spent, there = log_in("alice"), log_in("alice")
    here = spent.renew()
    spend_earlier(seconds)

    answer = client().post("/auth/jwt/blacklist/", {"refresh": spent.refresh})

    assert (answer.status_code, answer.json()) == (HTTPStatus.UNAUTHORIZED, OVER)
    assert here.is_in() is is_in
    assert there.is_in()


def test_a_question_about_a_spent_token_ends_no_session(alice: User) -> None:
    spent = log_in("alice")
    here = spent.renew()
    spend_earlier(60)

    answer = client().post("/auth/jwt/verify/", {"token": spent.refresh})

    assert (answer.status_code, answer.json()) == (HTTPStatus.UNAUTHORIZED, OVER)
    assert here.is_in()


def test_verify_knows_what_would_be_accepted(alice: User) -> None:
    visitor = log_in("alice")
    spent, visitor = visitor, visitor.renew()

    def verified(token: str) -> int:
        return int(client().post("/auth/jwt/verify/", {"token": token}).status_code)

    assert verified(visitor.access) == verified(visitor.refresh) == HTTPStatus.OK
    assert verified(spent.refresh) == HTTPStatus.UNAUTHORIZED
    visitor.client.post("/auth/jwt/logout/")
    assert verified(visitor.access) == verified(visitor.refresh) == HTTPStatus.UNAUTHORIZED


# Refresh ------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("round_", range(ROUNDS))
def test_of_many_uses_of_a_refresh_token_at_once_exactly_one_succeeds(round_: int) -> None:
    register("alice")
    visitor = log_in("alice")

    answers = at_once(HANDS, lambda _: visitor.try_refresh())

    assert sorted(answer.status_code for answer in answers) == [HTTPStatus.OK] + [HTTPStatus.UNAUTHORIZED] * (HANDS - 1)
    # All of them came within the grace: nobody is signed out, and the one new pair works.
    (pair,) = [answer.json() for answer in answers if answer.status_code == HTTPStatus.OK]
    assert Visitor(**pair).is_in()
    assert all(answer.json() == OVER for answer in answers if answer.status_code != HTTPStatus.OK)


def test_a_spent_token_within_the_grace_is_refused_and_the_session_lives(alice: User) -> None:
    visitor = log_in("alice")
    successor = visitor.renew()
    spend_earlier(4)

    answer = visitor.try_refresh()

    assert (answer.status_code, answer.json()) == (HTTPStatus.UNAUTHORIZED, OVER)
    assert successor.is_in()


def test_a_spent_token_after_the_grace_ends_its_session_and_no_other(alice: User) -> None:
    stolen, phone = log_in("alice"), log_in("alice")
    successor = stolen.renew()
    spend_earlier(6)

    answer = stolen.try_refresh()

    assert (answer.status_code, answer.json()) == (HTTPStatus.UNAUTHORIZED, OVER)
    assert successor.is_out()
    assert phone.is_in()


def test_the_grace_is_a_setting(alice: User, settings: Any) -> None:
    settings.JWT_REUSE_GRACE_SECONDS = 0
    visitor = log_in("alice")
    successor = visitor.renew()

    visitor.try_refresh()

    assert successor.is_out()


def test_a_chain_of_refreshes_stays_one_session(alice: User) -> None:
    visitor = log_in("alice")

    last = visitor.renew().renew().renew()

    assert last.session == visitor.session
    assert Session.objects.count() == 1


# Its absolute end ---------------------------------------------------------------------------------


def test_no_token_outlives_its_session(alice: User) -> None:
    visitor = log_in("alice")
    end = timezone.now() + timedelta(minutes=3)
    move_in_time(visitor, expires_at=end)

    last = visitor.renew()

    for token in (last.access, last.refresh):
        assert claims(token)["exp"] == int(end.timestamp())


def test_a_session_that_has_run_out_opens_nothing(alice: User) -> None:
    visitor = log_in("alice")
    move_in_time(visitor, expires_at=timezone.now())

    assert visitor.is_out()


def test_refreshing_does_not_move_the_end(alice: User) -> None:
    visitor = log_in("alice")
    end = Session.objects.get().expires_at

    visitor.renew().renew()

    assert Session.objects.get().expires_at == end


def test_the_length_of_a_session_is_a_setting(alice: User, settings: Any) -> None:
    settings.JWT_SESSION_LIFETIME_DAYS = 1
    log_in("alice")

    session = Session.objects.get()

    assert session.expires_at - session.created_at == pytest.approx(timedelta(days=1), abs=timedelta(seconds=5))


# What is stored -----------------------------------------------------------------------------------


def test_no_column_of_any_table_holds_a_token(alice: User) -> None:
    visitor = log_in("alice").renew()
    visitor.renew()
    log_in("alice").client.post("/auth/jwt/logout/")
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
            " AND data_type IN ('text', 'character varying', 'character', 'jsonb', 'json', 'bytea', 'ARRAY')"
        )
        columns = cursor.fetchall()
        assert ("token_blacklist_outstandingtoken", "token") in columns
        for table, column in columns:
            cursor.execute(f'SELECT count(*) FROM "{table}" WHERE "{column}"::text LIKE \'%eyJ%\'')  # noqa: S608
            assert cursor.fetchone()[0] == 0, f"{table}.{column} holds a token"


def test_the_last_use_is_noted_every_five_minutes_at_most(
    alice: User, django_assert_num_queries: Callable[..., Any]
) -> None:
    visitor = log_in("alice")
    recently = timezone.now() - NOTED_EVERY + timedelta(seconds=30)
    move_in_time(visitor, last_used_at=recently)

    with django_assert_num_queries(1):
        visitor.read()
    assert Session.objects.get().last_used_at == recently

    move_in_time(visitor, last_used_at=timezone.now() - NOTED_EVERY - timedelta(seconds=1))
    with django_assert_num_queries(2):
        visitor.read()
    assert timezone.now() - Session.objects.get().last_used_at < timedelta(seconds=5)
    assert timedelta(minutes=5) == NOTED_EVERY


def test_what_has_expired_is_removed_and_what_lives_stays(alice: User) -> None:
    expired, run_out, ended, live = log_in("alice").renew(), log_in("alice"), log_in("alice"), log_in("alice")
    ended.client.post("/auth/jwt/logout/")
    now, moment = timezone.now(), timedelta(seconds=5)
    move_in_time(expired, expires_at=now - PLACES_KEPT - moment)
    OutstandingToken.objects.filter(jti=claims(expired.refresh)["jti"]).update(expires_at=now - moment)
    # Where it was used from is worth knowing a while longer.
    move_in_time(run_out, expires_at=now - PLACES_KEPT + moment)

    removed = remove_expired()

    assert removed == {"sessions": 1, "refresh tokens": 1}
    left = {str(key) for key in Session.objects.values_list("pk", flat=True)}
    assert left == {run_out.session, ended.session, live.session}
    assert live.is_in()


def test_a_token_whose_record_was_removed_early_by_another_clock_is_refused(alice: User) -> None:
    visitor = log_in("alice")
    OutstandingToken.objects.all().delete()

    assert visitor.try_refresh().status_code == HTTPStatus.UNAUTHORIZED
    assert visitor.read() == HTTPStatus.OK


def test_an_address_of_the_own_home_is_taken_from_the_proxy(alice: User) -> None:
    log_in("alice", address=HOME)

    assert Session.objects.get().client_address == HOME
