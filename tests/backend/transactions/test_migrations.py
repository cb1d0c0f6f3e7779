"""Migrations of the ledger on a database of their own."""

import psycopg
from django.db import connection
from psycopg import sql

from tests.backend.conftest import Python


def migrate(manage: Python, database: str, *target: str) -> None:
    done = manage("migrate", "--no-input", *target, POSTGRES_DB=database)
    assert done.returncode == 0, done.stderr


def connect(database: str) -> psycopg.Connection:
    return psycopg.connect(**{**connection.get_connection_params(), "dbname": database}, autocommit=True)


def test_index_whose_building_was_interrupted_is_built_again(empty_database: str, manage: Python) -> None:
    migrate(manage, empty_database, "transactions", "0002")
    with connect(empty_database) as server:
        # What an interrupted CREATE INDEX CONCURRENTLY leaves behind.
        server.execute("CREATE INDEX transaction_by_amount ON transactions_transaction (amount)")
        server.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'transaction_by_amount'::regclass")

    migrate(manage, empty_database)

    with connect(empty_database) as server:
        [(definition, valid)] = server.execute(
            "SELECT pg_get_indexdef(indexrelid), indisvalid FROM pg_index"
            " WHERE indexrelid = 'transaction_by_amount'::regclass"
        )
    assert definition.endswith("(user_id, amount, id)")
    assert valid


def test_migrations_of_the_ledger_can_be_taken_back_and_applied_again(empty_database: str, manage: Python) -> None:
    migrate(manage, empty_database)
    migrate(manage, empty_database, "transactions", "0001")
    migrate(manage, empty_database)

    with connect(empty_database) as server:
        [(triggers,)] = server.execute(
            sql.SQL("SELECT count(*) FROM pg_trigger WHERE tgname = {}").format("transaction_count_version")
        )
    assert triggers == 1
