"""Migrations of the ledger on a database of their own."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psycopg
import pytest
from django.db import connection
from psycopg import sql

from tests.backend.conftest import BACKEND, Python


def migrate(manage: Python, database: str, *target: str) -> None:
    done = manage("migrate", "--no-input", *target, POSTGRES_DB=database)
    assert done.returncode == 0, done.stderr


def connect(database: str) -> psycopg.Connection:
    return psycopg.connect(**{**connection.get_connection_params(), "dbname": database}, autocommit=True)


INDEXES = pytest.mark.parametrize(
    ("before", "index", "definition"),
    [
        ("0002", "transaction_by_amount", "btree (user_id, amount, id)"),
        (
            "0004",
            "transaction_search",
            "gin (transaction_search_vector(user_id, (description)::text)) WITH (gin_pending_list_limit='256')",
        ),
    ],
    ids=["0003", "0005"],
)


def assert_built(server: psycopg.Connection, index: str, definition: str) -> None:
    [(built,)] = server.execute("SELECT pg_get_indexdef(%s::regclass)", [index])
    [(invalid,)] = server.execute("SELECT count(*) FROM pg_index WHERE NOT indisvalid")
    assert built.endswith(f"USING {definition}")
    assert invalid == 0


@INDEXES
def test_index_whose_building_was_interrupted_is_built_again(
    empty_database: str, manage: Python, before: str, index: str, definition: str
) -> None:
    migrate(manage, empty_database, "transactions", before)
    with connect(empty_database) as server:
        # What an interrupted CREATE INDEX CONCURRENTLY leaves behind.
        server.execute(sql.SQL("CREATE INDEX {} ON transactions_transaction (amount)").format(sql.Identifier(index)))
        server.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = %s::regclass", [index])

    migrate(manage, empty_database)

    with connect(empty_database) as server:
        assert_built(server, index, definition)


ABANDONED = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> ALL (%s)"
"""How many sessions there are beside those of the test."""


@INDEXES
@pytest.mark.parametrize(
    ("table", "wait_event", "goes_on"),
    [
        # The server does not notice that its client is dead before it has built the index, in the second run's time.
        ("transactions_transaction", "virtualxid", True),
        # It gives up, and leaves an index that is not valid.
        ("transactions_transaction", "virtualxid", False),
        # The index is there, and nobody knows.
        ("django_migrations", "relation", False),
    ],
    ids=["building", "invalid", "not recorded"],
)
def test_migration_whose_process_was_killed_is_run_again(
    empty_database: str,
    configuration: dict[str, str],
    manage: Python,
    before: str,
    index: str,
    definition: str,
    table: str,
    wait_event: str,
    goes_on: bool,
) -> None:
    migrate(manage, empty_database, "transactions", before)
    variables = {
        "POSTGRES_DB": empty_database,
        "POSTGRES_STATEMENT_TIMEOUT_MS": "0",
        "POSTGRES_LOCK_TIMEOUT_MS": "3000",
    }
    command = [sys.executable, "manage.py", "migrate", "--no-input", "transactions", f"{int(before) + 1:04}"]
    with connect(empty_database) as server, connect(empty_database) as other:
        other.execute("BEGIN")
        # As a transaction that writes rows; in the table of migrations, also one that nobody else may write to.
        mode = sql.SQL("ROW EXCLUSIVE" if table == "transactions_transaction" else "SHARE")
        other.execute(sql.SQL("LOCK TABLE {} IN {} MODE").format(sql.Identifier(table), mode))
        with subprocess.Popen(command, cwd=BACKEND, env={**configuration, **variables}) as process:
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = %s"
            until(lambda: server.execute(waiting, [wait_event]).fetchone() == (1,))
            process.kill()
        ours = [[server.info.backend_pid, other.info.backend_pid]]
        if not goes_on:
            until(lambda: server.execute(ABANDONED, ours).fetchone() == (0,))
        [(valid,)] = server.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = %s::regclass", [index])
        other.execute("ROLLBACK")

        migrate(manage, empty_database)

        assert process.returncode == -signal.SIGKILL
        assert valid == (table == "django_migrations")
        assert_built(server, index, definition)


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_migrations_of_the_ledger_can_be_taken_back_and_applied_again(empty_database: str, manage: Python) -> None:
    migrate(manage, empty_database)
    migrate(manage, empty_database, "transactions", "0001")
    with connect(empty_database) as server:
        [(functions,)] = server.execute("SELECT count(*) FROM pg_proc WHERE proname LIKE 'transaction_search%'")
    migrate(manage, empty_database)

    assert functions == 0
    with connect(empty_database) as server:
        [(triggers,)] = server.execute(
            sql.SQL("SELECT count(*) FROM pg_trigger WHERE tgname = {}").format("transaction_count_version")
        )
    assert triggers == 1
