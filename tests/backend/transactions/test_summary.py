"""Number and sum, in all and by month."""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from accounts.models import User
from transactions.models import LARGEST_AMOUNT, Transaction
from transactions.summary import TOO_MANY

SUMMARY = "/api/transactions/summary/"

pytestmark = pytest.mark.django_db

Record = Callable[..., Transaction]


@pytest.fixture
def record(alice: User) -> Record:
    """Return a function that records a row of Alice as if at that moment."""

    def create(amount: str, moment: datetime, description: str = "x", owner: User = alice) -> Transaction:
        return Transaction.objects.create(user=owner, amount=amount, description=description, timestamp=moment)

    return create


def test_summary_adds_up_in_all_and_by_month_oldest_first(as_alice: APIClient, record: Record) -> None:
    record("1.10", datetime(2026, 3, 5, tzinfo=UTC))
    record("-0.20", datetime(2026, 3, 6, tzinfo=UTC))
    record("5", datetime(2025, 12, 31, tzinfo=UTC))

    assert as_alice.get(SUMMARY).json() == {
        "count": 3,
        "sum": "5.90",
        "by_month": [
            {"month": "2025-12", "count": 1, "sum": "5.00"},
            {"month": "2026-03", "count": 2, "sum": "0.90"},
        ],
    }


def test_summary_has_many_months_in_order(as_alice: APIClient, record: Record) -> None:
    for number in range(48):
        record("1", datetime(2020 + number * 7 % 4, 1 + number * 5 % 12, 1, tzinfo=UTC))
    with connection.cursor() as cursor:
        # Grouping by hash, as the planner does for more rows, brings no order with it.
        cursor.execute("SET LOCAL enable_sort = off")

    months = [month["month"] for month in as_alice.get(SUMMARY).json()["by_month"]]

    assert months == sorted(set(months))
    assert len(months) > 10


def test_summary_of_nothing_is_zero(as_alice: APIClient) -> None:
    assert as_alice.get(SUMMARY).json() == {"count": 0, "sum": "0.00", "by_month": []}


def test_summary_counts_a_month_by_utc(as_alice: APIClient, record: Record) -> None:
    record("1", datetime.fromisoformat("2026-02-01T00:30:00+01:00"))
    record("2", datetime.fromisoformat("2026-01-31T23:59:59.999999+00:00"))
    record("4", datetime.fromisoformat("2026-01-31T19:00:00-05:00"))

    assert [(month["month"], month["sum"]) for month in as_alice.get(SUMMARY).json()["by_month"]] == [
        ("2026-01", "3.00"),
        ("2026-02", "4.00"),
    ]


def test_summary_counts_a_month_by_utc_whatever_the_time_zone_of_the_database(
    as_alice: APIClient, record: Record
) -> None:
    record("1", datetime.fromisoformat("2026-01-31T23:59:59+00:00"))
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL TIME ZONE 'Pacific/Kiritimati'")

    assert as_alice.get(SUMMARY).json()["by_month"][0]["month"] == "2026-01"


def test_summary_is_exact_where_amounts_are_large(as_alice: APIClient, alice: User) -> None:
    Transaction.objects.bulk_create(
        Transaction(user=alice, amount=LARGEST_AMOUNT, description="x") for _ in range(10_000)
    )
    Transaction.objects.create(user=alice, amount="0.01", description="x")

    assert as_alice.get(SUMMARY).json()["sum"] == str(LARGEST_AMOUNT * 10_000 + Decimal("0.01"))


def test_summary_is_of_the_same_filters_and_search_as_the_list(as_alice: APIClient, record: Record) -> None:
    for month in range(1, 13):
        record(f"{month}", datetime(2026, month, 1, tzinfo=UTC), "tea" if month % 2 else "coffee")
    query = "?amount_min=3&timestamp_before=2026-10-01&search=tea"

    listed = as_alice.get(f"/api/transactions/{query}&limit=20").json()
    summary = as_alice.get(f"{SUMMARY}{query}").json()

    assert summary["count"] == listed["count"] == 4
    assert summary["sum"] == "24.00"
    assert [month["month"] for month in summary["by_month"]] == ["2026-03", "2026-05", "2026-07", "2026-09"]


def test_summary_is_of_the_account_that_asks(as_bob: APIClient, bob: User, record: Record) -> None:
    record("1", datetime(2026, 1, 1, tzinfo=UTC))
    record("2", datetime(2026, 1, 1, tzinfo=UTC), owner=bob)

    assert as_bob.get(SUMMARY).json()["sum"] == "2.00"


def test_summary_needs_a_token(anonymous: APIClient) -> None:
    assert anonymous.get(SUMMARY).status_code == HTTPStatus.UNAUTHORIZED


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_summary_is_only_read(as_alice: APIClient, method: str) -> None:
    assert getattr(as_alice, method)(SUMMARY, {}).status_code == HTTPStatus.METHOD_NOT_ALLOWED


def test_summary_is_one_statement(as_alice: APIClient, record: Record) -> None:
    record("1", datetime(2026, 1, 1, tzinfo=UTC))
    with CaptureQueriesContext(connection) as captured:
        as_alice.get(f"{SUMMARY}?search=x&amount_min=0")

    assert len(captured) == 2, [query["sql"] for query in captured]  # with the one that asks who is asking


def test_summary_of_more_than_can_be_added_in_time_says_to_narrow_it(as_alice: APIClient, alice: User) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO transactions_transaction (user_id, amount, description)"
            " SELECT %s, 1, 'x' FROM generate_series(1, 30000)",
            [alice.pk],
        )

    def in_a_millisecond(execute: Callable[..., Any], statement: str, *rest: Any) -> Any:
        if "SUM(" in statement:
            execute("SET LOCAL statement_timeout = 1", None, *rest[1:])
        return execute(statement, *rest)

    with connection.execute_wrapper(in_a_millisecond):
        answer = as_alice.get(SUMMARY)

    assert (answer.status_code, answer.json()) == (HTTPStatus.BAD_REQUEST, {"detail": TOO_MANY})
    assert "Retry-After" not in answer
