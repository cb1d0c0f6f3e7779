"""Bounds for amount and time, and the order of the list."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from accounts.models import User
from transactions.filters import OrderedTransactionFilters
from transactions.models import Transaction

LIST = "/api/transactions/"
ACCEPTED = ["timestamp", "-timestamp", "amount", "-amount"]
FILTERED = [LIST, f"{LIST}summary/", f"{LIST}export/"]

pytestmark = pytest.mark.django_db


@pytest.fixture
def ledger(alice: User) -> list[Transaction]:
    """Return one row of Alice for each month of 2026, of -6.00 to 5.00, as if they had been recorded then."""
    rows = Transaction.objects.bulk_create(
        Transaction(
            user=alice,
            amount=Decimal(month - 7),
            description=f"month {month}",
            timestamp=datetime(2026, month, 1, 12, tzinfo=UTC),
        )
        for month in range(1, 13)
    )
    assert all(row.timestamp.month == month for month, row in enumerate(Transaction.objects.order_by("timestamp"), 1))
    return rows


def amounts(client: APIClient, query: str) -> list[int]:
    answer = client.get(f"{LIST}?limit=20&{query}")
    assert answer.status_code == HTTPStatus.OK, answer.json()
    return sorted(int(Decimal(row["amount"])) for row in answer.json()["results"])


def months(client: APIClient, query: str) -> list[int]:
    answer = client.get(f"{LIST}?limit=20&{query}")
    assert answer.status_code == HTTPStatus.OK, answer.json()
    return sorted(int(row["description"].split()[1]) for row in answer.json()["results"])


# Amounts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("amount_min=3", [3, 4, 5]),
        ("amount_min=3.00", [3, 4, 5]),
        ("amount_min=3.01", [4, 5]),
        ("amount_max=-5", [-6, -5]),
        ("amount_max=-5.01", [-6]),
        ("amount_min=-1&amount_max=1", [-1, 0, 1]),
        ("amount_min=0&amount_max=0", [0]),
        ("amount_min=-0&amount_max=0.0", [0]),
        ("amount_min=00000003", [3, 4, 5]),
        ("amount_min=99999999.99", []),
        ("amount_min=2&amount_max=1", []),
    ],
)
def test_amount_bounds_include_themselves(
    as_alice: APIClient, ledger: list[Transaction], query: str, expected: list[int]
) -> None:
    assert amounts(as_alice, query) == expected


STRANGE_NUMBERS = [
    "",
    " ",
    "x",
    "1 ",
    "+1",
    ".5",
    "1.",
    "1.234",
    "1,5",
    "1_000",
    "1e3",
    "0x1",
    "NaN",
    "nan",
    "sNaN",
    "Infinity",
    "-inf",
    "123456789",
    "9" * 40,
    "-" + "9" * 40,
    "9" * 5000,
    "\u0661\u0662",
    "\uff11\uff12",
    "¹",
    "1\x00",
    "\x00",
    "1\n",
    "--1",
    "1;2",
    "\ud800",
]


@pytest.mark.parametrize("url", FILTERED)
@pytest.mark.parametrize("name", ["amount_min", "amount_max"])
@pytest.mark.parametrize("value", STRANGE_NUMBERS)
def test_bound_that_is_no_amount_is_refused_by_name(as_alice: APIClient, url: str, name: str, value: str) -> None:
    answer = as_alice.get(f"{url}?{name}={quoted(value)}")

    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert list(answer.json()) == [name]


def quoted(value: str) -> str:
    return quote(value.encode("utf-8", "surrogatepass"))


# Time -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("timestamp_after=2026-11-01T12:00:00Z", [11, 12]),
        ("timestamp_after=2026-11-01T12:00:00.000001Z", [12]),
        ("timestamp_before=2026-02-01T12:00:00Z", [1, 2]),
        ("timestamp_before=2026-02-01T11:59:59.999999Z", [1]),
        ("timestamp_after=2026-03-01&timestamp_before=2026-05-01", [3, 4]),
        ("timestamp_after=2026-11-01T13:00:00%2B01:00", [11, 12]),
        ("timestamp_after=2026-11-01T13:00:00+01:00", [11, 12]),
        ("timestamp_after=2026-11-01T07:00:00-05:00", [11, 12]),
        ("timestamp_after=2026-11-01T07:00:01-05:00", [12]),
        ("timestamp_after=2026-11-01T12:00", [11, 12]),
        ("timestamp_after=2026-11-01t12:00:00z", [11, 12]),
        ("timestamp_before=2026-02-01T12:00:00", [1, 2]),
        ("timestamp_after=0001-01-01&timestamp_before=9999-12-31T23:59:59.999999Z", list(range(1, 13))),
        ("timestamp_after=2026-05-01&timestamp_before=2026-03-01", []),
    ],
)
def test_time_bounds_include_themselves(
    as_alice: APIClient, ledger: list[Transaction], query: str, expected: list[int]
) -> None:
    assert months(as_alice, query) == expected


def test_time_bounds_take_what_the_list_says(as_alice: APIClient, ledger: list[Transaction]) -> None:
    Transaction.objects.filter(pk=ledger[5].pk).update(timestamp=datetime(2026, 6, 1, 12, 0, 0, 123456, tzinfo=UTC))
    moment = as_alice.get(f"{LIST}{ledger[5].pk}/").json()["timestamp"]

    assert moment == "2026-06-01T12:00:00.123456Z"
    assert months(as_alice, f"timestamp_after={moment}&timestamp_before={moment}") == [6]


STRANGE_MOMENTS = [
    "",
    " ",
    "x",
    "now",
    "2026",
    "2026-01",
    "2026-13-01",
    "2026-02-30",
    "2026-1-1",
    "20260101",
    "2026-W01-1",
    "2026-01-01T",
    "2026-01-01 12:00:00",
    "2026-01-01T24:00:00Z",
    "2026-01-01T12:00:60Z",
    "2026-01-01T12Z",
    "2026-01-01T12:00:00.1234567Z",
    "2026-01-01T12:00:00+25:00",
    "2026-01-01T12:00:00+1",
    "2026-01-01T12:00:00ZZ",
    "0000-01-01",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "10000-01-01",
    "9" * 40,
    "1767225600",
    "\u0662\u0660\u0662\u0666-\u0660\u0661-\u0660\u0661",
    "\uff12\uff10\uff12\uff16-01-01",
    "2026-01-01\x00",
    "\x00",
    "2026-01-01T12:00:00Z\n",
    "infinity",
    "-infinity",
    "\ud800",
]


@pytest.mark.parametrize("url", FILTERED)
@pytest.mark.parametrize("name", ["timestamp_after", "timestamp_before"])
@pytest.mark.parametrize("value", STRANGE_MOMENTS)
def test_bound_that_is_no_moment_is_refused_by_name(as_alice: APIClient, url: str, name: str, value: str) -> None:
    answer = as_alice.get(f"{url}?{name}={quoted(value)}")

    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert list(answer.json()) == [name]


# Together -------------------------------------------------------------------------------------------------------------


def test_every_bad_bound_is_named(as_alice: APIClient) -> None:
    answer = as_alice.get(f"{LIST}?amount_min=x&timestamp_after=y&ordering=z")

    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert set(answer.json()) == {"amount_min", "timestamp_after", "ordering"}


def test_filters_and_search_hold_together_and_count_together(as_alice: APIClient, ledger: list[Transaction]) -> None:
    body = as_alice.get(f"{LIST}?amount_min=-3&timestamp_before=2026-10-01&search=month 1").json()

    assert body["count"] == 0
    assert months(as_alice, "amount_min=-3&timestamp_before=2026-10-02&search=month 1") == [10]


def test_filters_show_no_row_of_another_account(as_bob: APIClient, ledger: list[Transaction]) -> None:
    assert amounts(as_bob, "amount_min=-6&timestamp_after=2026-01-01") == []


EVERY_PARAMETER = {
    "amount_min": ("2", 4),
    "amount_max": ("-4", 3),
    "timestamp_after": ("2026-08-01", 5),
    "timestamp_before": ("2026-02-02", 2),
    "search": ("month 1", 4),
    "ordering": ("amount", 12),
}
"""With a value, and how many rows it leaves."""


def test_every_parameter_is_among_those_that_are_tested() -> None:
    assert set(EVERY_PARAMETER) == {*OrderedTransactionFilters.base_filters, "search"}


@pytest.mark.parametrize("name", EVERY_PARAMETER)
def test_list_summary_and_export_are_of_the_same_rows(
    as_alice: APIClient, ledger: list[Transaction], name: str
) -> None:
    value, number = EVERY_PARAMETER[name]

    listed = as_alice.get(LIST, {"limit": "20", name: value}).json()["results"]
    summary = as_alice.get(f"{LIST}summary/", {name: value}).json()
    exported = as_alice.get(f"{LIST}export/", {"format": "jsonl", name: value})

    assert len(listed) == summary["count"] == number
    assert Decimal(summary["sum"]) == sum(Decimal(row["amount"]) for row in listed)
    lines = b"".join(exported.streaming_content).splitlines()  # type: ignore[attr-defined]
    assert [json.loads(line) for line in lines] == listed


def test_links_keep_the_filters(as_alice: APIClient, ledger: list[Transaction]) -> None:
    link = as_alice.get(f"{LIST}?amount_min=-5&ordering=amount&limit=5&offset=0").json()["next"]

    body = as_alice.get(link).json()
    assert [row["amount"] for row in body["results"]] == ["0.00", "1.00", "2.00", "3.00", "4.00"]


def test_unknown_parameters_are_ignored(as_alice: APIClient, ledger: list[Transaction]) -> None:
    assert len(amounts(as_alice, "amount=3&user=1&colour=red&amount__gte=4")) == 12


@pytest.mark.parametrize("method", ["get", "put", "patch", "delete"])
def test_one_row_is_named_by_its_id_alone(as_alice: APIClient, coffee: Transaction, method: str) -> None:
    query = "?amount_min=99&search=tea&ordering=bogus&timestamp_after=never"
    body = None if method in ("get", "delete") else {"amount": "1", "description": "x"}

    answer = getattr(as_alice, method)(f"{LIST}{coffee.pk}/{query}", body)

    assert answer.status_code in (HTTPStatus.OK, HTTPStatus.NO_CONTENT)


# Order ----------------------------------------------------------------------------------------------------------------


def shown(client: APIClient, query: str) -> list[int]:
    return [row["id"] for row in client.get(f"{LIST}?limit=20&{query}").json()["results"]]


def primary_keys(rows: Iterable[Transaction]) -> list[int]:
    return [row.pk for row in rows]


@pytest.mark.parametrize("ordering", ACCEPTED)
def test_list_is_in_the_order_that_was_asked_for_with_ties_in_the_order_of_ids(
    as_alice: APIClient, alice: User, ordering: str
) -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    rows = Transaction.objects.bulk_create(
        Transaction(user=alice, amount=number % 3, description="x", timestamp=moment + timedelta(days=number * 7 % 4))
        for number in range(18)
    )
    field, falling = ordering.removeprefix("-"), ordering.startswith("-")

    expected = sorted(rows, key=lambda row: (getattr(row, field), row.pk), reverse=falling)
    assert shown(as_alice, f"ordering={ordering}") == primary_keys(expected)


def test_list_is_newest_first_unless_asked(as_alice: APIClient, ledger: list[Transaction]) -> None:
    assert shown(as_alice, "") == shown(as_alice, "ordering=-timestamp") == primary_keys(reversed(ledger))


@pytest.mark.parametrize("url", [LIST, f"{LIST}export/"])
@pytest.mark.parametrize(
    "value",
    [
        "",
        "id",
        "+amount",
        "--amount",
        "Amount",
        "amount,timestamp",
        "user__password",
        "description",
        "?",
        "\x00",
        "a" * 4000,
    ],
)
def test_unknown_ordering_is_refused_and_names_the_accepted(as_alice: APIClient, url: str, value: str) -> None:
    answer = as_alice.get(url, {"ordering": value})

    assert answer.status_code == HTTPStatus.BAD_REQUEST
    [message] = answer.json()["ordering"]
    assert all(name in message for name in ACCEPTED)


# Strange numbers elsewhere --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", ["9" * 40, "9" * 19, "1" * 18, "\u0663", "\uff13", "-1", "1e3", "0x1", "NaN", "%00", "1%00"]
)
@pytest.mark.parametrize("method", ["get", "put", "patch", "delete"])
def test_strange_id_is_not_found(as_alice: APIClient, method: str, value: str) -> None:
    body: Any = None if method in ("get", "delete") else {"amount": "1", "description": "x"}

    assert getattr(as_alice, method)(f"{LIST}{value}/", body).status_code == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize("name", ["page", "limit", "offset"])
@pytest.mark.parametrize(
    "value", ["9" * 40, "9" * 5000, str(2**31), "-1", "\u0663", "\uff13", "1.0", "1e3", "NaN", "", " 1", "\x00"]
)
def test_strange_page_limit_or_offset_is_refused(as_alice: APIClient, name: str, value: str) -> None:
    assert as_alice.get(LIST, {name: value}).status_code == HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize("url", FILTERED)
def test_null_character_in_the_search_is_refused(as_alice: APIClient, url: str) -> None:
    assert as_alice.get(url, {"search": "a\x00b"}).status_code == HTTPStatus.BAD_REQUEST


# Cost -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "statements"),
    [
        ("?page=1", 3),
        ("?page=2", 3),
        ("?limit=5&offset=5", 3),
        # One more says how few rows are within the bounds for the other field.
        ("?ordering=amount&amount_min=-6&timestamp_after=2026-01-01&search=m", 4),
    ],
)
def test_list_costs_few_statements_whatever_is_asked(
    as_alice: APIClient, ledger: list[Transaction], query: str, statements: int
) -> None:
    with CaptureQueriesContext(connection) as captured:
        as_alice.get(f"{LIST}{query}")

    assert len(captured) == statements, [query["sql"] for query in captured]


def test_page_by_amount_comes_from_its_index(as_alice: APIClient, alice: User) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO transactions_transaction (user_id, amount, description)"
            " SELECT %s, n %% 500, 'x' FROM generate_series(1, 5000) AS n",
            [alice.pk],
        )
        cursor.execute("ANALYZE transactions_transaction")
    rows = Transaction.objects.filter(user=alice)

    for ordered in (rows.order_by("amount", "id"), rows.order_by("-amount", "-id")):
        plan = ordered[:10].explain()
        assert "transaction_by_amount" in plan
        assert "Sort" not in plan
