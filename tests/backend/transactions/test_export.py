"""The export: every row, as CSV or JSON Lines, while it is read."""

import csv
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.db import OperationalError, connection
from django.db.models import QuerySet
from django.test.utils import CaptureQueriesContext
from hypothesis import example, given
from hypothesis import strategies as st
from rest_framework.test import APIClient

from accounts.models import User
from transactions.export import COLUMNS, ROWS_AT_ONCE, CsvRenderer, JsonLinesRenderer
from transactions.models import Transaction

from .at_once import at_once

LIST = "/api/transactions/"
EXPORT = f"{LIST}export/"
BACKEND = Path(__file__).resolve().parents[3] / "backend"
MANY = 200_000

pytestmark = pytest.mark.django_db


def body(response: Any) -> bytes:
    assert response.status_code == HTTPStatus.OK, response.content
    return b"".join(response.streaming_content)


def table(response: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(body(response).decode(), newline=""), strict=True))


def lines(response: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body(response).splitlines()]


def record(owner: User, *descriptions: str) -> list[Transaction]:
    return Transaction.objects.bulk_create(Transaction(user=owner, amount=1, description=text) for text in descriptions)


def insert_many(owner: User, number: int) -> None:
    with connection.cursor() as cursor:
        # A busy host takes longer than any request may.
        cursor.execute("SET statement_timeout = 0")
        cursor.execute(
            "INSERT INTO transactions_transaction (user_id, amount, description, timestamp)"
            " SELECT %s, n %% 500 - 250, 'row ' || n, now() - n * interval '1 minute' FROM generate_series(1, %s) AS n",
            [owner.pk, number],
        )
        cursor.execute("RESET statement_timeout")


# Content --------------------------------------------------------------------------------------------------------------


def test_csv_has_a_header_and_a_line_for_every_row(as_alice: APIClient, coffee: Transaction) -> None:
    answer = as_alice.get(EXPORT)

    timestamp = as_alice.get(f"{LIST}{coffee.pk}/").json()["timestamp"]
    assert body(answer).decode() == (
        f"id,user,amount,description,timestamp\r\n{coffee.pk},{coffee.user.pk},-3.20,Coffee,{timestamp}\r\n"
    )
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert answer["Content-Disposition"] == 'attachment; filename="transactions.csv"'
    assert answer["X-Accel-Buffering"] == "no"


def test_json_lines_are_the_rows_of_the_list(as_alice: APIClient, alice: User) -> None:
    record(alice, "a", '"quoted", and \\ more', "é😀", "line\nbreak", "\u2028\x85", "{}")
    Transaction.objects.filter(description="a").update(timestamp=datetime(2026, 1, 31, 9, 30, tzinfo=UTC), amount=0)

    answer = as_alice.get(f"{EXPORT}?format=jsonl")

    assert lines(answer) == as_alice.get(f"{LIST}?limit=20").json()["results"]
    assert answer["Content-Type"] == "application/x-ndjson; charset=utf-8"
    assert answer["Content-Disposition"] == 'attachment; filename="transactions.jsonl"'


@pytest.mark.parametrize("number", [0, 1, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, 2 * ROWS_AT_ONCE])
def test_export_has_every_row_once_however_many(as_alice: APIClient, alice: User, number: int) -> None:
    insert_many(alice, number)
    expected = list(Transaction.objects.values_list("pk", flat=True))

    assert [int(row["id"]) for row in table(as_alice.get(EXPORT))] == expected
    assert [row["id"] for row in lines(as_alice.get(f"{EXPORT}?format=jsonl"))] == expected


def test_export_of_nothing_is_a_header_or_nothing(as_alice: APIClient) -> None:
    assert body(as_alice.get(EXPORT)).decode() == ",".join(COLUMNS) + "\r\n"
    assert body(as_alice.get(f"{EXPORT}?format=jsonl")) == b""


def test_export_is_of_the_same_filters_search_and_order_as_the_list(as_alice: APIClient, alice: User) -> None:
    insert_many(alice, 30)
    query = "amount_min=-240&amount_max=-225&search=row 1&ordering=amount"

    listed = as_alice.get(f"{LIST}?limit=20&{query}").json()["results"]

    assert len(listed) == 11
    assert lines(as_alice.get(f"{EXPORT}?format=jsonl&{query}")) == listed
    assert [int(row["id"]) for row in table(as_alice.get(f"{EXPORT}?{query}"))] == [row["id"] for row in listed]


def test_export_has_the_rows_of_its_owner_only(as_bob: APIClient, coffee: Transaction) -> None:
    assert table(as_bob.get(EXPORT)) == []


# CSV in spreadsheets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["=1+1", "+1", "-1", "@SUM(A1)", "\t1", "\r1", "\n1", '=HYPERLINK("http://x","y")', "\uff1d1", "\uff0b1", "-"],
)
def test_description_that_a_spreadsheet_would_run_is_marked_as_text_in_csv_only(
    as_alice: APIClient, alice: User, text: str
) -> None:
    record(alice, text)

    assert [row["description"] for row in table(as_alice.get(EXPORT))] == [f"'{text}"]
    assert [row["description"] for row in lines(as_alice.get(f"{EXPORT}?format=jsonl"))] == [text]


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("a;=1+1", "a;'=1+1"),
        ("a,=1+1", "a,'=1+1"),
        ("a\t@SUM(A1)", "a\t'@SUM(A1)"),
        ("a\r\n=1", "a\r\n'=1"),
        ("a\n-1", "a\n'-1"),
        ("\t=1", "'\t'=1"),
        (";=1;+1", ";'=1;'+1"),
        ('a;"=1', "a;'\"=1"),
        ('a;""=1', 'a;\'""=1'),
        ("a;\uff1d1", "a;'\uff1d1"),
    ],
)
def test_formula_after_what_may_end_a_cell_is_marked_in_csv_only(
    as_alice: APIClient, alice: User, text: str, marked: str
) -> None:
    record(alice, text)

    assert [row["description"] for row in table(as_alice.get(EXPORT))] == [marked]
    assert [row["description"] for row in lines(as_alice.get(f"{EXPORT}?format=jsonl"))] == [text]


@pytest.mark.parametrize("text", ["a=1", "'=1", "1-1", "Coffee, black", 'say "hi"', "two\r\nlines", "é😀", ";", "a\tb"])
def test_other_descriptions_are_in_csv_as_they_are(as_alice: APIClient, alice: User, text: str) -> None:
    record(alice, text)

    assert [row["description"] for row in table(as_alice.get(EXPORT))] == [text]


def test_amount_is_a_number_in_csv(as_alice: APIClient, alice: User) -> None:
    for amount in ("-3.2", "0", "99999999.99", "-99999999.99"):
        Transaction.objects.create(user=alice, amount=amount, description="x")

    amounts = [row["amount"] for row in table(as_alice.get(f"{EXPORT}?ordering=amount"))]

    assert amounts == ["-99999999.99", "-3.20", "0.00", "99999999.99"]


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
@example(";@")
def test_no_description_changes_the_shape_of_the_file(text: str) -> None:
    row = (1, 2, "3.00", text, datetime(2026, 1, 1, tzinfo=UTC))

    [cells] = csv.reader(io.StringIO(CsvRenderer().lines([row]).decode(), newline=""), strict=True)
    [line] = JsonLinesRenderer().lines([row]).splitlines()

    assert cells == ["1", "2", "3.00", cells[3], "2026-01-01T00:00:00Z"]
    assert cells[3].replace("'", "") == text.replace("'", "")
    assert not cells[3].startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert json.loads(line)["description"] == text


# Format ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "accept", "expected"),
    [
        ("", None, "text/csv"),
        ("", "*/*", "text/csv"),
        ("", "text/*", "text/csv"),
        ("", "text/csv", "text/csv"),
        ("", "application/x-ndjson", "application/x-ndjson"),
        ("", "text/html, application/x-ndjson;q=0.9", "application/x-ndjson"),
        ("?format=csv", None, "text/csv"),
        ("?format=jsonl", None, "application/x-ndjson"),
        ("?format=jsonl", "text/csv", "application/x-ndjson"),
        ("?format=csv", "application/json", "text/csv"),
    ],
)
def test_format_decides_and_accept_where_there_is_none(
    as_alice: APIClient, query: str, accept: str | None, expected: str
) -> None:
    answer = as_alice.get(f"{EXPORT}{query}", headers={} if accept is None else {"Accept": accept})

    assert body(answer).startswith(b"id," if expected == "text/csv" else b"")
    assert answer["Content-Type"] == f"{expected}; charset=utf-8"
    assert "Accept" in answer["Vary"]


@pytest.mark.parametrize(
    ("query", "accept", "status"),
    [
        ("?format=xml", "*/*", HTTPStatus.NOT_FOUND),
        ("?format=json", "text/csv", HTTPStatus.NOT_FOUND),
        ("?format=CSV", "text/csv", HTTPStatus.NOT_FOUND),
        ("?format=%00", "text/csv", HTTPStatus.NOT_FOUND),
        ("", "application/json", HTTPStatus.NOT_ACCEPTABLE),
        ("", "text/html", HTTPStatus.NOT_ACCEPTABLE),
        ("?amount_min=x", "text/csv", HTTPStatus.BAD_REQUEST),
        ("?format=jsonl&ordering=x", "text/csv", HTTPStatus.BAD_REQUEST),
    ],
)
def test_error_is_json(as_alice: APIClient, query: str, accept: str, status: HTTPStatus) -> None:
    answer = as_alice.get(f"{EXPORT}{query}", headers={"Accept": accept})

    assert answer.status_code == status
    assert answer["Content-Type"] == "application/json"
    assert isinstance(answer.json(), dict)


@pytest.mark.parametrize("query", ["", "?format=jsonl"])
def test_export_needs_a_token_and_says_so_in_json(anonymous: APIClient, query: str) -> None:
    answer = anonymous.get(f"{EXPORT}{query}")

    assert answer.status_code == HTTPStatus.UNAUTHORIZED
    assert answer["Content-Type"] == "application/json"
    assert set(answer.json()) == {"detail"}


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_export_is_only_read(as_alice: APIClient, method: str) -> None:
    answer = getattr(as_alice, method)(EXPORT, {})

    assert answer.status_code == HTTPStatus.METHOD_NOT_ALLOWED
    assert answer["Content-Type"] == "application/json"


@pytest.mark.parametrize("accept", ["*/*", "text/csv", "application/x-ndjson"])
def test_options_are_json(as_alice: APIClient, accept: str) -> None:
    answer = as_alice.options(EXPORT, headers={"Accept": accept})

    assert answer.status_code == HTTPStatus.OK
    assert answer["Content-Type"] == "application/json"
    assert set(answer.json()["renders"]) == {"text/csv", "application/x-ndjson"}


def test_head_reads_no_row(as_alice: APIClient, coffee: Transaction) -> None:
    with CaptureQueriesContext(connection) as captured:
        answer = as_alice.head(EXPORT)

    assert answer.status_code == HTTPStatus.OK
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert not any("transactions_transaction" in query["sql"] for query in captured)


# Reading --------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_export_is_of_one_moment(as_alice: APIClient, alice: User) -> None:
    insert_many(alice, 3 * ROWS_AT_ONCE)
    before = list(Transaction.objects.values_list("pk", flat=True))
    answer: Any = as_alice.get(f"{EXPORT}?format=jsonl")
    stream = iter(answer.streaming_content)
    beginning = next(stream)
    other = connection.copy()
    with closing(other), other.cursor() as cursor:
        cursor.execute("DELETE FROM transactions_transaction WHERE description <> 'row 1'")

    seen = [json.loads(line)["id"] for line in (beginning + b"".join(stream)).splitlines()]

    assert seen == before
    assert Transaction.objects.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("reads", [0, 1, 2, None])
def test_transaction_ends_with_the_answer_however_much_of_it_was_read(
    as_alice: APIClient, alice: User, reads: int | None
) -> None:
    insert_many(alice, 3 * ROWS_AT_ONCE)
    answer: Any = as_alice.get(EXPORT)
    assert connection.in_atomic_block

    stream = iter(answer.streaming_content)
    blocks = list(stream) if reads is None else [next(stream) for _ in range(reads)]
    answer.close()

    assert len(blocks) == (reads if reads is not None else 4)
    assert not connection.in_atomic_block
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_cursors WHERE name <> ''")
        assert cursor.fetchone() == (0,)


@pytest.mark.django_db(transaction=True)
def test_account_has_one_export_at_a_time(
    as_alice: APIClient, as_bob: APIClient, alice: User, coffee: Transaction
) -> None:
    insert_many(alice, 3 * ROWS_AT_ONCE)
    first: Any = as_alice.get(EXPORT)
    stream = iter(first.streaming_content)
    next(stream)

    second, others = at_once([lambda: as_alice.get(EXPORT), lambda: as_bob.get(EXPORT).status_code])

    assert second.status_code == HTTPStatus.TOO_MANY_REQUESTS
    assert second.json() == {"detail": "An export of this account is in progress. Try again when it has ended."}
    assert second["Retry-After"] == "5"
    assert others == HTTPStatus.OK
    first.close()
    assert body(as_alice.get(EXPORT))


@pytest.mark.django_db(transaction=True)
def test_transaction_is_over_before_the_last_rows_are_sent(as_alice: APIClient, alice: User) -> None:
    insert_many(alice, ROWS_AT_ONCE - 1)

    answer: Any = as_alice.get(EXPORT)

    assert not connection.in_atomic_block
    assert body(answer).count(b"\n") == ROWS_AT_ONCE


@pytest.mark.django_db(transaction=True)
def test_rows_are_read_by_one_statement_without_copying_them_first(as_alice: APIClient, alice: User) -> None:
    insert_many(alice, 3 * ROWS_AT_ONCE)
    answer = as_alice.get(EXPORT)

    with connection.cursor() as cursor:
        cursor.execute("SELECT statement, is_holdable FROM pg_cursors WHERE name LIKE '_django_curs_%'")
        [(statement, is_holdable)] = cursor.fetchall()

    assert "WITH HOLD" not in statement.replace("WITHOUT HOLD", "")
    assert not is_holdable
    answer.close()


@pytest.mark.django_db(transaction=True)
def test_client_may_pause_longer_in_an_export_than_elsewhere(as_alice: APIClient, alice: User) -> None:
    insert_many(alice, 3 * ROWS_AT_ONCE)

    def longest_pause() -> str:
        with connection.cursor() as cursor:
            cursor.execute("SHOW idle_in_transaction_session_timeout")
            return str(cursor.fetchone()[0])

    answer = as_alice.get(EXPORT)

    assert longest_pause() == "1min"
    answer.close()
    assert longest_pause() == "15s"


@pytest.mark.django_db(transaction=True)
def test_database_that_fails_before_the_first_row_is_503(as_alice: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> Iterator[Any]:
        raise OperationalError
        yield

    monkeypatch.setattr(QuerySet, "iterator", fail)
    answer = as_alice.get(EXPORT)

    assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert answer["Retry-After"] == "5"
    assert answer["Content-Type"] == "application/json"
    assert not connection.in_atomic_block


# Over HTTP ------------------------------------------------------------------------------------------------------------


class Server(NamedTuple):
    """Gunicorn with one worker, as in the container."""

    port: int
    worker: int
    token: str
    log: Path

    def request(self, path: str, *, receive_buffer: int = 0) -> http.client.HTTPResponse:
        """Return the answer, with its body still to be read."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        client.sock = socket.socket()
        if receive_buffer:
            # So that the server cannot send more than the client reads.
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.sock.settimeout(60)
        client.sock.connect(("127.0.0.1", self.port))
        # With `close`, the end of the answer is that of the socket.
        headers = {"Authorization": f"Bearer {self.token}", "Host": "localhost", "Connection": "close"}
        client.request("GET", path, headers=headers)
        return client.getresponse()

    def memory(self, name: str) -> int:
        """Return a figure of the worker's memory in kB: VmRSS, or VmHWM, the most since it was reset."""
        for line in Path(f"/proc/{self.worker}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
        raise AssertionError(name)


@pytest.fixture
def server(
    transactional_db: None,
    alice: User,
    sign_in: Callable[[User], APIClient],
    configuration: Mapping[str, str],
    tmp_path: Path,
) -> Iterator[Server]:
    """Return a running server that knows Alice."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = {
        **configuration,
        "POSTGRES_DB": connection.settings_dict["NAME"],
        "WEB_CONCURRENCY": "1",
        "GUNICORN_BIND": f"127.0.0.1:{port}",
    }
    log = tmp_path / "log"
    with log.open("wb") as output:
        gunicorn = subprocess.Popen(
            [sys.executable, "-m", "gunicorn"], cwd=BACKEND, env=environment, stdout=output, stderr=output
        )
    try:
        worker = wait_for(lambda: children(gunicorn.pid) if answers(port) else None, log)[0]
        token = sign_in(alice).defaults["HTTP_AUTHORIZATION"].removeprefix("Bearer ")
        yield Server(port, worker, token, log)
    finally:
        gunicorn.send_signal(signal.SIGTERM)
        gunicorn.wait(timeout=60)


def answers(port: int) -> bool:
    try:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        client.request("GET", "/healthz", headers={"Host": "localhost", "Connection": "close"})
        with client.getresponse() as answer:
            return answer.status == HTTPStatus.OK
    except OSError:
        return False


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(condition: Callable[[], Any], log: Path) -> Any:
    for _ in range(300):
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def open_transactions() -> int:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
        )
        return int(cursor.fetchone()[0])


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's /proc to measure memory")
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_export_of_many_rows_takes_no_more_memory_than_one_of_few(server: Server, alice: User, kind: str) -> None:
    insert_many(alice, MANY)
    for _ in range(3):
        few = server.request(f"{EXPORT}?format={kind}&search=99999").read()
    assert few
    Path(f"/proc/{server.worker}/clear_refs").write_text("5")  # VmHWM starts again
    before = server.memory("VmRSS")

    number = 0
    answer = server.request(f"{EXPORT}?format={kind}")
    while block := answer.read(1 << 16):
        number += block.count(b"\n")

    assert number == MANY + (kind == "csv")
    # All rows together would be over 100 MB as Python objects, and over 10 MB as bytes of the answer.
    assert server.memory("VmHWM") - before < 5_000


def test_client_notices_that_the_database_failed_half_way(server: Server, alice: User) -> None:
    insert_many(alice, MANY)
    answer = server.request(f"{EXPORT}?format=jsonl", receive_buffer=4096)
    assert answer.status == HTTPStatus.OK
    answer.read(1000)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND state = 'idle in transaction' AND pid <> pg_backend_pid()"
        )
        assert cursor.fetchone() == (1,)

    with pytest.raises(http.client.IncompleteRead):
        answer.read()
    answer.close()

    # What is logged names the request and neither quotes a row nor looks like a defect.
    log = wait_for(lambda: "database unavailable" in server.log.read_text() and server.log.read_text(), server.log)
    assert f"request_id={answer.headers['X-Request-ID']} database unavailable" in log
    assert "Traceback" not in log
    # And the worker goes on with a new connection.
    assert server.request(f"{EXPORT}?format=jsonl&search=99999").read().count(b"\n") == 2


def test_client_that_leaves_half_way_leaves_no_transaction_behind(server: Server, alice: User) -> None:
    insert_many(alice, MANY)
    for _ in range(5):
        answer = server.request(f"{EXPORT}?format=jsonl", receive_buffer=4096)
        answer.read(1000)
        assert open_transactions() >= 1
        answer.close()
        # Before that it is this account's one export.
        wait_for(lambda: open_transactions() == 0, server.log)

    assert "Traceback" not in server.log.read_text()
    assert server.request(f"{EXPORT}?format=jsonl&search=99999").read().count(b"\n") == 2
