"""How far rows are counted and numbered, and how a walk goes on from there."""

from datetime import UTC, datetime
from decimal import Decimal
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.db import connection
from rest_framework.test import APIClient

from accounts.models import User
from tests.backend.transactions.plans import fill, plans_of, rows_read
from transactions import counts
from transactions.models import Transaction
from transactions.search import FARTHER

LIST = "/api/transactions/"
ORDERINGS = ["timestamp", "-timestamp", "amount", "-amount"]
BOUND = 30

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count thirty rows, so that few are enough to be more."""
    monkeypatch.setattr(counts, "COUNTED_ROWS", BOUND)


@pytest.fixture
def ledger(alice: User) -> list[Transaction]:
    """Return 77 rows of Alice, of five amounts and two moments."""
    return insert_rows(alice, 40) + insert_rows(alice, 37)


def insert_rows(owner: User, number: int) -> list[Transaction]:
    return Transaction.objects.bulk_create(
        Transaction(user=owner, amount=n % 5, description=f"row {n}") for n in range(number)
    )


def get(client: APIClient, url: str) -> Any:
    answer = client.get(url)
    assert answer.status_code == HTTPStatus.OK, answer.json()
    return answer.json()


def follow(client: APIClient, url: str | None, link: str) -> list[Any]:
    pages = []
    while url:
        pages.append(get(client, url))
        url = pages[-1][link]
    return pages


def ids(pages: list[Any]) -> list[int]:
    return [row["id"] for page in pages for row in page["results"]]


# The count ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["", "?page=2", "?limit=20", "?offset=3", "?amount_min=0", "?search=row"])
@pytest.mark.parametrize(
    ("rows", "count", "is_exact"),
    [(BOUND - 1, BOUND - 1, True), (BOUND, BOUND, True), (BOUND + 1, BOUND, False), (BOUND * 2, BOUND, False)],
)
def test_count_is_exact_up_to_the_bound_and_says_so_beyond(
    as_alice: APIClient, alice: User, bob: User, query: str, rows: int, count: int, is_exact: bool
) -> None:
    insert_rows(alice, rows)
    insert_rows(bob, BOUND)

    page = get(as_alice, LIST + query)

    assert (page["count"], page["count_is_exact"]) == (count, is_exact)


def test_count_of_a_filter_is_that_of_what_it_leaves(as_alice: APIClient, ledger: list[Transaction]) -> None:
    page = get(as_alice, f"{LIST}?amount_max=0")

    assert (page["count"], page["count_is_exact"]) == (len([row for row in ledger if row.amount == 0]), True)


def test_rows_beyond_the_bound_are_not_even_looked_at(
    as_alice: APIClient, alice: User, bob: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    fill([alice, bob], 10_000)

    last = counts.COUNTED_ROWS // 10
    page, plans = plans_of(as_alice, f"{LIST}?page={last}")

    assert (page["count"], page["count_is_exact"]) == (counts.COUNTED_ROWS, False)
    assert len(plans) == 2
    for plan in plans:
        assert plan["Node Type"] in ("Index Scan", "Index Only Scan")
        assert plan["Index Cond"] == f"(user_id = {alice.pk})"
        assert rows_read(plan) <= counts.COUNTED_ROWS + 1


@pytest.mark.parametrize(
    ("ordering", "bound"),
    [
        ("amount", "timestamp_after"),
        ("-amount", "timestamp_after"),
        ("-timestamp", "amount_min"),
        ("timestamp", "amount_min"),
    ],
)
@pytest.mark.parametrize("rows", [0, 5])
@pytest.mark.parametrize("paging", ["page=1", "limit=20", "cursor="])
def test_few_rows_in_the_order_of_the_other_field_cost_no_others(
    as_alice: APIClient, alice: User, bob: User, ordering: str, bound: str, rows: int, paging: str
) -> None:
    # Going by the rows of Bob, PostgreSQL would expect to meet many of Alice early.
    fill([alice], 3_000)
    fill([bob], 100)
    Transaction.objects.filter(user=bob).update(amount=1000, timestamp=datetime(2100, 1, 1, tzinfo=UTC))
    newest = [row.pk for row in Transaction.objects.filter(user=alice)[:rows]]
    Transaction.objects.filter(pk__in=newest).update(amount=1000, timestamp=datetime(2100, 1, 1, tzinfo=UTC))
    value = "1000" if bound == "amount_min" else "2100-01-01"

    page, plans = plans_of(as_alice, f"{LIST}?{paging}&ordering={ordering}&{bound}={value}")

    assert [row["id"] for row in page["results"]] == sorted(newest, reverse=ordering.startswith("-"))
    assert len(plans) == (2 if rows or paging == "cursor=" else 1)
    assert all(rows_read(plan) == rows for plan in plans)


@pytest.fixture
def far_end(alice: User, bob: User) -> list[int]:
    """Return the ids of 3,000 rows of Alice: 45 of large amounts, the oldest, and 45 of a time to come, the smallest.

    Going by the rows of Bob, PostgreSQL expects to meet many of either kind early.
    """
    fill([alice, bob], 3_000, "coffee")
    Transaction.objects.filter(user=bob).update(amount=1000, timestamp=datetime(2100, 1, 1, tzinfo=UTC))
    rows = list(Transaction.objects.filter(user=alice))
    large, late = rows[-45:], sorted(rows[:-45], key=lambda row: (row.amount, row.pk))[:45]
    for number, row in enumerate(large):
        row.amount = Decimal(1000 + number)
    for number, row in enumerate(late):
        row.timestamp = datetime(2100, 1, 1, number // 60, number % 60, tzinfo=UTC)
    Transaction.objects.bulk_update([*large, *late], ["amount", "timestamp"])
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE transactions_transaction")
    return [row.pk for row in rows]


FAR_ENDS = [
    "ordering=-timestamp&amount_min=1000",
    "ordering=-amount&timestamp_after=2099-01-01",
    "ordering=-timestamp&amount_min=1000&timestamp_after=2000-01-01",
    "ordering=-timestamp&amount_min=1000&search=co",
    "ordering=-timestamp&amount_min=1000&search=coffee",
]


@pytest.mark.parametrize("query", FAR_ENDS)
@pytest.mark.parametrize("paging", ["page=1", "page=2", "page=3", "limit=20", "limit=20&offset=10", "cursor="])
def test_rows_at_the_far_end_of_the_order_cost_no_reading_of_all(
    as_alice: APIClient, far_end: list[int], query: str, paging: str
) -> None:
    _, plans = plans_of(as_alice, f"{LIST}?{query}&{paging}")

    assert plans
    assert max(rows_read(plan) for plan in plans) <= BOUND * FARTHER + 1


@pytest.mark.parametrize("query", FAR_ENDS)
@pytest.mark.parametrize("paging", ["page=1", "limit=20", "cursor="])
def test_rows_at_the_far_end_of_the_order_are_reached_by_following_next(
    as_alice: APIClient, alice: User, far_end: list[int], query: str, paging: str
) -> None:
    pages = follow(as_alice, f"{LIST}?{query}&{paging}", "next")

    ordered = Transaction.objects.filter(user=alice).order_by("-amount" if "-amount" in query else "-timestamp", "-pk")
    wanted = {"amount__gte": 1000} if "amount_min" in query else {"timestamp__gte": datetime(2099, 1, 1, tzinfo=UTC)}
    assert ids(pages) == [row.pk for row in ordered.filter(**wanted)]
    assert len(ids(pages)) == 45
    assert len(pages) <= 3_000 // (BOUND * FARTHER) + 45 // 10 + 2


@pytest.mark.parametrize(
    "query", ["amount_min=1020", "amount_min=1020&timestamp_after=2000-01-01", "amount_min=1020&search=coffee"]
)
@pytest.mark.parametrize("paging", ["page=1", "limit=10", "cursor="])
def test_few_rows_at_the_far_end_of_the_order_cost_no_others_on_any_page(
    as_alice: APIClient, far_end: list[int], query: str, paging: str
) -> None:
    url, found = f"{LIST}?ordering=-timestamp&{query}&{paging}", []
    while url:
        page, plans = plans_of(as_alice, url)
        assert max(rows_read(plan) for plan in plans) <= BOUND + 1
        found.append(page)
        url = page["next"]

    assert len(found) == 3
    assert ids(found) == far_end[-25:]
    if paging != "cursor=":
        assert {(page["count"], page["count_is_exact"]) for page in found} == {(25, True)}


@pytest.mark.parametrize("name", ["page", "offset"])
def test_page_that_was_not_met_is_refused_and_the_first_one_leads_there(
    as_alice: APIClient, far_end: list[int], name: str
) -> None:
    answer = as_alice.get(f"{LIST}?{FAR_ENDS[0]}&{name}=2")
    first = get(as_alice, f"{LIST}?{FAR_ENDS[0]}")

    assert answer.status_code == HTTPStatus.BAD_REQUEST
    [said] = answer.json()[name]
    assert said.startswith("Give at most ")
    assert "cursor" in said
    assert (first["count"], first["count_is_exact"], first["results"]) == (BOUND, False, [])
    assert "cursor=" in first["next"]


# Pages beyond the bound -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "largest"),
    [("page", 4, 3), ("page", 2147483647, 3), ("offset", BOUND - 4, BOUND - 5), ("offset", 2147483647, BOUND - 5)],
)
def test_page_beyond_the_bound_is_refused_and_leads_to_the_cursor(
    as_alice: APIClient, ledger: list[Transaction], name: str, value: int, largest: int
) -> None:
    answer = as_alice.get(f"{LIST}?{name}={value}")

    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert answer.json() == {
        name: [f"Give at most {largest}. Rows beyond are reached by cursor: follow next of that page."]
    }
    assert "cursor=" in get(as_alice, f"{LIST}?{name}={largest}")["next"]


def test_page_beyond_the_end_of_what_is_counted_exactly_is_simply_not_there(as_alice: APIClient, alice: User) -> None:
    insert_rows(alice, BOUND)

    assert as_alice.get(f"{LIST}?page=4").status_code == HTTPStatus.NOT_FOUND
    assert get(as_alice, f"{LIST}?offset={BOUND + 1}")["results"] == []
    assert get(as_alice, f"{LIST}?page=3")["next"] is None
    assert get(as_alice, f"{LIST}?offset=20&limit=10")["next"] is None


# Walks over the bound -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize(
    ("start", "size"),
    [("page=1", 10), ("limit=7&offset=0", 7), ("limit=20", 20), ("offset=0", 5), ("limit=15&offset=0", 15)],
)
def test_walk_from_the_first_page_sees_every_row_once_and_comes_back(
    as_alice: APIClient, ledger: list[Transaction], ordering: str, start: str, size: int
) -> None:
    field, falling = ordering.removeprefix("-"), ordering.startswith("-")
    expected = [
        row.pk
        for row in sorted(Transaction.objects.all(), key=lambda row: (getattr(row, field), row.pk), reverse=falling)
    ]

    forward = follow(as_alice, f"{LIST}?ordering={ordering}&{start}", "next")
    backward = follow(as_alice, forward[-1]["previous"], "previous")

    assert ids(forward) == expected
    assert {len(page["results"]) for page in forward[:-1]} == {size}
    assert ids(backward[::-1]) == expected[: -len(forward[-1]["results"])]


def test_walk_over_the_bound_keeps_filters_and_search(as_alice: APIClient, ledger: list[Transaction]) -> None:
    pages = follow(as_alice, f"{LIST}?amount_min=1&search=row&page=1", "next")

    assert ids(pages) == [row.pk for row in Transaction.objects.filter(amount__gte=1)]
    [over] = [page["next"] for page in pages if page["count"] and page["next"] and "cursor=" in page["next"]]
    assert set(parse_qs(urlsplit(over).query)) == {"amount_min", "search", "cursor"}


def test_walk_over_the_bound_skips_nothing_while_rows_come_and_go(
    as_alice: APIClient, alice: User, ledger: list[Transaction]
) -> None:
    last = get(as_alice, f"{LIST}?page=3")
    shown = [row["id"] for row in last["results"]]
    behind = [row.pk for row in Transaction.objects.all()[BOUND:]]
    insert_rows(alice, 12)
    Transaction.objects.filter(pk__in=shown).delete()

    assert ids(follow(as_alice, last["next"], "next")) == behind
