"""What the tests of the clients share."""

from typing import Any

import pytest
import yaml

from tests.clients.tools import OPENAPI, Node


@pytest.fixture(scope="session")
def node() -> Node:
    """Node.js and the packages of the clients."""
    return Node()


@pytest.fixture(scope="session")
def schema() -> dict[str, Any]:
    """The committed schema, from which every client is made."""
    document: dict[str, Any] = yaml.safe_load(OPENAPI.read_text())
    return document


@pytest.fixture(scope="session")
def operations(schema: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The operations of the committed schema by their ids."""
    methods = {"get", "put", "post", "delete", "patch"}
    return {
        operation["operationId"]: operation
        for path in schema["paths"].values()
        for method, operation in path.items()
        if method in methods
    }
