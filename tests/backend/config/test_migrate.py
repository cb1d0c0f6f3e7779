"""Migrations: by one process at a time, by a role that may, and none missing."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from django.contrib.auth.hashers import make_password
from django.db import connection
from pytest_django.plugin import DjangoDbBlocker

from config.management.commands.migrate import MIGRATE_LOCK
from tests.backend.conftest import ROOT, Ask, Python

MIGRATIONS = "SELECT count(*), count(DISTINCT (app, name)) FROM django_migrations"

DENIED: tuple[LiteralString, ...] = (
    "CREATE TABLE more ()",
    "DROP TABLE transactions_transaction",
    "ALTER TABLE transactions_transaction ADD COLUMN more text",
    "TRUNCATE transactions_transaction",
    "CREATE SCHEMA more",
    "CREATE ROLE more",
    "SET ROLE transactions_migrator",
    "COPY transactions_transaction TO PROGRAM 'cat'",
)
"""What a stolen backend must not be able to do."""


@pytest.fixture
def server(empty_database: str, django_db_blocker: DjangoDbBlocker) -> Iterator[psycopg.Connection[Any]]:
    """Return a superuser's connection to the empty database."""
    with django_db_blocker.unblock():
        parameters = {**connection.get_connection_params(), "dbname": empty_database, "autocommit": True}
    with psycopg.connect(**parameters) as connected:
        yield connected


def count(server: psycopg.Connection[Any]) -> tuple[int, int]:
    row = server.execute(MIGRATIONS).fetchone()
    assert row is not None
    return row[0], row[1]


def test_migrate_by_four_processes_at_once_succeeds_in_all(
    manage: Python, empty_database: str, server: psycopg.Connection[Any]
) -> None:
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda _: manage("migrate", "--no-input", POSTGRES_DB=empty_database), range(4)))

    assert [run.returncode for run in runs] == [0] * 4, [run.stderr for run in runs]
    rows, different = count(server)
    assert rows == different > 0
    assert sum("No migrations to apply" in run.stdout for run in runs) == 3


def test_migrate_waits_for_the_lock_longer_than_any_timeout(
    manage: Python, empty_database: str, server: psycopg.Connection[Any]
) -> None:
    server.execute("SELECT pg_advisory_lock(%s)", [MIGRATE_LOCK])
    timeouts = {"POSTGRES_LOCK_TIMEOUT_MS": "100", "POSTGRES_STATEMENT_TIMEOUT_MS": "100"}

    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(manage, "migrate", "--no-input", POSTGRES_DB=empty_database, **timeouts)
        asking = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_try_advisory_lock%%' AND pid <> %s"
        while server.execute(asking, [server.info.backend_pid]).fetchone() != (1,):
            assert not run.done(), run.result()
        with pytest.raises(TimeoutError):
            run.result(timeout=1.5)
        server.execute("SELECT pg_advisory_unlock(%s)", [MIGRATE_LOCK])

        done = run.result()

    assert done.returncode == 0, done.stderr
    assert "Another process is migrating this database; waiting for it to finish." in done.stderr


def test_migrate_names_who_holds_the_lock_for_too_long(
    python: Python, empty_database: str, server: psycopg.Connection[Any]
) -> None:
    server.execute("SELECT pg_advisory_lock(%s)", [MIGRATE_LOCK])
    impatient = "from config.management.commands import migrate; migrate.LOCK_SECONDS = 1; import manage; "
    impatient += "manage.execute_from_command_line(['manage.py', 'migrate', '--no-input'])"

    done = python("-c", impatient, POSTGRES_DB=empty_database)

    assert done.returncode == 1
    assert "Nothing was migrated: for 1 s another process holds the lock of migrations." in done.stderr
    assert (
        f"process {server.info.backend_pid} of the database server, for the role {server.info.user} at" in done.stderr
    )
    assert re.search(r"connected for \d+ s, idle\.", done.stderr)
    assert f"SELECT pg_terminate_backend({server.info.backend_pid})" in done.stderr
    assert "Traceback" not in done.stderr
    assert server.execute("SELECT to_regclass('django_migrations')").fetchone() == (None,)


def test_migrate_leaves_no_lock_behind(manage: Python, empty_database: str, server: psycopg.Connection[Any]) -> None:
    manage("migrate", "--no-input", POSTGRES_DB=empty_database)

    # Of this database: tests beside this one have their own.
    held = (
        "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database"
        " WHERE locktype = 'advisory' AND datname = %s"
    )
    assert server.execute(held, [empty_database]).fetchone() == (0,)


def test_migrate_and_rows_need_no_more_than_their_roles(
    manage: Python, empty_database: str, server: psycopg.Connection[Any], configuration: dict[str, str]
) -> None:
    server.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    # db/roles.sql without psql's own commands: the roles are already there, with their passwords.
    script = (ROOT / "db/roles.sql").read_text().split("-- Nobody else connects", 1)[1].removesuffix("COMMIT;\n")
    server.execute(f"-- {script}".replace(':"DBNAME"', f'"{empty_database}"'))
    secrets = configuration["POSTGRES_SECRETS"]
    migrator = {
        "POSTGRES_DB": empty_database,
        "POSTGRES_USER": "transactions_migrator",
        "POSTGRES_PASSWORD_FILE": f"{secrets}/postgres_migrator_password",
    }

    done = manage("migrate", "--no-input", **migrator)

    assert done.returncode == 0, done.stderr
    info = server.info
    secret = Path(f"{secrets}/postgres_app_password").read_text().strip()
    with psycopg.connect(
        host=info.host, port=info.port, dbname=empty_database, user="transactions_app", password=secret, autocommit=True
    ) as application:
        application.execute("SELECT * FROM transactions_transaction")
        for denied in DENIED:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                application.execute(denied)


def test_migrations_are_complete(manage: Python, db: None) -> None:
    for admin in ("false", "true"):
        database = str(connection.settings_dict["NAME"])
        done = manage("makemigrations", "--check", "--dry-run", DJANGO_ADMIN_ENABLED=admin, POSTGRES_DB=database)

        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        assert done.stdout == "No changes detected\n"


@pytest.mark.parametrize(
    "variables", [{}, {"DJANGO_PROXY_ENABLED": "false"}, {"DJANGO_ADMIN_ENABLED": "true"}], ids=str
)
def test_deployment_check_finds_nothing(manage: Python, variables: dict[str, str]) -> None:
    done = manage("check", "--deploy", "--fail-level", "WARNING", **variables)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("System check identified no issues")


def test_deployment_check_can_fail(python: Python) -> None:
    code = "from django.conf import settings; settings.SILENCED_SYSTEM_CHECKS = []; import manage as m; "
    code += "m.execute_from_command_line(['manage.py', 'check', '--deploy', '--fail-level', 'WARNING'])"

    done = python("-c", code)

    assert done.returncode == 1
    assert "security.W004" in done.stderr


def test_admin_site_lets_its_staff_look_at_what_there_is(
    manage: Python, ask: Ask, empty_database: str, server: psycopg.Connection[Any], password: str, static_root: Any
) -> None:
    variables = {"DJANGO_ADMIN_ENABLED": "true", "POSTGRES_DB": empty_database}
    assert manage("migrate", "--no-input", **variables).returncode == 0
    server.execute(
        "INSERT INTO accounts_user (username, password, is_superuser, is_staff, is_active, email, first_name,"
        " last_name, date_joined) VALUES ('admin', %s, true, true, true, '', '', '', now())",
        [make_password(password)],
    )
    server.execute(
        "INSERT INTO transactions_transaction (user_id, amount, description)"
        " SELECT id, -3.2, 'Coffee' FROM accounts_user"
    )

    login, home, accounts, rows, search, row, add, delete = ask(
        {"path": "/admin/login/?next=/admin/", "method": "post", "form": {"username": "admin", "password": password}},
        "/admin/",
        "/admin/accounts/user/",
        "/admin/transactions/transaction/",
        "/admin/transactions/transaction/?q=coffee",
        "/admin/transactions/transaction/1/change/",
        "/admin/transactions/transaction/add/",
        "/admin/transactions/transaction/1/delete/",
        **variables,
    )

    assert login.status == HTTPStatus.FOUND, login.body
    for answer in (home, accounts, rows, search, row):
        assert answer.status == HTTPStatus.OK, answer.body
    assert "Coffee" in rows.body
    assert add.status == delete.status == HTTPStatus.FORBIDDEN
