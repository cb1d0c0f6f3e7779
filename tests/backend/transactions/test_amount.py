"""What an amount and a description may be, on the wire and in the database."""

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from http import HTTPStatus
from typing import Any

import pytest
from django.db import DataError, IntegrityError, connection, models, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_framework.test import APIClient

from accounts.models import User
from transactions.models import Transaction

pytestmark = pytest.mark.django_db

LIST = "/api/transactions/"


def record_json(client: APIClient, amount: str, description: str = '"Coffee"') -> Any:
    """Send the two values as they are written, since a client library might rewrite them."""
    body = f'{{"amount": {amount}, "description": {description}}}'
    return client.post(LIST, body.encode("utf-8", "surrogatepass"), content_type="application/json")


# Amounts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("12.50", "12.50"),
        ('"12.50"', "12.50"),
        ("12.5", "12.50"),
        ('"12.5"', "12.50"),
        ("12", "12.00"),
        ('"12"', "12.00"),
        ("0", "0.00"),
        ("0.00", "0.00"),
        ("-0", "0.00"),
        ('"-0"', "0.00"),
        ('"-0.00"', "0.00"),
        ("-3.20", "-3.20"),
        ("0.01", "0.01"),
        ("-0.01", "-0.01"),
        ("0.1", "0.10"),
        ("0.29", "0.29"),
        ("99999999.99", "99999999.99"),
        ("-99999999.99", "-99999999.99"),
        ('"00000012.50"', "12.50"),
    ],
)
def test_amount_is_stored_as_it_was_written(as_alice: APIClient, written: str, stored: str) -> None:
    response = record_json(as_alice, written)

    assert response.status_code == HTTPStatus.CREATED
    assert response.json()["amount"] == stored
    assert str(Transaction.objects.get().amount) == stored


REFUSED_AMOUNTS = [
    # More than ten digits, more than two of them after the point.
    "100000000", "100000000.00", "12345678901", "0.001", "1.234", "-0.001", '"1.000"', "9" * 400,
    '"' + "9" * 5000 + '"',
    # Python's own spellings of numbers.
    '"1_000"', '"1e3"', "1e3", "1E400", '"0E+5"', '"0x10"', '"NaN"', '"sNaN"', '"Infinity"', '"-Infinity"', '"inf"',
    '"+1"', '".5"', '"5."', '" 1"', '"1 "', '"1\\n"', '"1,50"', '"1\\u00a0000"', '"- 1"', '"--1"', '"(1)"',
    # Digits of other scripts: Arabic, fullwidth, superscript.
    '"\\u0661\\u0662"', '"\\uff11"', '"1\\u00b2"', '"\\u2212 1"', '"\\u22121"',
    # No number at all.
    '""', '" "', '"abc"', '"\\u0000"', '"1\\u0000"', '"\\ud800"', "true", "false", "null", "[]", "[1]", "{}",
    '{"a": 1}',
]  # fmt: skip


@pytest.mark.parametrize("written", REFUSED_AMOUNTS, ids=lambda text: text[:20])
def test_amount_in_any_other_spelling_is_refused_by_name(as_alice: APIClient, written: str) -> None:
    response = record_json(as_alice, written)

    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert list(response.json()) == ["amount"]
    assert not Transaction.objects.exists()


@pytest.mark.parametrize(
    "written", ["NaN", "Infinity", "-Infinity", "01", "1.", ".5", "+1", "0x10", "1_000", "9" * 5000]
)
def test_amount_that_is_not_json_is_refused(as_alice: APIClient, written: str) -> None:
    response = record_json(as_alice, written)

    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert set(response.json()) <= {"detail", "amount"}
    assert not Transaction.objects.exists()


def test_amount_message_says_what_is_accepted(as_alice: APIClient) -> None:
    message = record_json(as_alice, '"1_000"').json()["amount"]

    assert message == ["A valid amount has up to 8 digits and 2 decimal places, for example 12.50."]


decimals = st.decimals(min_value=Decimal("-99999999.99"), max_value=Decimal("99999999.99"), places=2)


# One account for every example: what an example leaves does not matter to the next.
@settings(max_examples=60, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(amount=decimals, quoted=st.booleans())
def test_amount_of_any_value_comes_back_the_same(as_alice: APIClient, amount: Decimal, quoted: bool) -> None:
    written = f'"{amount}"' if quoted else str(amount)

    recorded = record_json(as_alice, written).json()

    read = as_alice.get(f"{LIST}{recorded['id']}/").json()
    assert Decimal(read["amount"]) == amount
    assert read["amount"] == f"{amount + 0:.2f}"


@settings(max_examples=150, deadline=None, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.sampled_from("0123456789.-+eE_ NaIfinty\u0663\uff11 \t"), max_size=14))
def test_amount_of_any_spelling_is_stored_exactly_or_refused(as_alice: APIClient, text: str) -> None:
    response = as_alice.post(LIST, {"amount": text, "description": "Coffee"})

    if response.status_code == HTTPStatus.CREATED:
        assert text.isascii()
        assert Decimal(response.json()["amount"]) == Decimal(text)
    else:
        assert response.status_code == HTTPStatus.BAD_REQUEST
        assert list(response.json()) == ["amount"]


# Descriptions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    ['""', '"   "', '"\\t\\n"', '"\\u00a0"', f'"{"x" * 256}"', '"nul\\u0000"', '"\\ud800"', '"\\udfff\\ud800"', "null",
     "true", "[]", "{}", '["a"]'],
)  # fmt: skip
def test_description_that_is_no_text_is_refused_by_name(as_alice: APIClient, written: str) -> None:
    response = record_json(as_alice, "1", written)

    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert list(response.json()) == ["description"]
    assert not Transaction.objects.exists()


@pytest.mark.parametrize(
    "text", ["x", "x" * 255, "☕" * 255, "😀", "<script>alert(1)</script>", "'; --", "a\tb\nc", "\u202eabc", "日本"]
)
def test_description_of_any_text_comes_back_the_same(as_alice: APIClient, text: str) -> None:
    response = as_alice.post(LIST, {"amount": "1", "description": text})

    assert response.status_code == HTTPStatus.CREATED
    assert response.json()["description"] == text


def test_description_and_amount_are_both_named(as_alice: APIClient) -> None:
    response = as_alice.post(LIST, {})

    assert response.json() == {"amount": ["This field is required."], "description": ["This field is required."]}


# The database ---------------------------------------------------------------------------------------------------------


def by_bulk_create(values: dict[str, Any]) -> None:
    Transaction.objects.bulk_create([Transaction(**values)])


def by_update(values: dict[str, Any]) -> None:
    row = Transaction.objects.create(user=values["user"], amount=1, description="Coffee")
    Transaction.objects.filter(pk=row.pk).update(**values)


def by_sql(values: dict[str, Any]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO transactions_transaction (user_id, amount, description) VALUES (%s, %s::text::numeric, %s)",
            [values["user"].pk, str(values["amount"]), values["description"]],
        )


@pytest.mark.parametrize("write", [by_bulk_create, by_update, by_sql])
@pytest.mark.parametrize(
    ("bad", "complaint"),
    [
        ({"description": ""}, "transaction_description_is_not_empty"),
        ({"description": "x" * 256}, "too long"),
        ({"amount": Decimal(100_000_000)}, "overflow|precision"),
    ],
)
def test_database_refuses_a_row_that_is_not_true_whatever_writes_it(
    alice: User, write: Callable[[dict[str, Any]], None], bad: dict[str, Any], complaint: str
) -> None:
    values = {"user": alice, "amount": Decimal(1), "description": "Coffee", **bad}

    with pytest.raises((IntegrityError, DataError, InvalidOperation), match=complaint), transaction.atomic():
        write(values)


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "-Infinity", "99999999.995", "-100000000"])
def test_database_refuses_an_amount_that_is_no_number_of_ten_digits(alice: User, amount: str) -> None:
    with pytest.raises((IntegrityError, DataError), match=r"transaction_amount_is_a_number|overflow"):
        by_sql({"user": alice, "amount": amount, "description": "Coffee"})


@pytest.mark.parametrize("column", ["user_id", "amount", "description", "timestamp"])
def test_database_refuses_a_row_without_one_of_its_values(coffee: Transaction, column: str) -> None:
    with pytest.raises(IntegrityError, match="not-null"), transaction.atomic():
        Transaction.objects.update(**{column: None})


def test_database_refuses_to_delete_an_account_with_transactions(alice: User, coffee: Transaction) -> None:
    with pytest.raises(models.ProtectedError):
        alice.delete()
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        with pytest.raises(IntegrityError, match="foreign key"):
            cursor.execute("DELETE FROM accounts_user WHERE id = %s", [alice.pk])


def test_database_sets_the_time_itself(alice: User) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT now()")
        now = cursor.fetchone()[0]
    by_sql({"user": alice, "amount": 1, "description": "Coffee"})

    assert Transaction.objects.get().timestamp >= now
