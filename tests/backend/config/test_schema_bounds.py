"""The schema says what is taken, and what every answer carries."""

import re
from typing import Any

import pytest

from accounts.models import Session
from config.docs import schema as served_schema
from transactions.models import Transaction


@pytest.fixture
def parts() -> dict[str, Any]:
    """Return the components of the schema."""
    return dict(served_schema()["components"]["schemas"])


@pytest.mark.parametrize("name", ["TransactionRequest", "PatchedTransactionRequest"])
def test_amount_is_a_string_or_a_number_within_its_bounds(parts: dict[str, Any], name: str) -> None:
    text, number = parts[name]["properties"]["amount"]["oneOf"]

    assert all(re.search(text["pattern"], good) for good in ("0", "-3.20", "12345678.99", "1.5"))
    assert not any(re.search(text["pattern"], bad) for bad in ("", ".", ".5", "5.", "123456789", "1.234", "+1", "1e3"))
    assert (number["type"], number["multipleOf"]) == ("number", 0.01)
    assert (number["minimum"], number["maximum"]) == (-99999999.99, 99999999.99)


def test_amount_of_an_answer_is_a_string_with_two_places(parts: dict[str, Any]) -> None:
    amount = parts["Transaction"]["properties"]["amount"]

    assert amount["type"] == "string"
    assert re.search(amount["pattern"], "-3.20")
    assert not re.search(amount["pattern"], "-3.2")


@pytest.mark.parametrize(
    ("name", "field"), [("RegistrationRequest", "password"), ("SetPasswordRequest", "new_password")]
)
def test_new_password_has_its_bounds(parts: dict[str, Any], name: str, field: str) -> None:
    password = parts[name]["properties"][field]

    assert (password["minLength"], password["maxLength"]) == (8, 128)
    assert not any(re.search(password["pattern"], bad) for bad in ("12345678", " " * 8, "\u3000\t" * 4))
    assert all(re.search(password["pattern"], good) for good in ("1234 678", "       1", "p w o r d"))
    assert not re.search(password["pattern"], "with\x00NUL")
    assert re.search(password["pattern"], "12345678a")


def test_description_has_its_bounds(parts: dict[str, Any]) -> None:
    description = parts["TransactionRequest"]["properties"]["description"]

    assert (description["minLength"], description["maxLength"]) == (1, 255)
    assert not any(re.search(description["pattern"], bad) for bad in ("  ", "\u3000\x85\x1c", "a\x00"))
    assert all(re.search(description["pattern"], good) for good in (" a ", "\ufeff", "\x19", "☕"))


def test_password_of_an_account_is_in_the_body_that_closes_it() -> None:
    body = served_schema()["paths"]["/auth/users/me/"]["delete"]["requestBody"]

    assert body["required"] is True
    assert body["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/CloseAccountRequest"}
    assert "requestBody" not in served_schema()["paths"]["/api/transactions/{id}/"]["delete"]


def test_every_answer_names_its_request_and_if_it_is_worth_it_the_wait() -> None:
    for path, methods in served_schema()["paths"].items():
        for method, operation in methods.items():
            assert {"406", "414", "429"} <= operation["responses"].keys(), f"{method} {path}"
            assert ("requestBody" in operation) == ("415" in operation["responses"]), f"{method} {path}"
            for status, response in operation["responses"].items():
                assert "X-Request-ID" in response["headers"], f"{method} {path} {status}"
                # 409: the same request is under way.
                waits = status in {"409", "429", "503"}
                assert ("Retry-After" in response["headers"]) == waits, f"{method} {path} {status}"


def test_search_is_bounded() -> None:
    parameters = served_schema()["paths"]["/api/transactions/"]["get"]["parameters"]
    search = next(item["schema"] for item in parameters if item["name"] == "search")

    assert search["maxLength"] == 200
    assert re.search(search["pattern"], "")
    assert not re.search(search["pattern"], "a\x00")


def test_what_the_schema_says_of_an_amount_is_what_the_column_holds() -> None:
    column = Transaction._meta.get_field("amount")

    assert (column.max_digits, column.decimal_places) == (10, 2)  # type: ignore[union-attr]


def test_session_has_its_bounds(parts: dict[str, Any]) -> None:
    fields = parts["Session"]["properties"]

    assert fields["user_agent"]["maxLength"] == Session._meta.get_field("user_agent").max_length  # type: ignore[union-attr]
    # The longest way to write an address: eight groups of four digits.
    assert fields["client_address"]["maxLength"] == len(":".join(["ffff"] * 8))
    assert fields["client_address"]["nullable"] is True


@pytest.mark.parametrize("path", ["/api/transactions/", "/api/transactions/summary/", "/api/transactions/export/"])
@pytest.mark.parametrize("name", ["timestamp_after", "timestamp_before"])
def test_moment_is_a_date_or_a_date_and_a_time(path: str, name: str) -> None:
    parameters = served_schema()["paths"][path]["get"]["parameters"]
    schema = next(item["schema"] for item in parameters if item["name"] == name)

    assert [choice["format"] for choice in schema["anyOf"]] == ["date-time", "date"]
