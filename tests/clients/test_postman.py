"""The Postman collection, run by newman against the running stack, on an account that it makes for itself."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.tools import POSTMAN, Node


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, node: Node, base_url: str) -> dict[str, Any]:
    """What newman reports of one run; a failure of the collection fails here, with newman's own words."""
    file = tmp_path_factory.mktemp("postman") / "report.json"
    node.run(
        "newman/bin/newman.js",
        *("run", POSTMAN / "collection.json", "--environment", POSTMAN / "environment.json"),
        *("--env-var", f"baseUrl={base_url}", "--timeout", "100000", "--timeout-request", "20000"),
        *("--color", "off", "--disable-unicode", "--reporters", "cli,json", "--reporter-json-export", file),
    )
    loaded: dict[str, Any] = json.loads(file.read_text())
    return loaded


def requests(folder: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the requests of a folder and of those in it."""
    for item in folder["item"]:
        if "item" in item:
            yield from requests(item)
        else:
            yield item


def test_the_collection_passes_against_the_stack(report: dict[str, Any]) -> None:
    run = report["run"]

    assert run["failures"] == []
    assert {name: count["failed"] for name, count in run["stats"].items()} == dict.fromkeys(run["stats"], 0)


def test_every_request_of_the_collection_is_sent_and_tested(report: dict[str, Any]) -> None:
    collection = json.loads((POSTMAN / "collection.json").read_text())

    tested = [execution["item"]["id"] for execution in report["run"]["executions"] if execution.get("assertions")]

    assert sorted(set(tested)) == sorted(request["id"] for request in requests(collection))


def test_the_collection_has_a_request_for_every_operation(operations: dict[str, dict[str, Any]]) -> None:
    collection = json.loads((POSTMAN / "collection.json").read_text())

    names = [request["name"] for request in requests(collection)]

    assert sorted(names) == sorted(operation["summary"] for operation in operations.values())


def test_what_is_committed_holds_no_credentials() -> None:
    environment = json.loads((POSTMAN / "environment.json").read_text())

    given = {variable["key"] for variable in environment["values"] if variable["value"]}

    assert given == {"baseUrl"}
