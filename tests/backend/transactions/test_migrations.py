"""Migrations of the ledger on a database of their own."""

import psycopg
import pytest
from django.db import connection
from psycopg import sql

from tests.backend.conftest import Python


def migrate(manage: Python, database: str, *target: str) -> None:
    done = manage("migrate", "--no-input", *target, POSTGRES_DB=database)
    assert done.returncode == 0, done.stderr


def connect(database: str) -> psycopg.Connection:
    return psycopg.connect(**{**connection.get_connection_params(), "dbname": database}, autocommit=True)


@pytest.mark.parametrize(
    ("before", "index", "definition"),
    [
        ("0002", "transaction_by_amount", "btree (user_id, amount, id)"),
        (
            "0004",
            "transaction_search",
            "gin (transaction_search_vector(user_id, (description)::text)) WITH (gin_pending_list_limit='256')",
        ),
    ],
)
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
        [(built, valid)] = server.execute(
            "SELECT pg_get_indexdef(indexrelid), indisvalid FROM pg_index WHERE indexrelid = %s::regclass", [index]
        )
    assert built.endswith(f"USING {definition}")
    assert valid


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
