"""``Idempotency-Key``: one key, one row, one answer, whatever happens in between."""

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any

import pytest
from django.db import connection, transaction
from django.db.models.functions import Now
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from accounts.models import User
from config import upkeep
from tests.backend.removal import while_removing
from transactions import idempotency
from transactions.models import IdempotencyRecord, Transaction
from transactions.views import TransactionViewSet

from .at_once import at_once

LIST = "/api/transactions/"
COFFEE = {"amount": "-3.20", "description": "Coffee"}
TEA = {"amount": "-2.80", "description": "Tea"}

pytestmark = pytest.mark.django_db


def record(client: APIClient, key: str, body: Any = COFFEE) -> Any:
    return client.post(LIST, body, headers={"Idempotency-Key": key})


# The first answer, again ----------------------------------------------------------------------------------------------


def test_key_and_body_that_come_again_get_the_first_answer_and_record_nothing(as_alice: APIClient) -> None:
    first = record(as_alice, "k")
    second = record(as_alice, "k")

    assert (first.status_code, second.status_code) == (HTTPStatus.CREATED, HTTPStatus.CREATED)
    assert first.content == second.content
    assert Transaction.objects.count() == 1
    for name in ("ETag", "Location", "Content-Type"):
        assert first[name] == second[name]
    assert first["Location"] == f"{LIST}{first.json()['id']}/"
    assert as_alice.get(first["Location"]).json() == first.json()
    assert "Idempotency-Replayed" not in first
    assert second["Idempotency-Replayed"] == "true"


def test_key_gets_the_first_answer_although_the_row_has_changed_or_gone(as_alice: APIClient) -> None:
    first = record(as_alice, "k")
    as_alice.patch(first["Location"], TEA)
    changed = record(as_alice, "k")
    as_alice.delete(first["Location"])
    deleted = record(as_alice, "k")

    assert first.content == changed.content == deleted.content
    assert first["ETag"] == changed["ETag"] == deleted["ETag"]
    assert not Transaction.objects.exists()


def test_answer_with_a_key_is_the_answer_without_one(as_alice: APIClient) -> None:
    keyed, plain = record(as_alice, "k"), as_alice.post(LIST, COFFEE)

    assert keyed["Content-Type"] == plain["Content-Type"]
    assert {**keyed.json(), "id": 0, "timestamp": ""} == {**plain.json(), "id": 0, "timestamp": ""}
    assert set(keyed.headers) == set(plain.headers)


@pytest.mark.parametrize(
    "same",
    [
        '{"description":"Coffee","amount":"-3.20"}',
        ' { "amount" : "-3.20" ,\n "description" : "Coffee" } ',
        '{"amount": "-3.20", "description": "\\u0043offee"}',
    ],
)
def test_body_is_the_same_however_its_json_is_written(as_alice: APIClient, same: str) -> None:
    record(as_alice, "k")

    again = as_alice.post(LIST, same, content_type="application/json", headers={"Idempotency-Key": "k"})

    assert again["Idempotency-Replayed"] == "true"


def test_different_keys_record_different_rows(as_alice: APIClient) -> None:
    for key in ("a", "A", '"a"', "a;b", "é".encode().hex(), "k" * 255):
        assert record(as_alice, key).status_code == HTTPStatus.CREATED

    assert Transaction.objects.count() == 6


def test_requests_without_a_key_record_each_time(as_alice: APIClient) -> None:
    as_alice.post(LIST, COFFEE)
    as_alice.post(LIST, COFFEE)

    assert Transaction.objects.count() == 2
    assert not IdempotencyRecord.objects.exists()


def test_number_and_text_are_different_bodies(as_alice: APIClient) -> None:
    def send(amount: str) -> Any:
        body = f'{{"amount": {amount}, "description": "Coffee"}}'
        return as_alice.post(LIST, body, content_type="application/json", headers={"Idempotency-Key": "k"})

    assert send("1.5").status_code == HTTPStatus.CREATED
    assert send('"1.5"').status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert send("1.50").status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert send("1.5")["Idempotency-Replayed"] == "true"


# What a key does not do -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [TEA, {**COFFEE, "amount": "-3.21"}, {}, [], {**COFFEE, "extra": 1}])
def test_key_with_another_body_is_refused_and_records_nothing(as_alice: APIClient, other: Any) -> None:
    record(as_alice, "k")

    answer = record(as_alice, "k", other)

    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert "Idempotency-Key" in answer.json()["detail"]
    assert Transaction.objects.count() == 1


def test_key_of_another_account_is_another_key(as_alice: APIClient, as_bob: APIClient, bob: User) -> None:
    first = record(as_alice, "k")
    other = record(as_bob, "k", TEA)

    assert other.status_code == HTTPStatus.CREATED
    assert other.json()["user"] == bob.pk
    assert other.json()["id"] != first.json()["id"]
    assert record(as_alice, "k").content == first.content


def test_error_is_not_kept_and_leaves_the_key_unused(as_alice: APIClient) -> None:
    refused = record(as_alice, "k", {"amount": "ten", "description": "Coffee"})
    accepted = record(as_alice, "k")

    assert refused.status_code == HTTPStatus.BAD_REQUEST
    assert accepted.status_code == HTTPStatus.CREATED
    assert "Idempotency-Replayed" not in accepted


def test_anonymous_request_with_a_key_is_refused(anonymous: APIClient) -> None:
    assert record(anonymous, "k").status_code == HTTPStatus.UNAUTHORIZED
    assert not IdempotencyRecord.objects.exists()


@pytest.mark.parametrize("key", ["", " ", "a b", "k" * 256, "k\x7f", "k\x00", "caf\xe9", "\t", "k\n", "k,k", "k, l"])
def test_malformed_key_is_refused_by_name(as_alice: APIClient, key: str) -> None:
    answer = as_alice.post(LIST, COFFEE, HTTP_IDEMPOTENCY_KEY=key)

    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert list(answer.json()) == ["Idempotency-Key"]
    assert not Transaction.objects.exists()


@pytest.mark.parametrize("depth", [100, 500, 800, 900, 960, 990, 5_000, 100_000])
def test_deep_body_with_a_key_is_no_server_error(as_alice: APIClient, depth: int) -> None:
    body = '{"amount": "1", "description": "x", "deep": ' + "[" * depth + "]" * depth + "}"

    answer = as_alice.post(LIST, body, content_type="application/json", headers={"Idempotency-Key": "k"})

    assert answer.status_code in (HTTPStatus.CREATED, HTTPStatus.BAD_REQUEST)


def test_body_that_is_too_deep_to_be_compared_is_refused(as_alice: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whether a body can be read and yet not be written again depends on the version of Python.
    def fail(*args: Any, **kwargs: Any) -> str:
        raise RecursionError

    with monkeypatch.context() as patch:
        patch.setattr(idempotency, "json", SimpleNamespace(dumps=fail))
        answer = as_alice.post(
            LIST,
            '{"amount": "1", "description": "x"}',
            content_type="application/json",
            headers={"Idempotency-Key": "k"},
        )
        status = answer.status_code

    assert status == HTTPStatus.BAD_REQUEST
    assert not Transaction.objects.exists()


# Crashes --------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_key_that_comes_again_after_a_crash_between_commit_and_reply_gets_the_original_answer(
    as_alice: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []

    def crash(view: Any, request: Any, response: Any, *args: Any, **kwargs: Any) -> Any:
        assert not connection.in_atomic_block  # so the row and its record are committed
        sent.append(response.content)
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(TransactionViewSet, "finalize_response", crash)
        with pytest.raises(SystemExit):
            record(as_alice, "k")
    again = record(as_alice, "k")

    assert again.status_code == HTTPStatus.CREATED
    assert again.content == sent[0]
    assert again["Idempotency-Replayed"] == "true"
    assert Transaction.objects.get().pk == again.json()["id"]


@pytest.mark.django_db(transaction=True)
def test_row_whose_record_cannot_be_written_is_not_written_either(
    as_alice: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*args: Any) -> None:
        assert Transaction.objects.exists()
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(idempotency, "_record", crash)
        with pytest.raises(SystemExit):
            record(as_alice, "k")
    assert not Transaction.objects.exists()

    assert record(as_alice, "k").status_code == HTTPStatus.CREATED


# Races ----------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_of_twenty_requests_with_one_key_at_once_one_records(alice: User, sign_in: Callable[[User], APIClient]) -> None:
    clients = [sign_in(alice) for _ in range(20)]
    for turn in range(10):
        key = f"turn-{turn}"

        answers = at_once(partial(record, client, key) for client in clients)

        statuses = Counter(answer.status_code for answer in answers)
        assert set(statuses) <= {HTTPStatus.CREATED, HTTPStatus.CONFLICT}, statuses
        created = [answer for answer in answers if answer.status_code == HTTPStatus.CREATED]
        assert len({answer.content for answer in created}) == 1
        assert sum("Idempotency-Replayed" not in answer for answer in created) == 1
        assert Transaction.objects.count() == turn + 1


@pytest.mark.django_db(transaction=True)
def test_key_in_flight_is_a_conflict_that_says_when_to_try_again(
    alice: User, sign_in: Callable[[User], APIClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = sign_in(alice)
    answers: list[Any] = []
    original = TransactionViewSet._record

    def meet(view: Any, request: Any) -> Any:
        answers.extend(at_once(partial(record, client, "k", body) for body in (COFFEE, TEA)))
        answers.extend(at_once([partial(record, client, "another")]))
        return original(view, request)

    def record_first(view: Any, request: Any) -> Any:
        monkeypatch.setattr(TransactionViewSet, "_record", original)
        return meet(view, request)

    monkeypatch.setattr(TransactionViewSet, "_record", record_first)
    first = record(client, "k")

    assert first.status_code == HTTPStatus.CREATED
    assert [answer.status_code for answer in answers] == [
        HTTPStatus.CONFLICT,
        HTTPStatus.CONFLICT,
        HTTPStatus.CREATED,
    ]
    assert answers[0]["Retry-After"] == "1"
    assert set(answers[0].json()) == {"detail"}
    assert record(client, "k").content == first.content


# Age ------------------------------------------------------------------------------------------------------------------


def age(key: str, **by: int) -> None:
    IdempotencyRecord.objects.filter(key=key).update(created_at=Now() - timedelta(**by))


def test_key_is_kept_for_a_day(as_alice: APIClient) -> None:
    first = record(as_alice, "k")
    age("k", hours=23, minutes=59)

    assert record(as_alice, "k").content == first.content


def test_key_is_new_after_a_day_even_if_its_record_is_still_there(as_alice: APIClient) -> None:
    first = record(as_alice, "k")
    age("k", hours=24, seconds=1)

    second = record(as_alice, "k", TEA)

    assert second.status_code == HTTPStatus.CREATED
    assert second.json()["id"] != first.json()["id"]
    assert record(as_alice, "k", TEA).content == second.content


def test_remove_expired_removes_what_is_older_than_a_day_and_counts_it(
    as_alice: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "BATCH", 2)
    for key in ("a", "b", "c", "d", "young"):
        record(as_alice, key)
    for key in ("a", "b", "c", "d"):
        age(key, hours=24, seconds=1)

    assert idempotency.remove_expired() == {"idempotency records": 4}
    assert [item.key for item in IdempotencyRecord.objects.all()] == ["young"]
    assert Transaction.objects.count() == 5
    assert idempotency.remove_expired() == {"idempotency records": 0}


@pytest.mark.django_db(transaction=True)
def test_key_that_is_used_anew_while_its_record_is_removed_records_once(as_alice: APIClient) -> None:
    record(as_alice, "k")
    IdempotencyRecord.objects.update(created_at=Now() - timedelta(hours=25))

    anew = while_removing(idempotency.remove_expired, lambda: record(as_alice, "k", TEA))
    again = record(as_alice, "k", TEA)

    assert (again.content, again["Idempotency-Replayed"]) == (anew.content, "true")
    assert Transaction.objects.filter(description="Tea").count() == 1


@pytest.mark.django_db(transaction=True)
def test_record_that_is_being_renewed_keeps_no_removal_waiting(as_alice: APIClient) -> None:
    record(as_alice, "k")
    IdempotencyRecord.objects.update(created_at=Now() - timedelta(hours=25))

    def remove() -> dict[str, int]:
        try:
            return idempotency.remove_expired()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as other, transaction.atomic():
        anew = record(as_alice, "k", TEA)
        assert other.submit(remove).result(timeout=10) == {"idempotency records": 0}

    assert record(as_alice, "k", TEA).content == anew.content


def test_closed_account_leaves_no_obstacle_in_its_records(as_alice: APIClient, alice: User) -> None:
    record(as_alice, "k")
    Transaction.objects.all().delete()

    alice.delete()

    assert not IdempotencyRecord.objects.exists()


# Cost -----------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_key_costs_three_statements_and_a_replay_two(as_alice: APIClient) -> None:
    def statements(key: str | None) -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            record(as_alice, key) if key else as_alice.post(LIST, COFFEE)
        return sum(query["sql"] not in ("BEGIN", "COMMIT") for query in captured)

    assert statements(None) == 1  # who asks and the row, in one
    assert statements("k") == 5  # who asks, the lock, the look, the row, the record
    assert statements("k") == 3  # who asks, the lock, the look


def test_record_holds_no_token(as_alice: APIClient) -> None:
    record(as_alice, "k")

    kept = IdempotencyRecord.objects.get()
    assert kept.headers.keys() == {"ETag", "Location"}
    assert set(json.loads(kept.body)) == {"id", "user", "amount", "description", "timestamp"}
