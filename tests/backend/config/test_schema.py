"""The OpenAPI schema: complete, valid, and true to what the service does."""

import json
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.contrib.auth.password_validation import validate_password
from rest_framework.test import APIClient

from accounts.models import User
from tests.backend.conftest import Operation, Python
from transactions.models import Transaction

pytestmark = pytest.mark.django_db

# Each with the reason why nobody needs a token for it.
PUBLIC = {
    ("post", "/auth/users/"),  # nobody has an account yet
    ("post", "/auth/jwt/create/"),  # this is where tokens come from
    ("post", "/auth/jwt/refresh/"),  # the token is in the body
    ("post", "/auth/jwt/verify/"),  # the token is in the body
    ("post", "/auth/jwt/blacklist/"),  # the token is in the body
    ("post", "/auth/users/reset_password/"),  # who needs it cannot log in
    ("post", "/auth/users/reset_password_confirm/"),  # the token is in the body
    ("post", "/auth/users/resend_activation/"),  # who needs it cannot log in
    ("post", "/auth/users/activation/"),  # the token is in the body
}
OFFERED = {
    ("get", "/api/transactions/"): "list_transactions",
    ("post", "/api/transactions/"): "record_transaction",
    ("get", "/api/transactions/summary/"): "summarize_transactions",
    ("get", "/api/transactions/export/"): "export_transactions",
    ("get", "/api/transactions/{id}/"): "get_transaction",
    ("put", "/api/transactions/{id}/"): "replace_transaction",
    ("patch", "/api/transactions/{id}/"): "update_transaction",
    ("delete", "/api/transactions/{id}/"): "delete_transaction",
    ("post", "/auth/users/"): "register",
    ("get", "/auth/users/me/"): "get_account",
    ("put", "/auth/users/me/"): "replace_account",
    ("patch", "/auth/users/me/"): "update_account",
    ("delete", "/auth/users/me/"): "close_account",
    ("post", "/auth/users/set_password/"): "set_password",
    ("post", "/auth/jwt/create/"): "login",
    ("post", "/auth/jwt/refresh/"): "refresh",
    ("post", "/auth/jwt/verify/"): "verify",
    ("post", "/auth/jwt/blacklist/"): "blacklist",
    ("post", "/auth/jwt/logout/"): "logout",
    ("post", "/auth/jwt/logout-all/"): "logout_all",
    ("get", "/auth/sessions/"): "list_sessions",
    ("delete", "/auth/sessions/{id}/"): "end_session",
}
OFFERED_WITH_MAIL = {
    **OFFERED,
    ("post", "/auth/users/reset_password/"): "ask_for_password_reset",
    ("post", "/auth/users/reset_password_confirm/"): "reset_password",
    ("post", "/auth/users/resend_activation/"): "ask_for_activation",
    ("post", "/auth/users/activation/"): "activate",
}


@pytest.fixture(params=["operations", "operations_with_mail"])
def operations(request: pytest.FixtureRequest) -> list[Operation]:
    """Return every operation of the schema, of an API without mail and of one with it."""
    found: list[Operation] = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def schema(anonymous: APIClient) -> dict[str, Any]:
    """Return the schema as the service hands it out."""
    response = anonymous.get("/api/schema/", headers={"Accept": "application/json"})
    assert response.status_code == HTTPStatus.OK
    return dict(response.json())


def test_schema_is_valid_without_a_warning(manage: Python, tmp_path: Path) -> None:
    done = manage("spectacular", "--validate", "--fail-on-warn", "--file", str(tmp_path / "schema.yml"))

    assert (done.returncode, done.stderr) == (0, "")


def test_schema_is_the_same_from_the_service_and_the_command(
    manage: Python, schema: dict[str, Any], tmp_path: Path
) -> None:
    manage("spectacular", "--file", str(tmp_path / "schema.yml"))

    assert yaml.safe_load((tmp_path / "schema.yml").read_text()) == schema


def test_schema_is_yaml_for_who_does_not_ask_for_json(anonymous: APIClient, schema: dict[str, Any]) -> None:
    response = anonymous.get("/api/schema/")

    assert response["Content-Type"] == "application/vnd.oai.openapi; charset=utf-8"
    assert response["Content-Disposition"] == 'inline; filename="openapi.yaml"'
    assert yaml.safe_load(response.content) == schema


@pytest.mark.parametrize("query", ["?version=1%0d%0aX-Injected:%201", "?lang=de", "?version=v9", "?format=nothing"])
def test_schema_takes_no_parameter_into_its_headers(anonymous: APIClient, query: str) -> None:
    response = anonymous.get(f"/api/schema/{query}")

    assert response.status_code in {HTTPStatus.OK, HTTPStatus.NOT_FOUND}
    assert "X-Injected" not in response
    if response.status_code == HTTPStatus.NOT_FOUND:
        assert response["Content-Type"] == "application/json"


def test_schema_offers_what_there_is_and_nothing_else(schema: dict[str, Any]) -> None:
    described = {
        (method, path): operation["operationId"]
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    }

    assert described == OFFERED


def test_schema_offers_more_where_mail_is_configured(operations_with_mail: list[Operation]) -> None:
    described = {(method, path): description["operationId"] for method, path, description in operations_with_mail}

    assert set(described.values()) == set(OFFERED_WITH_MAIL.values())
    assert OFFERED_WITH_MAIL.items() - described.items() == {item for item in OFFERED.items() if "{id}" in item[0][1]}


def test_every_operation_is_described(operations: list[Operation]) -> None:
    for method, path, description in operations:
        where = f"{method} {path}"
        assert description["operationId"], where
        assert description["summary"], where
        assert description["tags"], where
        assert description["responses"], where
        for status, response in description["responses"].items():
            assert response["description"] or status in {"200", "201"}, f"{where} {status}"


def test_every_operation_says_503_and_what_a_bad_request_gets(operations: list[Operation]) -> None:
    for method, path, description in operations:
        where = f"{method} {path}"
        assert "503" in description["responses"], where
        if "requestBody" in description:
            assert "400" in description["responses"], where
        if "999999" in path:
            assert "404" in description["responses"], where


def test_every_operation_with_a_token_says_401_and_names_the_scheme(operations: list[Operation]) -> None:
    for method, path, description in operations:
        where = f"{method} {path}"
        if (method, path) in PUBLIC:
            assert not any(description.get("security", [])), where
        else:
            assert description["security"] == [{"jwtAuth": []}], where
            assert "401" in description["responses"], where


def test_schema_describes_the_token_scheme(schema: dict[str, Any]) -> None:
    assert schema["components"]["securitySchemes"] == {
        "jwtAuth": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
    }


def test_schema_says_that_owner_id_and_time_are_read_only(schema: dict[str, Any]) -> None:
    parts = schema["components"]["schemas"]

    for name in ("id", "user", "timestamp"):
        assert parts["Transaction"]["properties"][name]["readOnly"] is True
        assert name not in parts["TransactionRequest"]["properties"]
        assert name not in parts["PatchedTransactionRequest"]["properties"]
    assert parts["Transaction"]["properties"]["amount"]["type"] == "string"


def test_every_operation_with_a_body_shows_an_example(operations: list[Operation]) -> None:
    for method, path, description in operations:
        for content in description.get("requestBody", {}).get("content", {}).values():
            assert content["examples"], f"{method} {path}"


def examples(operations: list[Operation], operation_id: str) -> list[dict[str, Any]]:
    (description,) = (item.description for item in operations if item.description["operationId"] == operation_id)
    content = description["requestBody"]["content"]["application/json"]
    return [example["value"] for example in content["examples"].values()]


def test_request_examples_work_as_they_stand(
    anonymous: APIClient, as_bob: APIClient, operations: list[Operation], schema: dict[str, Any]
) -> None:
    for example in examples(operations, "register"):
        validate_password(example["password"], User(username=example["username"]))
        assert anonymous.post("/auth/users/", example).status_code == HTTPStatus.CREATED
    User.objects.update(is_active=True)  # as after a mail, where there is one
    for example in examples(operations, "login"):
        assert anonymous.post("/auth/jwt/create/", example).status_code == HTTPStatus.OK
    for example in examples(operations, "record_transaction"):
        row = as_bob.post("/api/transactions/", example)
        assert row.status_code == HTTPStatus.CREATED
    for example in examples(operations, "replace_transaction"):
        assert as_bob.put(f"/api/transactions/{row.json()['id']}/", example).status_code == HTTPStatus.OK
    for example in examples(operations, "update_transaction"):
        assert as_bob.patch(f"/api/transactions/{row.json()['id']}/", example).status_code == HTTPStatus.OK


def test_response_examples_have_the_fields_of_real_answers(
    as_alice: APIClient, coffee: Transaction, operations: list[Operation]
) -> None:
    row = as_alice.get(f"/api/transactions/{coffee.pk}/").json()
    for operation_id in ("get_transaction", "record_transaction", "replace_transaction", "update_transaction"):
        (description,) = (item.description for item in operations if item.description["operationId"] == operation_id)
        status = "201" if operation_id == "record_transaction" else "200"
        content = description["responses"][status]["content"]["application/json"]
        for example in content["examples"].values():
            assert set(example["value"]) == set(row)


# True to what the service does ----------------------------------------------------------------------------------------


def test_every_operation_but_the_public_ones_needs_a_token(anonymous: APIClient, operations: list[Operation]) -> None:
    for method, path, _ in operations:
        response = getattr(anonymous, method)(path)

        if (method, path) in PUBLIC:
            assert response.status_code in {HTTPStatus.OK, HTTPStatus.BAD_REQUEST}, path
        else:
            assert response.status_code == HTTPStatus.UNAUTHORIZED, f"{method} {path}"
            assert response["Content-Type"] == "application/json"
            assert response["WWW-Authenticate"] == 'Bearer realm="api"'
            assert response.json() == {"detail": "Authentication credentials were not provided."}


def test_every_operation_on_a_row_of_another_answers_404(
    as_bob: APIClient, coffee: Transaction, operations: list[Operation]
) -> None:
    on_rows = [item for item in operations if item.path == "/api/transactions/999999/"]
    assert len(on_rows) == 4
    for method, path, _ in on_rows:
        body = None if method == "get" else {"amount": "1", "description": "Mine"}

        response = getattr(as_bob, method)(path.replace("999999", str(coffee.pk)), body)

        assert response.status_code == HTTPStatus.NOT_FOUND, method


def test_answers_are_those_that_the_schema_lists(
    as_alice: APIClient, anonymous: APIClient, operations: list[Operation]
) -> None:
    as_alice.raise_request_exception = False
    for client in (as_alice, anonymous):
        for method, path, description in operations:
            for body in ({}, {"amount": "1", "description": "x"}, {"token": "x", "refresh": "x"}):
                response = getattr(client, method)(path, None if method == "get" else body)

                assert str(response.status_code) in description["responses"], (method, path, response.content)


def test_every_list_is_paged(operations: list[Operation]) -> None:
    for method, path, description in operations:
        if method != "get" or "200" not in description["responses"]:
            continue
        body = json.dumps(description["responses"]["200"])
        assert '"type": "array"' not in body, path
        if path == "/api/transactions/":
            assert "PaginatedTransactionList" in body
            names = {parameter["name"] for parameter in description["parameters"]}
            paging = {"page", "limit", "offset", "cursor"}
            filters = {"search", "amount_min", "amount_max", "timestamp_after", "timestamp_before"}
            assert names == {*paging, *filters, "ordering"}
