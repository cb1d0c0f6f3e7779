"""Searching a long ledger: what is found, what it costs, and that both hold for common and for rare words."""

import json
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.test import APIClient, APIRequestFactory

from accounts.models import User
from tests.backend.tokens import new_session
from tests.backend.transactions.plans import fill, nodes_of, plans_of, register, rows_read
from transactions import counts, search
from transactions.filters import DescriptionSearchFilter
from transactions.models import Transaction
from transactions.search import ENOUGH
from transactions.serializers import TransactionSerializer
from transactions.statements import look_statement, search_first_page

LIST = "/api/transactions/"
ORDERINGS = ["timestamp", "-timestamp", "amount", "-amount"]

pytestmark = pytest.mark.django_db


def get(client: APIClient, url: str) -> Any:
    answer = client.get(url)
    assert answer.status_code == HTTPStatus.OK, answer.json()
    return answer.json()


def walk(client: APIClient, url: str | None) -> list[Any]:
    pages = []
    while url:
        pages.append(get(client, url))
        url = pages[-1]["next"]
    return pages


def ids(pages: list[Any]) -> list[int]:
    return [row["id"] for page in pages for row in page["results"]]


# Cost -----------------------------------------------------------------------------------------------------------------

ROWS = 10_000
LOOKED_AT = 100
DESCRIPTIONS = """
    'row ' || n || CASE WHEN n % 4 = 0 THEN ' Coffee' ELSE '' END || CASE WHEN n % 17 = 1 THEN ' Rent' ELSE '' END
    || CASE WHEN n % 3000 = 2999 THEN ' Zanzibar' ELSE '' END || CASE WHEN n = 9500 THEN ' %q' ELSE '' END
""".replace("%", "%%")


@pytest.fixture
def ledgers(alice: User, bob: User, admin: User, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give three people ledgers that are long beside what is looked at, with common words and rare ones."""
    fill([alice, bob, admin], ROWS, DESCRIPTIONS)
    monkeypatch.setattr(counts, "COUNTED_ROWS", LOOKED_AT)


@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("paging", ["", "&limit=20", "&cursor="])
def test_each_word_is_searched_the_way_that_is_cheap_for_it(
    as_alice: APIClient, ledgers: None, ordering: str, paging: str
) -> None:
    index = "transaction_newest_first" if "timestamp" in ordering else "transaction_by_amount"
    for word, found in (("coffee", 10), ("ent", 10), ("zanzibar", 3), ("xylophone", 0)):
        body, plans = plans_of(as_alice, f"{LIST}?ordering={ordering}{paging}&search={word}")

        assert len(body["results"]) >= found
        looks = plans[: 2 if word == "ent" else 1]
        for look, farther in zip(looks, (1, search.FARTHER), strict=False):
            assert look["Index Name"] == index
            assert rows_read(look) == LOOKED_AT * farther + 1
        assert 1 <= len(plans[len(looks) :]) <= 2
        for plan in plans[len(looks) :]:
            if word in ("coffee", "ent"):
                assert rows_read(plan) == len(body["results"])
            else:
                assert plan["Node Type"] == "Bitmap Heap Scan"
                assert plan["Plans"][0]["Index Name"] == "transaction_search"
                assert rows_read(plan) <= found


@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("paging", ["&page=2", "&limit=20", "&cursor="])
def test_a_search_among_equals_reads_no_more_than_was_looked_at(
    as_alice: APIClient, ledgers: None, ordering: str, paging: str
) -> None:
    """Most of what an account records may be one amount, and what was imported at once have one time."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE transactions_transaction SET amount = 4.99, timestamp = now()")
        cursor.execute("ANALYZE transactions_transaction")

    body, plans = plans_of(as_alice, f"{LIST}?ordering={ordering}{paging}&search=coffee")

    assert len(body["results"]) >= 10
    assert len(plans) == 2
    assert all(rows_read(plan) <= LOOKED_AT + 1 for plan in plans)


def test_first_page_of_a_search_is_read_the_way_that_is_cheap_for_its_words(as_alice: APIClient, ledgers: None) -> None:
    for word, found, by_index in (("coffee", 10, 0), ("zanzibar", 3, 2), ("xylophone", 0, 1)):
        with CaptureQueriesContext(connection) as captured:
            body = get(as_alice, f"{LIST}?search={word}")

        assert len(body["results"]) == found
        assert len(captured) == (2 if by_index else 1)
        nodes = [node for query in captured for node in nodes_of(query["sql"]) if node["Actual Loops"]]
        assert [node.get("Index Name") for node in nodes].count("transaction_search") == by_index
        read: Counter[str] = Counter()
        for node in nodes:
            if node.get("Relation Name") == "transactions_transaction":
                read[node.get("Index Name") or node["Plans"][0]["Index Name"]] += rows_read(node) * node["Actual Loops"]
        assert +read == +Counter(
            transaction_newest_first=LOOKED_AT + 1,
            transactions_transaction_pkey=10 if word == "coffee" else 0,
            transaction_search=0 if word == "coffee" else 2 * found,
        )


@pytest.mark.parametrize("word", ["coffee", "ent", "zanzibar", "xylophone", "row", "coffee+rent"])
def test_first_page_of_a_search_is_the_same_by_its_number(as_alice: APIClient, ledgers: None, word: str) -> None:
    # The ids of these rows rise where their time falls: one does not stand for the other.
    assert get(as_alice, f"{LIST}?search={word}") == get(as_alice, f"{LIST}?page=1&search={word}")


def test_plan_for_any_account_reads_a_long_ledger_in_its_order(alice: User) -> None:
    """It is made from what an account has on average, which is little: then to sort all of it looks cheaper."""
    statement = look_statement(size=10, looked_at=LOOKED_AT + 1, words=1) % {
        "session": "$1::uuid",
        "account": "$2::bigint",
        "now": "$3::timestamptz",
        "noted_before": "$4::timestamptz",
        "pattern_0": "$5",
    }
    register(400)
    with connection.cursor() as cursor:
        # What other tests have left to be removed would make the table look larger.
        cursor.execute("TRUNCATE transactions_transaction")
        cursor.execute(f"PREPARE look AS {statement}")
        cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
    fill(list(User.objects.exclude(pk=alice.pk)), LOOKED_AT // 3)
    fill([alice], ROWS)

    session = new_session(alice)["sid"]
    nodes = nodes_of(f"EXECUTE look ('{session}', {alice.pk}, now(), now(), '%coffee%')")

    [look] = [node for node in nodes if node.get("Alias") == "transactions_transaction_1"]  # of two
    assert look["Index Name"] == "transaction_newest_first"
    assert rows_read(look) == LOOKED_AT + 1


def test_count_of_a_common_word_is_of_what_was_looked_at_and_of_a_rare_one_exact(
    as_alice: APIClient, ledgers: None
) -> None:
    pages = {word: get(as_alice, f"{LIST}?search={word}") for word in ("coffee", "zanzibar", "xylophone")}

    assert {word: (page["count"], page["count_is_exact"]) for word, page in pages.items()} == {
        "coffee": (LOOKED_AT // 4, False),
        "zanzibar": (3, True),
        "xylophone": (0, True),
    }


def rows_with(ids: list[int]) -> Any:
    return Transaction.objects.filter(pk__in=ids)


def record() -> None:
    Transaction.objects.create(user=User.objects.get(username="alice"), amount=1, description="new")


COMMON = "cursor=&ordering=amount&search=coffee"
"""The page is among the rows of the first look."""
RARE = ("cursor=&search=zq", "cursor=&amount_min=900", "page=1&amount_min=900")
"""The page stops behind the rows of the second look; the last of them is found, and so are those behind it."""


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("query", "change"),
    [
        pytest.param(COMMON, lambda _, found: rows_with(found[3:9]).delete(), id="of the page: deleted"),
        pytest.param(COMMON, lambda _, found: rows_with(found[9:10]).update(amount=99), id="of the page: moved"),
        pytest.param(
            COMMON, lambda _, found: rows_with(found[9:10]).update(description="tea"), id="of the page: renamed"
        ),
        *(
            pytest.param(query, lambda rows, _: rows_with(rows[10:13]).delete(), id=f"before: {query}")
            for query in RARE
        ),
        *(pytest.param(query, lambda rows, _: rows_with(rows[500:]).delete(), id=f"behind: {query}") for query in RARE),
        *(pytest.param(query, lambda *_: record(), id=f"added: {query}") for query in RARE),
    ],
)
def test_a_page_is_of_one_moment_and_the_next_one_goes_on_from_there(
    as_alice: APIClient,
    alice: User,
    monkeypatch: pytest.MonkeyPatch,
    query: str,
    change: Callable[[list[int], list[int]], object],
) -> None:
    """Rows change after the look at the list, before the page is read, or the row behind which the next one begins."""
    monkeypatch.setattr(counts, "COUNTED_ROWS", LOOKED_AT)
    fill([alice], LOOKED_AT * search.FARTHER + 200, DESCRIPTIONS)
    rows = list(Transaction.objects.values_list("pk", flat=True))
    rows_with(rows[1000:1004]).update(description="zq")
    rows_with(rows[1000:]).update(amount=950)
    sought = Transaction.objects.filter(description__icontains="zq")
    if query == COMMON:
        sought = Transaction.objects.filter(description__icontains="coffee").order_by("amount", "pk")
    elif "amount_min" in query:
        sought = Transaction.objects.filter(amount__gte=900)
    versions = dict(sought.values_list("pk", "version"))
    looks_before, size = (1, 10) if query == COMMON else (2, 1)
    shown = list(sought.values("id", "description")[:size])
    looks = 0

    def elsewhere() -> None:
        try:
            change(rows, list(versions))
        finally:
            connection.close()

    def in_between(execute: Any, sql: str, *rest: Any) -> Any:
        nonlocal looks
        result = execute(sql, *rest)
        if "ARRAY_AGG" in sql:
            looks += 1
            if looks == looks_before:
                with ThreadPoolExecutor(1) as other:
                    other.submit(elsewhere).result()
        return result

    with connection.execute_wrapper(in_between):
        first = get(as_alice, f"{LIST}?{query}")
    seen = ids([first, *walk(as_alice, first["next"])])

    assert looks == looks_before
    assert [{name: row[name] for name in ("id", "description")} for row in first["results"]] == shown
    stayed = [pk for pk, version in sought.values_list("pk", "version") if versions.get(pk) == version]
    assert [pk for pk in seen if pk in stayed] == stayed


@pytest.mark.django_db(transaction=True)
def test_a_page_that_waits_for_a_table_that_is_rewritten_finds_its_rows(as_alice: APIClient, alice: User) -> None:
    fill([alice], 30, DESCRIPTIONS)
    is_locked = threading.Event()

    def rewrite() -> None:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("ALTER TABLE transactions_transaction ALTER amount TYPE numeric(10, 2) USING amount + 0")
                is_locked.set()
                waiting = 0
                while not waiting:
                    cursor.execute(
                        "SELECT count(*) FROM pg_locks"
                        " WHERE NOT granted AND relation = 'transactions_transaction'::regclass"
                    )
                    [waiting] = cursor.fetchone()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as other:
        rewriting = other.submit(rewrite)
        assert is_locked.wait(10)
        page = get(as_alice, f"{LIST}?search=coffee&ordering=amount")
        rewriting.result(timeout=10)

    assert page["count"] == 7


def state_of_connection() -> tuple[Any, ...]:
    """Return what a transaction could have left behind: how the next one begins, and which statements are prepared."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only'),"
            " (SELECT array_agg(name ORDER BY name) FROM pg_prepared_statements)"
        )
        return (connection.get_autocommit(), *cursor.fetchone())


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("search=coffee&page=2", HTTPStatus.NOT_FOUND),
        ("amount_min=1&cursor=x", HTTPStatus.BAD_REQUEST),
        ("search=coffee&ordering=amount", HTTPStatus.SERVICE_UNAVAILABLE),
    ],
)
def test_a_page_that_cannot_be_made_leaves_the_connection_as_it_was(
    as_alice: APIClient, alice: User, query: str, status: HTTPStatus
) -> None:
    fill([alice], 30, DESCRIPTIONS)
    get(as_alice, LIST)  # by a prepared statement
    before = state_of_connection()

    def in_between(execute: Any, sql: str, *rest: Any) -> Any:
        if "ARRAY_AGG" in sql and status == HTTPStatus.SERVICE_UNAVAILABLE:
            with connection.cursor() as cursor:
                cursor.execute("SET LOCAL statement_timeout = 1")
                cursor.execute("SELECT pg_sleep(10)")
        return execute(sql, *rest)

    with connection.execute_wrapper(in_between):
        refused = as_alice.get(f"{LIST}?{query}")
    after = state_of_connection()

    assert refused.status_code == status
    assert before[:3] == after[:3] == (True, "read committed", "off")
    assert before[3]
    if status < HTTPStatus.INTERNAL_SERVER_ERROR:
        assert set(before[3]) <= set(after[3] or ())
    recorded = as_alice.post(LIST, {"amount": "1.00", "description": "after"})
    assert recorded.status_code == HTTPStatus.CREATED


def test_page_of_a_common_word_beyond_what_was_looked_at_is_refused_and_next_leads_on(
    as_alice: APIClient, ledgers: None
) -> None:
    refused = as_alice.get(f"{LIST}?search=coffee&page=3")
    last = get(as_alice, f"{LIST}?search=coffee&page=2")
    after = get(as_alice, last["next"])

    assert refused.status_code == HTTPStatus.BAD_REQUEST
    assert refused.json()["page"][0].startswith("Give at most 2.")
    assert [row["description"] for row in (*last["results"], *after["results"])] == [
        f"row {n} Coffee{' Rent' if n % 17 == 1 else ''}" for n in range(44, 124, 4)
    ]


@pytest.mark.parametrize("word", ["%q", "%", "q"])
def test_letters_that_are_rare_in_a_long_ledger_are_found_by_cursor_alone(
    as_alice: APIClient, ledgers: None, word: str
) -> None:
    refused, plans = plans_of(as_alice, f"{LIST}?search={quote(word)}")
    pages = walk(as_alice, f"{LIST}?search={quote(word)}&cursor=")

    assert list(refused) == ["search"]
    assert all(part in refused["search"][0] for part in ("three letters", "cursor"))
    assert plans
    assert all(rows_read(plan) <= LOOKED_AT * search.FARTHER + 1 for plan in plans)
    assert [row["description"] for page in pages for row in page["results"]] == ["row 9500 Coffee %q"]
    assert [len(page["results"]) for page in pages] == [0] * 9 + [1]
    assert ids(walk(as_alice, pages[-1]["previous"])) == ids(pages)


def test_index_is_not_estimated_from_the_words_of_others(ledgers: None) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stats WHERE tablename = 'transaction_search'")
        assert cursor.fetchone() == (0,)


# What is found --------------------------------------------------------------------------------------------------------

# Letters whose cases are not one to one, combining ones, and what means something to LIKE or to a text search.
LETTERS = "abABcC %_\\'\"&|!:*()<->ıİiIßẞſsSéÉe\u0301σςΣǆǅﬁ😀\t"  # noqa: RUF001
TEXTS = st.text(st.sampled_from(LETTERS), min_size=1, max_size=30)
WORDS = st.text(st.sampled_from(LETTERS.replace(" ", "").replace("\t", "")), min_size=1, max_size=4)


@st.composite
def ledgers_and_words(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    """Draw descriptions, and words of which many are parts of them."""
    descriptions = draw(st.lists(TEXTS, min_size=1, max_size=12))
    words = []
    for _ in range(draw(st.integers(1, 2))):
        text = draw(st.sampled_from(descriptions))
        start = draw(st.integers(0, len(text) - 1))
        part = text[start : start + draw(st.integers(1, 8))]
        words.append(draw(st.sampled_from([part, part.swapcase(), part.upper(), draw(WORDS)])))
    return descriptions, words


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=ledgers_and_words(), reach=st.sampled_from([1, 3, 100]), ordering=st.sampled_from(ORDERINGS))
def test_search_finds_on_every_way_what_a_plain_filter_finds(
    alice: User, bob: User, drawn: tuple[list[str], list[str]], reach: int, ordering: str
) -> None:
    descriptions, words = drawn
    Transaction.objects.all().delete()
    for owner in (alice, bob):
        Transaction.objects.bulk_create(
            Transaction(user=owner, amount=n % 3, description=text) for n, text in enumerate(descriptions)
        )
    rows: Any = Transaction.objects.filter(user=alice).order_by(ordering, f"{'-' if ordering[0] == '-' else ''}id")
    plain = rows.all()
    for word in words:
        plain = plain.filter(description__icontains=word)
    found = rows.search_for(words, owner=alice)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "COUNTED_ROWS", reach)
        assert found.search is not None
        for direction in (rows, rows.reverse()):
            pages = found.search.find(direction)
            expected = list(plain if direction is rows else plain.reverse())
            number = len(expected) if pages.stopped_at is None else len(pages.hits or ())
            assert pages.read(0, ENOUGH) == (expected[:number], False)
            for start in range(number):
                assert pages.read(start, 2) == (expected[start : start + 2][: number - start], start + 2 < number)
    assert list(found) == list(plain)
    ascii_only = all(text.isascii() for text in (*descriptions, *words))
    if ascii_only:
        assert {row.description for row in plain} == {
            text for text in descriptions if all(word.lower() in text.lower() for word in words)
        }


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=ledgers_and_words(), reach=st.sampled_from([1, 3, 30, 100]), farther=st.sampled_from([2, 21]))
@example(drawn=(["a%c", "a_c", "a\\c", "abc"], ["a%c"]), reach=100, farther=2)
@example(drawn=(["a%c", "a_c", "a\\c", "abc"], ["a_c"]), reach=3, farther=2)
@example(drawn=(["a%c", "a_c", "a\\c", "abc"], ["a\\c"]), reach=3, farther=2)
def test_first_page_by_statement_is_that_of_the_orm(
    alice: User, bob: User, drawn: tuple[list[str], list[str]], reach: int, farther: int
) -> None:
    descriptions, words = drawn
    Transaction.objects.all().delete()
    for owner in (bob, alice, bob):
        Transaction.objects.bulk_create(
            Transaction(user=owner, amount=n % 3, description=text) for n, text in enumerate(descriptions * 8)
        )
    sought = search.Search(Transaction.objects.filter(user=alice), words=words, owner=alice.pk)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "COUNTED_ROWS", reach)
        patch.setattr(search, "FARTHER", farther)
        page = search_first_page(token=new_session(alice).access_token, words=words, size=10)
        with CaptureQueriesContext(connection) as captured:
            found = sought.find(sought.rows)
        looked_once = len(captured) == 1
        assert (page is not None) == looked_once
        if page is not None:
            assert page[0] == found.counted()
            assert page[1] == json.loads(
                JSONRenderer().render(TransactionSerializer(found.read(0, 10)[0], many=True).data)
            )


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=ledgers_and_words(), start=st.sampled_from(["cursor=", "limit=3", "page=1"]))
def test_walk_through_a_search_sees_every_row_that_a_plain_filter_finds(
    as_alice: APIClient, alice: User, drawn: tuple[list[str], list[str]], start: str
) -> None:
    descriptions, words = drawn
    Transaction.objects.all().delete()
    Transaction.objects.bulk_create(
        Transaction(user=alice, amount=n % 3, description=text)
        for n, text in enumerate(text for text in descriptions for _ in range(7))
    )
    sought = " ".join(words)
    plain = Transaction.objects.all()
    for word in words_of(sought):
        plain = plain.filter(description__icontains=word)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "COUNTED_ROWS", 22)
        patch.setattr(search, "FARTHER", 2)
        first = as_alice.get(f"{LIST}?{start}&search={quote(sought)}")
        if first.status_code == HTTPStatus.BAD_REQUEST:
            assert list(first.json()) == ["search"]
            start = "cursor="
        pages = walk(as_alice, f"{LIST}?{start}&search={quote(sought)}")

    assert ids(pages) == [row.pk for row in plain]


def words_of(text: str) -> list[str]:
    """Return the words as the filter takes them from the parameter."""
    return DescriptionSearchFilter().get_search_terms(Request(APIRequestFactory().get("/", {"search": text})))
