"""Entity tags: reading what has changed, changing what has not."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from accounts.models import User
from transactions.models import Transaction

from .at_once import at_once

LIST = "/api/transactions/"
TEA = {"amount": "-2.80", "description": "Tea"}
WRITES = [("put", TEA), ("patch", {"amount": "-2.80"}), ("delete", None)]
MALFORMED = [
    "",
    "1",
    "abc",
    '"1',
    '1"',
    '"a" "b"',
    ",",
    ", ,",
    ',"a',
    'w/"a"',
    '*, "a"',
    '"a b"',
    "**",
    '"\x7f"',
    '"\x00"',
]

pytestmark = pytest.mark.django_db


def path(row: Transaction) -> str:
    return f"{LIST}{row.pk}/"


def write(client: APIClient, method: str, row: Transaction, body: Any, tag: str | None = None) -> Any:
    return getattr(client, method)(path(row), body, headers={} if tag is None else {"If-Match": tag})


# The tag --------------------------------------------------------------------------------------------------------------


def test_tag_is_strong_and_the_same_for_every_answer_about_one_state(as_alice: APIClient) -> None:
    created = as_alice.post(LIST, TEA)
    url = created["Location"]
    assert created["ETag"].startswith('"')
    assert as_alice.get(url)["ETag"] == created["ETag"]
    assert as_alice.head(url)["ETag"] == created["ETag"]

    for method, body in (("patch", {"amount": "1"}), ("put", TEA)):
        before = as_alice.get(url)["ETag"]
        changed = getattr(as_alice, method)(url, body)
        assert changed["ETag"] != before
        assert as_alice.get(url)["ETag"] == changed["ETag"]


def test_tags_of_different_rows_differ(as_alice: APIClient) -> None:
    assert as_alice.post(LIST, TEA)["ETag"] != as_alice.post(LIST, TEA)["ETag"]


def test_tag_changes_whatever_changes_the_row(as_alice: APIClient, coffee: Transaction) -> None:
    before = as_alice.get(path(coffee))["ETag"]

    Transaction.objects.filter(pk=coffee.pk).update(amount=1, version=1)

    assert as_alice.get(path(coffee))["ETag"] != before


def test_release_that_knows_no_version_still_records_and_its_changes_still_count(
    as_alice: APIClient, alice: User
) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO transactions_transaction (user_id, amount, description) VALUES (%s, 1, 'old') RETURNING id",
            [alice.pk],
        )
        url = f"{LIST}{cursor.fetchone()[0]}/"
        before = as_alice.get(url)["ETag"]
        cursor.execute("UPDATE transactions_transaction SET amount = 2")

    assert as_alice.get(url)["ETag"] != before


@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("patch", {}),
        ("patch", {"description": "Coffee"}),
        ("patch", {"amount": "-3.2"}),
        ("put", {"amount": "-3.20", "description": " Coffee "}),
    ],
)
def test_change_of_nothing_leaves_the_tag(
    as_alice: APIClient, coffee: Transaction, method: str, body: dict[str, str]
) -> None:
    before = as_alice.get(path(coffee))["ETag"]

    answer = getattr(as_alice, method)(path(coffee), body)

    assert (answer.status_code, answer["ETag"]) == (HTTPStatus.OK, before)
    assert answer.json() == as_alice.get(path(coffee)).json()
    assert as_alice.get(path(coffee))["ETag"] == before


def test_change_that_is_sent_twice_counts_once(as_alice: APIClient, coffee: Transaction) -> None:
    first, second = (as_alice.patch(path(coffee), {"description": "Espresso"}) for _ in range(2))

    assert first["ETag"] == second["ETag"] != f'"{coffee.pk}-1"'


# If-None-Match --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["{}", "W/{}", "{},", ", ,{}", '"x",, {} ,', '"x", {}', '"x" ,\tW/{} , "y"', "*"])
@pytest.mark.parametrize("method", ["get", "head"])
def test_state_that_the_client_has_is_not_sent_again(
    as_alice: APIClient, coffee: Transaction, given: str, method: str
) -> None:
    tag = as_alice.get(path(coffee))["ETag"]

    answer = getattr(as_alice, method)(path(coffee), headers={"If-None-Match": given.format(tag)})

    assert answer.status_code == HTTPStatus.NOT_MODIFIED
    assert answer["ETag"] == tag
    assert answer.content == b""


@pytest.mark.parametrize("given", ['"x"', '"*"', 'W/"x", "y"'])
def test_state_that_the_client_does_not_have_is_sent(as_alice: APIClient, coffee: Transaction, given: str) -> None:
    assert as_alice.get(path(coffee), headers={"If-None-Match": given}).status_code == HTTPStatus.OK


def test_state_that_has_passed_is_sent(as_alice: APIClient, coffee: Transaction) -> None:
    tag = as_alice.get(path(coffee))["ETag"]
    as_alice.patch(path(coffee), {"amount": "1"})

    answer = as_alice.get(path(coffee), headers={"If-None-Match": tag})

    assert answer.status_code == HTTPStatus.OK
    assert answer.json()["amount"] == "1.00"


def test_state_is_told_to_its_owner_only(as_alice: APIClient, as_bob: APIClient, coffee: Transaction) -> None:
    tag = as_alice.get(path(coffee))["ETag"]

    for given in (tag, "*"):
        assert as_bob.get(path(coffee), headers={"If-None-Match": given}).status_code == HTTPStatus.NOT_FOUND


# If-Match -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "body"), WRITES)
@pytest.mark.parametrize("given", ["{}", '"x", {}', "*"])
def test_write_on_the_state_that_is_there_succeeds(
    as_alice: APIClient, coffee: Transaction, method: str, body: Any, given: str
) -> None:
    tag = as_alice.get(path(coffee))["ETag"]

    assert write(as_alice, method, coffee, body, given.format(tag)).status_code in (
        HTTPStatus.OK,
        HTTPStatus.NO_CONTENT,
    )


@pytest.mark.parametrize(("method", "body"), WRITES)
def test_write_without_a_condition_succeeds(as_alice: APIClient, coffee: Transaction, method: str, body: Any) -> None:
    as_alice.patch(path(coffee), {"amount": "1"})

    assert write(as_alice, method, coffee, body).status_code in (HTTPStatus.OK, HTTPStatus.NO_CONTENT)


@pytest.mark.parametrize(("method", "body"), WRITES)
def test_write_on_a_state_that_has_passed_is_refused_and_changes_nothing(
    as_alice: APIClient, coffee: Transaction, method: str, body: Any
) -> None:
    tag = as_alice.get(path(coffee))["ETag"]
    as_alice.patch(path(coffee), {"description": "Espresso"})
    before = as_alice.get(path(coffee))

    answer = write(as_alice, method, coffee, body, tag)

    assert answer.status_code == HTTPStatus.PRECONDITION_FAILED
    assert set(answer.json()) == {"detail"}
    after = as_alice.get(path(coffee))
    assert (after.json(), after["ETag"]) == (before.json(), before["ETag"])


@pytest.mark.parametrize("given", ["W/{}", '"x"', '"*"'])
def test_write_needs_a_strong_match(as_alice: APIClient, coffee: Transaction, given: str) -> None:
    tag = as_alice.get(path(coffee))["ETag"]

    answer = as_alice.patch(path(coffee), TEA, headers={"If-Match": given.format(tag)})

    assert answer.status_code == HTTPStatus.PRECONDITION_FAILED


@pytest.mark.parametrize(("method", "body"), WRITES)
def test_write_of_a_stranger_finds_nothing_whatever_the_condition(
    as_alice: APIClient, as_bob: APIClient, coffee: Transaction, method: str, body: Any
) -> None:
    tag = as_alice.get(path(coffee))["ETag"]

    for given in (tag, '"x"', "*", "malformed", None):
        assert write(as_bob, method, coffee, body, given).status_code == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize("given", MALFORMED)
@pytest.mark.parametrize("method", ["get", "put", "patch", "delete"])
def test_malformed_condition_is_refused_by_name(
    as_alice: APIClient, coffee: Transaction, method: str, given: str
) -> None:
    header, name = ("HTTP_IF_NONE_MATCH", "If-None-Match") if method == "get" else ("HTTP_IF_MATCH", "If-Match")

    answer = getattr(as_alice, method)(path(coffee), None if method == "get" else TEA, **{header: given})

    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert list(answer.json()) == [name]


# Races ----------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("method", ["put", "patch"])
def test_of_twenty_changes_at_once_on_one_state_one_succeeds(
    alice: User, coffee: Transaction, sign_in: Callable[[User], APIClient], method: str
) -> None:
    clients = [sign_in(alice) for _ in range(20)]
    for round_ in range(10):
        tag = clients[0].get(path(coffee))["ETag"]

        answers = at_once(
            partial(write, client, method, coffee, {"amount": f"{20 * round_ + index}.00", "description": "x"}, tag)
            for index, client in enumerate(clients)
        )

        assert Counter(answer.status_code for answer in answers) == {
            HTTPStatus.OK: 1,
            HTTPStatus.PRECONDITION_FAILED: 19,
        }
        [winner] = [answer for answer in answers if answer.status_code == HTTPStatus.OK]
        assert clients[0].get(path(coffee)).json() == winner.json()


@pytest.mark.django_db(transaction=True)
def test_of_twenty_deletions_at_once_one_succeeds(alice: User, sign_in: Callable[[User], APIClient]) -> None:
    clients = [sign_in(alice) for _ in range(20)]
    for _ in range(10):
        row = Transaction.objects.create(user=alice, amount=1, description="x")
        tag = clients[0].get(path(row))["ETag"]

        answers = at_once(partial(write, client, "delete", row, None, tag) for client in clients)

        assert Counter(answer.status_code for answer in answers) == {
            HTTPStatus.NO_CONTENT: 1,
            HTTPStatus.NOT_FOUND: 19,
        }


@pytest.mark.django_db(transaction=True)
def test_of_changes_and_deletions_at_once_on_one_state_one_succeeds(
    alice: User, sign_in: Callable[[User], APIClient]
) -> None:
    clients = [sign_in(alice) for _ in range(20)]
    for _ in range(10):
        row = Transaction.objects.create(user=alice, amount=1, description="x")
        tag = clients[0].get(path(row))["ETag"]
        writes = [("put", TEA), ("delete", None)] * 10

        answers = at_once(
            partial(write, client, method, row, body, tag)
            for client, (method, body) in zip(clients, writes, strict=True)
        )

        # What the others find is what the first has left: another state, or none.
        assert Counter(answer.status_code for answer in answers) in (
            {HTTPStatus.OK: 1, HTTPStatus.PRECONDITION_FAILED: 19},
            {HTTPStatus.NO_CONTENT: 1, HTTPStatus.NOT_FOUND: 19},
        )


@pytest.mark.django_db(transaction=True)
def test_changes_of_different_fields_at_once_are_all_kept(
    alice: User, coffee: Transaction, sign_in: Callable[[User], APIClient]
) -> None:
    clients = [sign_in(alice) for _ in range(20)]
    for turn in range(10):
        bodies = [{"amount": f"{turn}.{hand}"} if hand % 2 else {"description": f"{turn}.{hand}"} for hand in range(20)]

        at_once(partial(client.patch, path(coffee), body) for client, body in zip(clients, bodies, strict=True))

        # Each field is as one of this turn has set it: nobody has written the other as it was before.
        row = Transaction.objects.get()
        assert (row.description.split(".")[0], int(row.amount)) == (str(turn), turn)
        assert row.version == 1 + 20 * (turn + 1)


# Cost -----------------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("method", "body", "number"), [("get", None, 1), ("put", TEA, 3), ("patch", TEA, 3), ("delete", None, 3)]
)
def test_condition_costs_no_statement(
    as_alice: APIClient, coffee: Transaction, method: str, body: Any, number: int
) -> None:
    header = "If-None-Match" if method == "get" else "If-Match"
    tag = as_alice.get(path(coffee))["ETag"]

    with CaptureQueriesContext(connection) as captured:
        getattr(as_alice, method)(path(coffee), body, headers={header: tag})

    statements = [query["sql"] for query in captured if query["sql"] not in ("BEGIN", "COMMIT")]
    assert len(statements) == number, statements
