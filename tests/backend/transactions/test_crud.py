"""Record, read, change and delete transactions."""

from datetime import datetime, timedelta
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from accounts.models import User
from transactions.models import Transaction

pytestmark = pytest.mark.django_db

LIST = "/api/transactions/"


def one(row: Transaction) -> str:
    return f"{LIST}{row.pk}/"


def test_transaction_is_recorded_for_its_owner(as_alice: APIClient, alice: User) -> None:
    before = timezone.now()

    response = as_alice.post(LIST, {"amount": "12.50", "description": "Salary"})

    assert response.status_code == HTTPStatus.CREATED
    body = response.json()
    row = Transaction.objects.get()
    assert body == {
        "id": row.pk,
        "user": alice.pk,
        "amount": "12.50",
        "description": "Salary",
        "timestamp": row.timestamp.isoformat().replace("+00:00", "Z"),
    }
    assert abs(datetime.fromisoformat(body["timestamp"]) - before) < timedelta(minutes=1)


def test_transaction_is_read_as_it_was_recorded(as_alice: APIClient) -> None:
    recorded = as_alice.post(LIST, {"amount": "-3.2", "description": "  Coffee, großer ☕  "}).json()

    response = as_alice.get(f"{LIST}{recorded['id']}/")

    assert response.status_code == HTTPStatus.OK
    assert response.json() == recorded
    assert (recorded["amount"], recorded["description"]) == ("-3.20", "Coffee, großer ☕")


def test_transaction_is_replaced(as_alice: APIClient, coffee: Transaction) -> None:
    response = as_alice.put(one(coffee), {"amount": "-4.00", "description": "Tea"})

    assert response.status_code == HTTPStatus.OK
    coffee.refresh_from_db()
    assert (coffee.amount, coffee.description) == (Decimal("-4.00"), "Tea")


@pytest.mark.parametrize("missing", ["amount", "description"])
def test_transaction_is_not_replaced_by_half_of_one(as_alice: APIClient, coffee: Transaction, missing: str) -> None:
    body = {"amount": "-4.00", "description": "Tea"}
    del body[missing]

    response = as_alice.put(one(coffee), body)

    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert response.json() == {missing: ["This field is required."]}


@pytest.mark.parametrize(
    ("change", "amount", "description"),
    [({"amount": "-3.40"}, "-3.40", "Coffee"), ({"description": "Tea"}, "-3.20", "Tea"), ({}, "-3.20", "Coffee")],
)
def test_transaction_is_changed_in_part(
    as_alice: APIClient, coffee: Transaction, change: dict[str, str], amount: str, description: str
) -> None:
    response = as_alice.patch(one(coffee), change)

    assert response.status_code == HTTPStatus.OK
    coffee.refresh_from_db()
    assert (coffee.amount, coffee.description) == (Decimal(amount), description)


def test_transaction_is_deleted(as_alice: APIClient, coffee: Transaction) -> None:
    response = as_alice.delete(one(coffee))

    assert response.status_code == HTTPStatus.NO_CONTENT
    assert not Transaction.objects.exists()
    assert as_alice.get(one(coffee)).status_code == HTTPStatus.NOT_FOUND


# What is the server's -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["post", "put", "patch"])
@pytest.mark.parametrize(
    "field", ["id", "pk", "user", "user_id", "owner", "timestamp", "created_at", "is_staff", "unknown"]
)
def test_field_of_the_server_is_never_written(
    as_alice: APIClient, alice: User, bob: User, coffee: Transaction, method: str, field: str
) -> None:
    values: dict[str, Any] = {"timestamp": "2001-01-01T00:00:00Z", "created_at": "2001-01-01T00:00:00Z"}
    body = {"amount": "-3.20", "description": "Coffee", field: values.get(field, bob.pk)}
    recorded_at = coffee.timestamp

    response = getattr(as_alice, method)(LIST if method == "post" else one(coffee), body)

    assert response.status_code in {HTTPStatus.OK, HTTPStatus.CREATED}
    assert response.json()["user"] == alice.pk
    coffee.refresh_from_db()
    assert coffee.timestamp == recorded_at
    for row in Transaction.objects.all():
        assert row.user == alice
        assert row.timestamp.year > 2001


def test_administrator_cannot_record_for_somebody_else(sign_in: Any, admin: User, alice: User) -> None:
    response = sign_in(admin).post(LIST, {"amount": "1", "description": "Gift", "user": alice.pk})

    assert response.json()["user"] == admin.pk


# Whose rows ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["get", "put", "patch", "delete"])
def test_row_of_another_answers_as_if_it_were_not_there(as_bob: APIClient, coffee: Transaction, method: str) -> None:
    body = None if method == "get" else {"amount": "1.00", "description": "Mine"}

    response = getattr(as_bob, method)(one(coffee), body)
    absent = getattr(as_bob, method)(f"{LIST}{coffee.pk + 1000}/", body)

    assert response.status_code == HTTPStatus.NOT_FOUND
    assert (response.status_code, response.json()) == (absent.status_code, absent.json())
    coffee.refresh_from_db()
    assert coffee.description == "Coffee"


@pytest.mark.parametrize("method", ["put", "patch"])
def test_row_of_another_is_not_told_from_a_missing_one_by_a_bad_body(
    as_bob: APIClient, coffee: Transaction, method: str
) -> None:
    response = getattr(as_bob, method)(one(coffee), {"amount": "no number"})

    assert response.status_code == HTTPStatus.NOT_FOUND


def test_row_of_another_is_hidden_from_administrators_too(sign_in: Any, admin: User, coffee: Transaction) -> None:
    assert sign_in(admin).get(one(coffee)).status_code == HTTPStatus.NOT_FOUND


def test_list_holds_the_rows_of_its_reader_only(
    as_alice: APIClient, as_bob: APIClient, bob: User, coffee: Transaction
) -> None:
    bread = Transaction.objects.create(user=bob, amount="-2.00", description="Coffee bread")

    for client, row in ((as_alice, coffee), (as_bob, bread)):
        for query in ("", "?search=coffee", "?limit=20", "?page=1"):
            body = client.get(LIST + query).json()

            assert body["count"] == 1
            assert [item["id"] for item in body["results"]] == [row.pk]


def test_list_is_empty_for_who_owns_nothing(as_bob: APIClient, coffee: Transaction) -> None:
    assert as_bob.get(LIST).json() == {
        "count": 0,
        "count_is_exact": True,
        "next": None,
        "previous": None,
        "results": [],
    }


# Paths ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tail",
    [
        "0", "-1", "abc", "1.0", "1e0", "%00", "\u0661", "\uff11", "9" * 18, "9" * 19, "9" * 40, "9" * 5000,
        "None", "..", "%2e%2e", "1%0a", "1;1", "1'", "1,1", "me",
    ],
)  # fmt: skip
def test_path_with_an_id_that_is_none_answers_404(as_alice: APIClient, coffee: Transaction, tail: str) -> None:
    for method in ("get", "put", "patch", "delete"):
        response = getattr(as_alice, method)(f"{LIST}{tail}/")

        assert response.status_code == HTTPStatus.NOT_FOUND
        assert response["Content-Type"] == "application/json"


def test_path_with_the_id_in_digits_of_another_script_answers_404(as_alice: APIClient, coffee: Transaction) -> None:
    for zero in ("\u0660", "\uff10"):
        digits = "".join(chr(ord(zero) + int(digit)) for digit in str(coffee.pk))

        assert int(digits) == coffee.pk
        assert as_alice.get(f"{LIST}{digits}/").status_code == HTTPStatus.NOT_FOUND


def test_path_without_its_slash_answers_404_and_never_redirects(as_alice: APIClient, coffee: Transaction) -> None:
    for path in (LIST, one(coffee)):
        for method in ("get", "post", "put", "patch", "delete"):
            assert getattr(as_alice, method)(path.rstrip("/")).status_code == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize("tail", [".json", "/.json", "X", "//", "1/X", "1//"])
def test_path_is_anchored(as_alice: APIClient, tail: str) -> None:
    assert as_alice.get(f"/api/transactions{tail}").status_code == HTTPStatus.NOT_FOUND


def test_path_takes_its_methods_only(as_alice: APIClient, coffee: Transaction) -> None:
    on_list, on_row = as_alice.delete(LIST), as_alice.post(one(coffee), {})

    assert on_list.status_code == on_row.status_code == HTTPStatus.METHOD_NOT_ALLOWED
    assert on_list["Allow"] == "GET, POST, HEAD, OPTIONS"
    assert on_row["Allow"] == "GET, PUT, PATCH, DELETE, HEAD, OPTIONS"


# What it costs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "queries"),
    [
        ("get", "", None, 1),  # the session, the count and the page together
        ("get", "?page=2", None, 3),  # the account, the count, the page
        ("get", "?limit=20&offset=5", None, 3),
        ("get", "?search=coffee", None, 1),
        ("get", "?page=1&search=coffee", None, 3),
        ("get", "?cursor=", None, 2),  # the account and the page
        ("get", "?cursor=&search=coffee", None, 3),
        ("post", "", {"amount": "1", "description": "Salary"}, 1),  # the session and the row together
        ("post", "", {"amount": "x"}, 1),  # the account
        ("get", "{id}/", None, 1),  # the session and the row together
        # The account, the row, the change, and the two ends of the transaction that locks the row.
        ("put", "{id}/", {"amount": "1", "description": "Salary"}, 5),
        ("patch", "{id}/", {"amount": "1"}, 5),
        ("delete", "{id}/", None, 5),
    ],
)
def test_endpoint_takes_a_known_number_of_queries(
    as_alice: APIClient,
    alice: User,
    coffee: Transaction,
    django_assert_num_queries: Any,
    method: str,
    path: str,
    body: Any,
    queries: int,
) -> None:
    Transaction.objects.bulk_create(Transaction(user=alice, amount=n, description="Coffee") for n in range(30))

    with django_assert_num_queries(queries):
        response = getattr(as_alice, method)(LIST + path.format(id=coffee.pk), body)

    assert response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR


def test_anonymous_request_takes_no_query(anonymous: APIClient, db: None, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert anonymous.get(LIST).status_code == HTTPStatus.UNAUTHORIZED
