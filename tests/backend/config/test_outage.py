"""What is answered while the database is away: by a process whose database really is."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import pytest
from django.db import connection, transaction
from psycopg import sql
from rest_framework.request import Request
from rest_framework.test import APIClient

from accounts.models import User
from tests.backend.conftest import BACKEND, Answer, Ask, Python
from tests.backend.tokens import new_session
from transactions.models import Transaction
from transactions.views import TransactionViewSet

pytestmark = pytest.mark.django_db

CANARY = "canary-4c1d9e"
"""Part of every wrong password: nothing that is said may hold it."""

DETAIL = {"detail": "The service is not available right now. Try again in a few seconds."}


@pytest.fixture
def closed_port() -> Iterator[str]:
    """Return a port of this host on which nothing listens, and nothing else can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield str(taken.getsockname()[1])


@pytest.fixture
def silent_port() -> Iterator[str]:
    """Return a port of this host that accepts connections and says nothing, as a database that hangs."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        held: list[socket.socket] = []

        def hold() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=hold, daemon=True).start()
        yield str(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
        for client in held:
            client.close()


def assert_unavailable(answer: Answer) -> None:
    assert answer.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Retry-After"] == "5"
    assert json.loads(answer.body) == DETAIL


def test_database_that_is_down_is_503_with_retry_after_everywhere(ask: Ask, alice: User, closed_port: str) -> None:
    token = new_session(alice)
    bearer = {"Authorization": f"Bearer {token.access_token}"}
    credentials = {"username": "carol", "password": "correct-horse-battery"}

    answers = ask(
        {"path": "/api/transactions/", "headers": bearer},
        {"path": "/api/transactions/", "method": "post", "headers": bearer, "data": {"amount": "1"}},
        {"path": "/api/transactions/1/", "method": "delete", "headers": bearer},
        {"path": "/auth/users/me/", "headers": bearer},
        {"path": "/auth/users/", "method": "post", "data": credentials},
        {"path": "/auth/jwt/create/", "method": "post", "data": credentials},
        {"path": "/auth/jwt/refresh/", "method": "post", "data": {"refresh": str(token)}},
        {"path": "/auth/jwt/verify/", "method": "post", "data": {"token": str(token)}},
        POSTGRES_PORT=closed_port,
    )

    for answer in answers:
        assert_unavailable(answer)


def test_what_needs_no_database_is_answered_without_one(ask: Ask, closed_port: str) -> None:
    health, ready, anonymous, unknown, schema = ask(
        "/healthz", "/readyz", "/api/transactions/", "/nothing", "/api/schema/", POSTGRES_PORT=closed_port
    )

    assert health.status == HTTPStatus.OK
    assert ready.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert ready.headers["Retry-After"] == "5"
    assert json.loads(ready.body) == {"detail": "The service is not ready."}
    assert anonymous.status == HTTPStatus.UNAUTHORIZED
    assert unknown.status == HTTPStatus.NOT_FOUND
    assert schema.status == HTTPStatus.OK


def test_admin_site_answers_503_too(ask: Ask, closed_port: str) -> None:
    (answer,) = ask(
        {"path": "/admin/", "headers": {"Cookie": f"sessionid={'x' * 32}"}},
        POSTGRES_PORT=closed_port,
        DJANGO_ADMIN_ENABLED="true",
    )

    assert_unavailable(answer)


def test_database_that_hangs_is_given_up_in_time(ask: Ask, alice: User, silent_port: str) -> None:
    bearer = {"Authorization": f"Bearer {new_session(alice).access_token}"}

    (answer,) = ask(
        {"path": "/api/transactions/", "headers": bearer},
        POSTGRES_PORT=silent_port,
        POSTGRES_CONNECT_TIMEOUT_SECONDS="2",
    )

    assert_unavailable(answer)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("timeout", ["POSTGRES_LOCK_TIMEOUT_MS", "POSTGRES_STATEMENT_TIMEOUT_MS"])
def test_table_that_is_locked_is_503_after_the_timeout(ask: Ask, alice: User, timeout: str) -> None:
    bearer = {"Authorization": f"Bearer {new_session(alice).access_token}"}

    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE transactions_transaction")
        locked, other = ask(
            {"path": "/api/transactions/", "headers": bearer},
            {"path": "/auth/users/me/", "headers": bearer},
            **{timeout: "300"},
        )

    assert_unavailable(locked)
    assert other.status == HTTPStatus.OK


# A password that is refused -------------------------------------------------------------------------------------------


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    """Return a file with two passwords that the database takes from nobody."""
    file = tmp_path / "password"
    file.write_text(f"{CANARY}-wrong\nanother-{CANARY}-wrong\n")
    return file


def refusal(origin: str, role: str = "postgres") -> str:
    """Return what is said of a password that is refused, in one line and without a value."""
    return (
        f"it refuses the password of the role {role}, {origin}; put the one that it takes there, or give this one to"
        ' the role (docs/runbook.md, "The database refuses a password")'
    )


@pytest.mark.django_db(transaction=True)
def test_wrong_password_of_the_database_is_503_and_names_nothing(ask: Ask, wrong: Path) -> None:
    ready, login = ask(
        "/readyz",
        {"path": "/auth/jwt/create/", "method": "post", "data": {"username": "alice", "password": "x"}},
        POSTGRES_PASSWORD_FILE=str(wrong),
    )

    assert ready.status == HTTPStatus.SERVICE_UNAVAILABLE
    assert json.loads(ready.body) == {"detail": "The service is not ready."}
    assert_unavailable(login)


@pytest.mark.parametrize("command", [["migrate", "--no-input"], ["upkeep"], ["unlock", "alice"]], ids=lambda it: it[0])
def test_wrong_password_of_the_database_ends_a_command_with_one_line(
    manage: Python, wrong: Path, command: list[str]
) -> None:
    done = manage(*command, POSTGRES_PASSWORD_FILE=str(wrong))

    said = f"The database is unavailable: {refusal(f'POSTGRES_PASSWORD from {wrong}')}.\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_wrong_password_of_the_database_is_said_by_who_is_not_ready(manage: Python, wrong: Path) -> None:
    code = "from health.readiness import why_not_ready; print(why_not_ready())"

    done = manage("shell", "-v0", "-c", code, POSTGRES_PASSWORD_FILE=str(wrong))

    reason = f"the database is unavailable: {refusal(f'POSTGRES_PASSWORD from {wrong}')}"
    assert (done.returncode, done.stdout) == (0, f"{reason}\n")
    (line,) = done.stderr.splitlines()
    assert line.endswith(f"not ready: {reason}")


def test_wrong_password_of_the_database_is_said_by_upkeep_which_tries_again(
    configuration: dict[str, str], wrong: Path, tmp_path: Path
) -> None:
    environment = {**configuration, "POSTGRES_PASSWORD_FILE": str(wrong)}
    heartbeat = tmp_path / "heartbeat"
    command = [sys.executable, "manage.py", "upkeep", "--every=3600", f"--heartbeat={heartbeat}"]
    with subprocess.Popen(command, cwd=BACKEND, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        begins, *tries = [process.stderr.readline() for _ in range(3)]
        process.terminate()
        (ends,) = process.stderr.readlines()

    assert "upkeep every 3600 s" in begins
    for line in tries:
        assert line.endswith(f"database unavailable: {refusal(f'POSTGRES_PASSWORD from {wrong}')}\n")
    assert "upkeep ends, as it was told to" in ends
    assert process.returncode == 0
    assert not heartbeat.exists()


@pytest.mark.parametrize("in_file", [False, True])
@pytest.mark.parametrize("name", ["POSTGRES_PASSWORD", "DATABASE_URL"])
def test_wrong_password_of_the_database_is_named_by_where_it_is_from(
    manage: Python, tmp_path: Path, name: str, in_file: bool
) -> None:
    host, port = (connection.settings_dict[part] for part in ("HOST", "PORT"))
    address = f"postgresql://nobody:{CANARY}@{host}:{port}/transactions?sslmode=disable"
    values = {"POSTGRES_USER": "nobody", "POSTGRES_PASSWORD": CANARY, "POSTGRES_PASSWORD_FILE": None}
    if name == "DATABASE_URL":
        values |= {"DATABASE_URL": address, "DB_REPLICAS": "0"}
    file = tmp_path / "secret"
    if in_file:
        file.write_text(f"{values.pop(name)}\n")
        values[f"{name}_FILE"] = str(file)

    done = manage("migrate", "--no-input", **values)

    origin = f"{name} from {file}" if in_file else name
    assert (done.returncode, done.stderr) == (1, f"The database is unavailable: {refusal(origin, 'nobody')}.\n")


def test_another_failure_of_a_command_is_shown_as_it_is(manage: Python, closed_port: str) -> None:
    done = manage("migrate", "--no-input", POSTGRES_PORT=closed_port)

    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "refuses the password" not in done.stderr


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("place", ["first", "second", "third"])
def test_password_that_is_being_changed_is_found_among_those_that_the_file_holds(
    ask: Ask, tmp_path: Path, place: str
) -> None:
    passwords = {name: f"{name}-canary-4c1d9e" for name in ("first", "second", "third")}
    file = tmp_path / "password"
    file.write_text("\n".join(passwords.values()) + "\n")
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("CREATE ROLE changing SUPERUSER LOGIN PASSWORD {}").format(passwords[place]))

    try:
        (ready,) = ask("/readyz", POSTGRES_USER="changing", POSTGRES_PASSWORD_FILE=str(file))
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP ROLE changing")

    assert ready.status == HTTPStatus.OK


@pytest.mark.django_db(transaction=True)
def test_password_of_the_database_may_hold_every_special_character(ask: Ask, tmp_path: Path) -> None:
    password = "!#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\"$HOME%41"
    file = tmp_path / "password"
    file.write_text(password + "\n")
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("CREATE ROLE odd_password SUPERUSER LOGIN PASSWORD {}").format(password))

    try:
        (ready,) = ask("/readyz", POSTGRES_USER="odd_password", POSTGRES_PASSWORD_FILE=str(file))
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP ROLE odd_password")

    assert ready.status == HTTPStatus.OK


@pytest.mark.django_db(transaction=True)
def test_request_that_stood_still_in_its_transaction_is_503(
    as_alice: APIClient, coffee: Transaction, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_alice.raise_request_exception = False
    lock_row = TransactionViewSet._lock_row

    def stand_still(view: TransactionViewSet, request: Request) -> Transaction:
        row = lock_row(view, request)
        time.sleep(0.5)
        return row

    monkeypatch.setattr(TransactionViewSet, "_lock_row", stand_still)
    with connection.cursor() as cursor:
        cursor.execute("SET idle_in_transaction_session_timeout = '100ms'")

    answer = as_alice.patch(f"/api/transactions/{coffee.pk}/", {"amount": "1"})

    connection.close()
    assert (answer.status_code, answer["Retry-After"]) == (HTTPStatus.SERVICE_UNAVAILABLE, "5")
    assert answer.json() == DETAIL
