"""Pages, order and search of the list."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from django.db import connection
from django.db.models.functions import Now
from rest_framework.test import APIClient

from accounts.models import User
from transactions.models import Transaction

pytestmark = pytest.mark.django_db

LIST = "/api/transactions/"


def record(owner: User, descriptions: Iterable[str]) -> list[Transaction]:
    return Transaction.objects.bulk_create(Transaction(user=owner, amount=1, description=text) for text in descriptions)


def numbers(response: Any) -> list[int]:
    return [int(row["description"]) for row in response.json()["results"]]


@pytest.fixture
def thirty(alice: User) -> list[Transaction]:
    """Return thirty rows of Alice, numbered 0 to 29, all of one moment."""
    return record(alice, map(str, range(30)))


# Order ----------------------------------------------------------------------------------------------------------------


def test_list_is_newest_first(as_alice: APIClient, alice: User) -> None:
    for text in ("1", "2", "3"):
        Transaction.objects.create(user=alice, amount=1, description=text)
    Transaction.objects.filter(description="1").update(timestamp=Now())

    assert numbers(as_alice.get(LIST)) == [1, 3, 2]


def test_list_settles_ties_by_id_so_that_pages_repeat_and_skip_nothing(
    as_alice: APIClient, thirty: list[Transaction]
) -> None:
    assert len({row.timestamp for row in Transaction.objects.all()}) == 1
    with connection.cursor() as cursor:
        # The index would give the right order by accident.
        cursor.execute("SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off")

    seen = [number for page in (1, 2, 3) for number in numbers(as_alice.get(f"{LIST}?page={page}"))]

    assert seen == list(range(29, -1, -1))


# Pages ----------------------------------------------------------------------------------------------------------------


def test_list_has_pages_of_ten(as_alice: APIClient, thirty: list[Transaction]) -> None:
    body = as_alice.get(LIST).json()

    assert set(body) == {"count", "count_is_exact", "next", "previous", "results"}
    assert (body["count"], body["count_is_exact"]) == (30, True)
    assert len(body["results"]) == 10
    assert body["previous"] is None
    assert body["next"] == "http://testserver/api/transactions/?page=2"


def test_list_links_lead_through_every_page_and_back(as_alice: APIClient, thirty: list[Transaction]) -> None:
    url, forward = LIST, []
    while url:
        body = as_alice.get(url).json()
        forward.append([row["id"] for row in body["results"]])
        last, url = url, body["next"]

    url, backward = last, []
    while url:
        body = as_alice.get(url).json()
        backward.append([row["id"] for row in body["results"]])
        url = body["previous"]

    assert [number for page in forward for number in page] == [row.pk for row in reversed(thirty)]
    assert backward == forward[::-1]


def test_list_links_keep_the_search(as_alice: APIClient, alice: User) -> None:
    record(alice, [f"100% \u00e4 {n}" for n in range(12)])

    link = as_alice.get(f"{LIST}?search={quote('100% ä')}").json()["next"]

    assert parse_qs(urlsplit(link).query) == {"page": ["2"], "search": ["100% ä"]}
    assert len(as_alice.get(link).json()["results"]) == 2


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "?page=2"),
        ("?", "?page=2"),
        ("?search=1", "?page=2&search=1"),
        ("?page=1", "?page=2"),
        ("?limit=5", "?limit=5&offset=5"),
    ],
)
def test_list_links_have_the_scheme_and_host_that_nginx_saw(
    as_alice: APIClient, thirty: list[Transaction], query: str, expected: str
) -> None:
    headers = {
        "Host": "testserver",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Port": "1",
    }

    body = as_alice.get(f"{LIST}{query}", headers=headers).json()

    assert body["next"] == f"https://testserver/api/transactions/{expected}"


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?limit=3", range(29, 26, -1)),
        ("?limit=3&offset=4", range(25, 22, -1)),
        ("?offset=0", range(29, 24, -1)),
        ("?offset=10", range(19, 14, -1)),
        ("?limit=20", range(29, 9, -1)),
        ("?limit=21", range(29, 9, -1)),
        ("?limit=1000000", range(29, 9, -1)),
        ("?limit=5&offset=28", range(1, -1, -1)),
        ("?limit=5&offset=30", range(0)),
        ("?limit=5&offset=2147483647", range(0)),
        ("?page=3", range(9, -1, -1)),
        ("?page=01", range(29, 19, -1)),
    ],
)
def test_list_by_limit_and_offset_or_page(
    as_alice: APIClient, thirty: list[Transaction], query: str, expected: range
) -> None:
    response = as_alice.get(LIST + query)

    assert response.status_code == HTTPStatus.OK
    assert response.json()["count"] == 30
    assert numbers(response) == list(expected)


def test_list_by_offset_has_links(as_alice: APIClient, thirty: list[Transaction]) -> None:
    body = as_alice.get(f"{LIST}?offset=10").json()

    assert body["next"] == "http://testserver/api/transactions/?limit=5&offset=15"
    assert body["previous"] == "http://testserver/api/transactions/?limit=5&offset=5"


@pytest.mark.parametrize(
    "query", ["?page=1&limit=5", "?page=1&offset=5", "?page=1&limit=5&offset=5", "?page=x&limit=x"]
)
def test_list_refuses_page_together_with_limit_or_offset(as_alice: APIClient, query: str) -> None:
    response = as_alice.get(LIST + query)

    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert response.json() == {"page": ["Give either page, or limit and offset."]}


NO_NUMBERS = [
    "-1", "abc", "", "1.0", "1e3", "+1", " 1", "1 ", "0x1", "1_0", "9" * 11, "9" * 40, "9" * 5000, "2147483648",
    "\u0661", "\uff11", "\u00b2", "\x00", "1\n", "last", "null", "[]", "1,2",
]  # fmt: skip


@pytest.mark.parametrize("value", NO_NUMBERS, ids=ascii)
@pytest.mark.parametrize("name", ["page", "limit", "offset"])
def test_list_names_a_parameter_that_is_no_number(
    as_alice: APIClient, thirty: list[Transaction], name: str, value: str
) -> None:
    response = as_alice.get(f"{LIST}?{name}={quote(value)}")

    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert list(response.json()) == [name]
    assert "2147483647" in str(response.json()[name])


@pytest.mark.parametrize("name", ["page", "limit"])
def test_list_counts_from_one(as_alice: APIClient, thirty: list[Transaction], name: str) -> None:
    response = as_alice.get(f"{LIST}?{name}=0")

    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert list(response.json()) == [name]


@pytest.mark.parametrize("page", ["4", "2147483647"])
def test_list_beyond_its_end_answers_404(as_alice: APIClient, thirty: list[Transaction], page: str) -> None:
    response = as_alice.get(f"{LIST}?page={page}")

    assert response.status_code == HTTPStatus.NOT_FOUND
    assert response.json() == {"detail": "Invalid page."}


# Search ---------------------------------------------------------------------------------------------------------------

DESCRIPTIONS = ["Coffee", "coffee beans", "100% wool", "100 wool", "snake_case", "snakeXcase", "back\\slash", "ÄPFEL",
                'say "cheese"', "it's", "a,b"]  # fmt: skip


@pytest.mark.parametrize(
    ("search", "found"),
    [
        ("COFFEE", {"Coffee", "coffee beans"}),
        ("offe", {"Coffee", "coffee beans"}),
        ("beans coffee", {"coffee beans"}),
        ('"coffee beans"', {"coffee beans"}),
        ('"beans coffee"', set()),
        ("%", {"100% wool"}),
        ("100%", {"100% wool"}),
        ("_", {"snake_case"}),
        ("snake_case", {"snake_case"}),
        ("\\", {"back\\slash"}),
        ("\\%", set()),
        ("äpfel", {"ÄPFEL"}),
        ("'", {"it's"}),
        ("it's", {"it's"}),
        ("it's coffee", set()),
        ('"', {'say "cheese"'}),
        ('"cheese', {'say "cheese"'}),
        ("a,b", {"a,b"}),
        ("b,a", set()),
        ("'; DROP TABLE transactions_transaction; --", set()),
        ("", set(DESCRIPTIONS)),
        ("   ", set(DESCRIPTIONS)),
        ("tea", set()),
        ("\ud7ff", set()),
    ],
    ids=lambda value: ascii(value) if isinstance(value, str) else len(value),
)
def test_search_finds_literally_and_in_any_case(as_alice: APIClient, alice: User, search: str, found: set[str]) -> None:
    record(alice, DESCRIPTIONS)

    response = as_alice.get(f"{LIST}?limit=20&search={quote(search)}")

    assert response.status_code == HTTPStatus.OK
    assert {row["description"] for row in response.json()["results"]} == found
    assert response.json()["count"] == len(found)


def test_search_looks_at_descriptions_only(as_alice: APIClient, coffee: Transaction) -> None:
    for search in ("alice", "-3.20", "2"):
        assert as_alice.get(f"{LIST}?search={search}").json()["count"] == 0


@pytest.mark.parametrize(
    "search",
    ["nul\x00", "x" * 201, " ".join("abcdefghijk"), "\x00"],
    ids=["NUL", "too long", "too many words", "NUL alone"],
)
def test_search_names_what_it_refuses(as_alice: APIClient, search: str) -> None:
    response = as_alice.get(f"{LIST}?search={quote(search)}")

    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert list(response.json()) == ["search"]


@pytest.mark.parametrize("search", ["x" * 200, " ".join("abcdefghij"), '"', '"""', "'\"'", "%00", "%ED%A0%80", "%FF"])
def test_search_takes_what_is_odd_but_bounded(as_alice: APIClient, search: str) -> None:
    quoted = search if search.startswith("%") and search != "%00" else quote(search)

    assert as_alice.get(f"{LIST}?search={quoted}").status_code == HTTPStatus.OK
