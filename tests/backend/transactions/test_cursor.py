"""``?cursor=``: walks through the list at the same cost at any depth."""

import itertools
import json
import threading
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from accounts.models import User
from transactions.models import Transaction

LIST = "/api/transactions/"
ORDERINGS = ["timestamp", "-timestamp", "amount", "-amount"]

pytestmark = pytest.mark.django_db


@pytest.fixture
def ledger(alice: User) -> list[Transaction]:
    """Return 47 rows of Alice with many equal amounts, in three groups of one moment each."""
    rows: list[Transaction] = []
    for start in (0, 16, 32):
        rows += Transaction.objects.bulk_create(
            Transaction(user=alice, amount=number % 5 - 2, description=f"{number}")
            for number in range(start, min(start + 16, 47))
        )
    return rows


def walk(client: APIClient, query: str, link: str = "next") -> Iterator[Any]:
    url = f"{LIST}?cursor=&{query}" if not query.startswith("http") else query
    while url:
        answer = client.get(url)
        assert answer.status_code == HTTPStatus.OK, answer.json()
        yield answer.json()
        url = answer.json()[link]


def ids(pages: Any) -> list[int]:
    return [row["id"] for page in pages for row in page["results"]]


def cursor_of(link: str) -> str:
    return parse_qs(urlsplit(link).query)["cursor"][0]


def encode(text: str) -> str:
    return urlsafe_b64encode(text.encode()).decode().rstrip("=")


# Walks ----------------------------------------------------------------------------------------------------------------


def test_cursor_page_has_the_envelope_of_the_others_without_a_count(
    as_alice: APIClient, ledger: list[Transaction]
) -> None:
    body = as_alice.get(f"{LIST}?cursor=").json()
    plain = as_alice.get(LIST).json()

    assert list(body) == list(plain)
    assert (body["count"], body["count_is_exact"]) == (None, False)
    assert body["results"] == plain["results"]
    assert body["previous"] is None
    assert body["next"].startswith("http://testserver/api/transactions/?cursor=")


@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("size", [1, 7, 20])
def test_walk_sees_every_row_once_in_order_and_back_again(
    as_alice: APIClient, ledger: list[Transaction], ordering: str, size: int
) -> None:
    field = ordering.removeprefix("-")
    rows = list(Transaction.objects.all())
    expected = sorted(rows, key=lambda row: (getattr(row, field), row.pk), reverse=ordering.startswith("-"))

    forward = list(walk(as_alice, f"ordering={ordering}&limit={size}"))
    backward = list(walk(as_alice, forward[-1]["previous"], "previous"))

    assert ids(forward) == [row.pk for row in expected]
    assert all(len(page["results"]) == size for page in forward[:-1])
    assert ids(reversed(backward)) == ids(forward[:-1])
    # Turning round leads to where one came from.
    assert as_alice.get(backward[0]["next"]).json()["results"] == forward[-1]["results"]
    assert backward[-1]["results"] == forward[0]["results"]


def test_walk_keeps_filters_and_search(as_alice: APIClient, ledger: list[Transaction]) -> None:
    pages = list(walk(as_alice, "ordering=amount&amount_min=0&amount_max=1&search=1&limit=3"))

    expected = [row for row in ledger if row.amount in (0, 1) and "1" in row.description]
    assert len(pages) > 1
    assert ids(pages) == [row.pk for row in sorted(expected, key=lambda row: (row.amount, row.pk))]


def test_walk_sees_the_rows_of_its_owner_only(
    as_alice: APIClient, as_bob: APIClient, ledger: list[Transaction]
) -> None:
    link = as_alice.get(f"{LIST}?cursor=").json()["next"]

    assert ids(walk(as_bob, "")) == []
    assert as_bob.get(link).json()["results"] == []


@pytest.mark.parametrize("ordering", ORDERINGS)
def test_walk_repeats_and_skips_nothing_while_rows_come_and_go(
    as_alice: APIClient, alice: User, ledger: list[Transaction], ordering: str
) -> None:
    doomed = {row.pk for row in ledger[::9]}
    seen: list[int] = []

    for number, page in enumerate(walk(as_alice, f"ordering={ordering}&limit=4")):
        seen += [row["id"] for row in page["results"]]
        for amount in (-2, 0, 2):
            if number < 20:
                Transaction.objects.create(user=alice, amount=amount, description="new")
        if number == 3:
            Transaction.objects.filter(pk__in=doomed).delete()

    staying = {row.pk for row in ledger} - doomed
    assert len(seen) == len(set(seen))
    assert staying <= set(seen)


@pytest.mark.django_db(transaction=True)
def test_walk_repeats_and_skips_nothing_while_others_write(
    alice: User, ledger: list[Transaction], sign_in: Callable[[User], APIClient]
) -> None:
    writer, walker, stop = sign_in(alice), sign_in(alice), threading.Event()

    def write() -> None:
        try:
            for number in itertools.count():
                if stop.is_set():
                    return
                writer.post(LIST, {"amount": f"{number % 7 - 3}.00", "description": "meanwhile"})
        finally:
            connection.close()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(10):
            for ordering in ("-timestamp", "amount"):
                before = set(Transaction.objects.values_list("pk", flat=True))
                seen = ids(itertools.islice(walk(walker, f"ordering={ordering}&limit=20"), 200))
                assert len(seen) == len(set(seen))
                assert before <= set(seen)
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("ordering", ORDERINGS)
def test_turning_round_on_an_empty_page_skips_nothing(
    as_alice: APIClient, ledger: list[Transaction], ordering: str
) -> None:
    pages = list(walk(as_alice, f"ordering={ordering}&limit=20"))
    beyond = [row["id"] for row in pages[2]["results"]]
    Transaction.objects.filter(pk__in=beyond).delete()

    empty = as_alice.get(pages[1]["next"]).json()
    before = as_alice.get(empty["previous"]).json()

    assert (empty["results"], empty["next"]) == ([], None)
    assert before["results"] == pages[1]["results"]

    Transaction.objects.filter(pk__in=ids(pages[:1])).delete()
    empty = as_alice.get(before["previous"]).json()
    assert (empty["results"], empty["previous"]) == ([], None)
    assert as_alice.get(empty["next"]).json()["results"] == pages[1]["results"]


def test_walk_over_nothing_is_one_empty_page(as_alice: APIClient) -> None:
    body = as_alice.get(f"{LIST}?cursor=").json()

    assert body == {"count": None, "count_is_exact": False, "next": None, "previous": None, "results": []}


# Parameters -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "size"), [("", 10), ("&limit=1", 1), ("&limit=20", 20), ("&limit=1000", 20)])
def test_cursor_page_has_ten_rows_or_up_to_twenty(
    as_alice: APIClient, ledger: list[Transaction], limit: str, size: int
) -> None:
    assert len(as_alice.get(f"{LIST}?cursor={limit}").json()["results"]) == size


@pytest.mark.parametrize("other", ["page=1", "offset=0", "limit=5&offset=5", "limit=0", "limit=x", "limit=" + "9" * 40])
def test_cursor_with_what_contradicts_it_is_refused(as_alice: APIClient, other: str) -> None:
    assert as_alice.get(f"{LIST}?cursor=&{other}").status_code == HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "!!!!",
        "=",
        " ",
        "é",
        "\x00",
        "a" * 5000,
        "9" * 40,
        encode("[" * 60),
        encode(json.dumps({"o": "-timestamp"})),
        encode("-timestamp > 1"),
        encode("-timestamp > 1 "),
        encode("-timestamp > 1 2026-01-31"),
        encode("-timestamp > 1 2026-01-31T09:30:00"),
        encode("-timestamp > 1 2026-02-30T09:30:00+00:00"),
        encode("-timestamp > 1 0000-01-01T00:00:00+00:00"),
        encode("-timestamp > 1 2026-01-31T09:30:00+00:00 "),
        encode("-timestamp > 1 2026-01-31T09:30:00+00:00\n"),
        encode("-timestamp > -1 2026-01-31T09:30:00+00:00"),
        encode(f"-timestamp > {2**63} 2026-01-31T09:30:00+00:00"),
        encode(f"-timestamp > {'9' * 40} 2026-01-31T09:30:00+00:00"),
        encode("-timestamp > \u0661 2026-01-31T09:30:00+00:00"),
        encode("-timestamp = 1 2026-01-31T09:30:00+00:00"),
        encode("-timestamp > 1 1.00"),
        encode("description > 1 1.00"),
        encode("amount > 1 1.00"),
        urlsafe_b64encode(b"\xff\xfe\xfd").decode(),
    ],
)
def test_malformed_cursor_is_refused_by_name(as_alice: APIClient, cursor: str) -> None:
    answer = as_alice.get(LIST, {"cursor": cursor})

    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert list(answer.json()) == ["cursor"]


@pytest.mark.parametrize(
    "text", ["amount > 1 NaN", "amount > 1 1e5", "amount > 1 \u0661.00", "amount > 1 1", "amount > 1 "]
)
def test_malformed_amount_cursor_is_refused(as_alice: APIClient, text: str) -> None:
    assert as_alice.get(f"{LIST}?ordering=amount&cursor={encode(text)}").status_code == HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize(
    "text",
    [
        "-timestamp > 0 0001-01-01T00:00:00+00:00",
        "-timestamp < 0 9999-12-31T23:59:59.999999+00:00",
        f"-timestamp < {2**63 - 1} 2026-01-31T09:30:00+00:00",
        f"-timestamp > {2**63 - 1} 9999-12-31T23:59:59.999999+00:00",
    ],
)
def test_extreme_cursor_is_a_position_like_any_other(as_alice: APIClient, ledger: list[Transaction], text: str) -> None:
    body = as_alice.get(f"{LIST}?cursor={encode(text)}").json()

    for link in (body["next"], body["previous"]):
        assert link is None or as_alice.get(link).status_code == HTTPStatus.OK


@pytest.mark.parametrize(("made_with", "used_with"), list(itertools.permutations(ORDERINGS, 2)))
def test_cursor_of_another_ordering_is_refused_and_names_its_own(
    as_alice: APIClient, ledger: list[Transaction], made_with: str, used_with: str
) -> None:
    cursor = cursor_of(as_alice.get(f"{LIST}?cursor=&ordering={made_with}").json()["next"])

    answer = as_alice.get(LIST, {"cursor": cursor, "ordering": used_with})

    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert f"ordering={made_with};" in answer.json()["cursor"][0]


# Cost -----------------------------------------------------------------------------------------------------------------


def test_cursor_page_counts_nothing(as_alice: APIClient, ledger: list[Transaction]) -> None:
    link = as_alice.get(f"{LIST}?cursor=").json()["next"]
    for url, number in ((f"{LIST}?cursor=", 2), (link, 2), (f"{LIST}?page=1", 3)):
        with CaptureQueriesContext(connection) as captured:
            as_alice.get(url)

        statements = [query["sql"] for query in captured]
        assert len(statements) == number, statements
        assert any("COUNT(" in sql for sql in statements) == (number == 3)


@pytest.mark.parametrize(
    ("ordering", "index"),
    [
        ("-timestamp", "transaction_newest_first"),
        ("timestamp", "transaction_newest_first"),
        ("amount", "transaction_by_amount"),
        ("-amount", "transaction_by_amount"),
    ],
)
@pytest.mark.parametrize("way", ["next", "previous"])
def test_deep_page_reads_its_own_rows_from_the_index_and_no_others(
    as_alice: APIClient, alice: User, bob: User, ordering: str, index: str, way: str
) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO transactions_transaction (user_id, amount, description, timestamp)"
            " SELECT owner, n %% 500, 'x', now() - n * interval '1 minute'"
            " FROM generate_series(1, 5000) AS n, unnest(%s) AS owner",
            [[alice.pk, bob.pk]],
        )
        cursor.execute("ANALYZE transactions_transaction")
    pages = walk(as_alice, f"ordering={ordering}&limit=20")
    *_, deep = itertools.islice(pages, 100)

    with CaptureQueriesContext(connection) as captured:
        as_alice.get(deep[way])
    [sql] = [query["sql"] for query in captured if "transactions_transaction" in query["sql"]]
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}")  # Django's own SQL, as it was sent
        plan = json.dumps(cursor.fetchone()[0])

    node = json.loads(plan)[0]["Plan"]["Plans"][0]
    assert node["Index Name"] == index
    assert "ROW(" in node["Index Cond"]
    assert "user_id" in node["Index Cond"]
    assert "Filter" not in node
    assert node["Actual Rows"] == 21
    assert node["Shared Hit Blocks"] + node["Shared Read Blocks"] < 60
