"""A ledger that is longer than what is counted: pages, walks and searches, as a client of any age sees them."""

from collections.abc import Iterator
from contextlib import closing
from http import HTTPStatus
from typing import Any

import pytest

from tests.stack.containers import Stack
from tests.stack.people import Person, sign_up

LEDGER = "/api/transactions/"
ROWS = 5_000
COUNTED = 2_000


@pytest.fixture(scope="module")
def owner(base_url: str, stack: Stack) -> Iterator[Person]:
    """Somebody with 5,000 rows of as many minutes; every fourth is a coffee, the oldest a journey."""
    with closing((person := sign_up(base_url, "long")).client):
        stack.sql(
            "INSERT INTO transactions_transaction (user_id, amount, description, timestamp)"  # noqa: S608 # a name of our own
            " SELECT u.id, n % 100, 'row ' || n || CASE WHEN n % 4 = 0 THEN ' Coffee' ELSE '' END"
            f" || CASE WHEN n = {ROWS} THEN ' Zanzibar' ELSE '' END, now() - n * interval '1 minute'"
            f" FROM accounts_user u, generate_series(1, {ROWS}) n WHERE u.username = '{person.name}'"
        )
        yield person


def get(person: Person, url: str) -> Any:
    answer = person.client.get(url)
    assert answer.status_code == HTTPStatus.OK, answer.text
    return answer.json()


def walk(person: Person, url: str | None) -> Iterator[str]:
    while url:
        page = get(person, url)
        yield from (row["description"] for row in page["results"])
        url = page["next"]


def test_count_says_that_it_is_not_all(owner: Person) -> None:
    page = get(owner, LEDGER)

    assert (page["count"], page["count_is_exact"]) == (COUNTED, False)
    assert len(get(owner, f"{LEDGER}?page={COUNTED // 10}")["results"]) == 10


def test_page_too_deep_is_refused_and_points_to_the_cursor(owner: Person) -> None:
    for name, least in (("page", COUNTED // 10 + 1), ("offset", COUNTED)):
        answer = owner.client.get(f"{LEDGER}?{name}={least}")

        assert answer.status_code == HTTPStatus.BAD_REQUEST
        [message] = answer.json()[name]
        assert "cursor" in message


@pytest.mark.parametrize("start", ["?page=191", "?limit=20&offset=1900"])
def test_next_leads_over_the_bound_to_the_last_row(owner: Person, start: str) -> None:
    assert [int(text.split()[1]) for text in walk(owner, LEDGER + start)] == list(range(1901, ROWS + 1))


def test_search_finds_common_and_rare_words_and_says_when_there_are_none(owner: Person) -> None:
    common, rare, absent = (get(owner, f"{LEDGER}?search={word}") for word in ("coffee", "ZANZI", "xylophone"))

    assert [row["description"] for row in common["results"]] == [f"row {n} Coffee" for n in range(4, 44, 4)]
    assert common["count_is_exact"] is False
    assert [row["description"] for row in rare["results"]] == [f"row {ROWS} Coffee Zanzibar"]
    assert [(page["count"], page["count_is_exact"]) for page in (rare, absent)] == [(1, True), (0, True)]
    assert len(list(walk(owner, f"{LEDGER}?search=coffee"))) == ROWS // 4
