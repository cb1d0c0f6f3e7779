"""What a client that repeats, or hurries, gets through nginx from two backends: entity tags and idempotency keys."""

from http import HTTPStatus
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.stack.at_once import ROUNDS, at_once
from tests.stack.people import Person

LEDGER = "/api/transactions/"
LONG = "😀" * 255
"""The longest description, in more than the 1000 bytes from which nginx compresses (compression.conf)."""


# Entity tags ------------------------------------------------------------------------------------------------------


def read(alice: Person, path: str, **headers: str) -> httpx.Response:
    return alice.client.get(path, headers={"Accept-Encoding": "gzip", **headers})


@pytest.fixture
def path(alice: Person) -> str:
    """The path of a transaction whose answer is long enough to be compressed."""
    path = f"{LEDGER}{alice.record(LONG)['id']}/"
    assert len(read(alice, path).content) > 1000
    return path


def test_the_tag_of_a_long_transaction_is_strong_for_a_client_that_takes_compressed_answers(
    alice: Person, path: str
) -> None:
    answer = read(alice, path)

    assert answer.headers["ETag"].startswith('"'), "nginx has compressed it"
    assert "Content-Encoding" not in answer.headers
    assert answer.json()["description"] == LONG


def test_a_long_transaction_that_has_not_changed_is_not_sent_again(alice: Person, path: str) -> None:
    tag = read(alice, path).headers["ETag"]

    answer = read(alice, path, **{"If-None-Match": tag})

    assert (answer.status_code, answer.content) == (HTTPStatus.NOT_MODIFIED, b"")
    assert answer.headers["ETag"] == tag


def test_the_tag_that_was_read_is_good_for_one_change(alice: Person, path: str) -> None:
    tag = read(alice, path).headers["ETag"]

    def change(amount: str) -> httpx.Response:
        headers = {"If-Match": tag, "Accept-Encoding": "gzip"}
        return alice.client.patch(path, json={"amount": amount}, headers=headers)

    first, second = change("2.00"), change("3.00")

    assert (first.status_code, second.status_code) == (HTTPStatus.OK, HTTPStatus.PRECONDITION_FAILED)
    now = read(alice, path)
    assert now.json()["amount"] == "2.00"
    assert first.headers["ETag"] == now.headers["ETag"] != tag
    assert read(alice, path, **{"If-None-Match": tag}).status_code == HTTPStatus.OK


# Idempotency keys -------------------------------------------------------------------------------------------------


def record(client: httpx.Client, person: Person, key: str, description: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {person.access}", "Idempotency-Key": key}
    return client.post(LEDGER, json={"amount": "1.00", "description": description}, headers=headers)


def recorded(person: Person) -> list[dict[str, Any]]:
    return list(person.client.get(LEDGER).json()["results"])


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_a_key_that_is_sent_many_times_at_once_records_one_row(
    round_: int, base_url: str, alice: Person, bob: Person
) -> None:
    key = str(uuid4())

    answers = at_once(base_url, lambda client: record(client, alice, key, "Coffee"))

    (row,) = recorded(alice)
    created = [answer for answer in answers if answer.status_code == HTTPStatus.CREATED]
    assert {answer.text for answer in created} == {record(alice.client, alice, key, "Coffee").text}
    assert created[0].json() == row
    first = [answer for answer in created if "Idempotency-Replayed" not in answer.headers]
    assert len(first) == 1
    assert {answer.headers["Idempotency-Replayed"] for answer in created if answer not in first} <= {"true"}
    for answer in answers:
        if answer not in created:
            assert answer.status_code == HTTPStatus.CONFLICT, answer.text
            assert int(answer.headers["Retry-After"]) > 0

    assert record(alice.client, alice, key, "Tea").status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert recorded(alice) == [row]
    bobs = record(bob.client, bob, key, "Coffee")
    assert bobs.status_code == HTTPStatus.CREATED
    assert "Idempotency-Replayed" not in bobs.headers
    assert recorded(bob) == [bobs.json()]
