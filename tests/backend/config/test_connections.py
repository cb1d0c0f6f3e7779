"""A connection to the database is kept, believed while it lives, and replaced when it does not."""

import select
from typing import Any
from unittest.mock import Mock

import psycopg
import pytest
from django.db import connection
from django.db.backends.postgresql.base import DatabaseWrapper
from django.db.utils import Error

from config.postgresql import base, prepared_cursor


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Return what counts how often the server is asked whether a connection lives."""
    question = Mock(wraps=DatabaseWrapper.is_usable)

    def ask(wrapper: DatabaseWrapper) -> bool:
        return bool(question(wrapper))

    monkeypatch.setattr(DatabaseWrapper, "is_usable", ask)
    return question


@pytest.fixture
def kept(transactional_db: None) -> Any:
    """Return this thread's connection, of which a request has just made use."""
    connection.ensure_connection()
    connection.is_usable()
    return connection


def session() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def end(pid: int) -> None:
    """Let the server end a session, as it does with all of them when it restarts."""
    with psycopg.connect(**{**connection.get_connection_params(), "cursor_factory": psycopg.Cursor}) as other:
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


def next_request() -> None:
    kept: Any = connection  # its type lacks what Django's own handlers use
    kept.health_check_enabled, kept.health_check_done = True, False
    kept.close_if_health_check_failed()


def test_a_connection_that_lives_is_not_asked(kept: Any, asked: Mock) -> None:
    before = session()

    for _ in range(3):
        next_request()
        assert session() == before

    assert asked.call_count == 0


def test_a_connection_that_the_server_has_ended_is_replaced(kept: Any) -> None:
    before = session()
    end(before)

    next_request()

    assert session() != before


def test_a_connection_that_was_idle_is_asked(kept: Any, asked: Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "TRUSTED_SECONDS", 0)

    next_request()

    assert asked.call_count == 1


def test_a_connection_with_an_error_is_asked(kept: Any, asked: Mock) -> None:
    kept.errors_occurred = True

    next_request()

    assert asked.call_count == 1


def test_a_notice_alone_ends_no_connection(kept: Any, asked: Mock) -> None:
    before = session()
    with connection.cursor() as cursor:
        cursor.execute("LISTEN something")
    with psycopg.connect(**{**connection.get_connection_params(), "cursor_factory": psycopg.Cursor}) as other:
        other.execute("NOTIFY something")
    readable, _, _ = select.select([connection.connection.fileno()], [], [], 5)
    assert readable

    next_request()

    assert asked.call_count == 1
    assert session() == before


def test_a_transaction_that_has_failed_is_not_usable(db: None) -> None:
    with pytest.raises(Error), connection.cursor() as cursor:
        cursor.execute("SELECT 1 / 0")

    assert not connection.is_usable()
    connection.connection.rollback()


@pytest.mark.parametrize(("threshold", "number"), [(2**31 - 1, 1), (None, 0)])
def test_statements_are_prepared_where_the_code_says_so_and_the_operator_lets_it(
    kept: Any, monkeypatch: pytest.MonkeyPatch, threshold: int | None, number: int
) -> None:
    monkeypatch.setattr(kept.connection, "prepare_threshold", threshold)
    for _ in range(10):
        with prepared_cursor() as cursor:
            cursor.execute("SELECT %(a)s + 1", {"a": 1})
            assert cursor.fetchone() == (2,)
        with connection.cursor() as cursor:
            cursor.execute("SELECT %s + 2", [1])
            assert cursor.fetchone() == (3,)

    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%%+ 1'")
        assert cursor.fetchone() == (number,)
        cursor.execute("SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE '%%+ 2'")
        assert cursor.fetchone() == (0,)
