"""The API as its served schema describes it, so that a new operation is tested from its first day."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from uuid import uuid4

import httpx

from tests.stack.people import unique

EXAMPLES: dict[str, Any] = {
    "amount": "1.00",
    "current_password": "not the password",
    "new_password": "not the password",
}
"""Values that are well formed. The password is wrong on purpose: no account is closed by accident."""


@dataclass(frozen=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    description: dict[str, Any]
    schemas: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def is_secured(self) -> bool:
        """Whether a token is needed: `security` is missing where nobody needs one, or offers an empty choice."""
        choices = self.description.get("security", [])
        return bool(choices) and {} not in choices

    @property
    def takes_an_id(self) -> bool:
        """Whether the path names one row."""
        return "{" in self.path

    @property
    def collection(self) -> str:
        """The path of the list that the row is in."""
        return self.path.partition("{")[0]

    @property
    def query(self) -> list[dict[str, Any]]:
        """The parameters of the query."""
        return [parameter for parameter in self.description.get("parameters", []) if parameter["in"] == "query"]

    @cached_property
    def fields(self) -> dict[str, dict[str, Any]]:
        """The fields of a JSON body, none where the operation has no body."""
        content = self.description.get("requestBody", {}).get("content", {})
        schema = content.get("application/json", {}).get("schema", {})
        while "$ref" in schema:
            schema = self.schemas[schema["$ref"].rpartition("/")[2]]
        return dict(schema.get("properties", {}))

    def body(self) -> dict[str, Any]:
        """Return a body with every field, well formed and new."""
        return {name: EXAMPLES.get(name, unique("x")) for name in self.fields if name != "email"} | (
            {"email": f"{unique('x')}@example.com"} if "email" in self.fields else {}
        )

    def url(self, key: object = None) -> str:
        """Return the path to the row ``key``, or to one that is not there."""
        head, brace, tail = self.path.partition("{")
        if not brace:
            return self.path
        parameter, _, tail = tail.partition("}")
        return head + str(self._nobodys(parameter) if key is None else key) + tail

    def _nobodys(self, name: str) -> object:
        schema = next(item["schema"] for item in self.description["parameters"] if item["name"] == name)
        return uuid4() if schema.get("format") == "uuid" else 999_999_999_999


def read_operations(client: httpx.Client) -> list[Operation]:
    """Return every operation of the schema that is being served."""
    answer = client.get("/api/schema/", params={"format": "json"})
    answer.raise_for_status()
    return list(operations_of(answer.json()))


def operations_of(schema: dict[str, Any]) -> Iterator[Operation]:
    """Return every operation of a schema."""
    for path, methods in schema["paths"].items():
        shared = methods.get("parameters", [])
        for method, description in methods.items():
            if method != "parameters":
                described = {**description, "parameters": [*shared, *description.get("parameters", [])]}
                yield Operation(method.upper(), path, described, schema["components"]["schemas"])
