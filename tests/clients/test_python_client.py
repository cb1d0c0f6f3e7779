"""A Python client made from the committed schema, checked with mypy and used against the running stack."""

from pathlib import Path
from typing import Any

import pytest

from tests.clients.tools import CLIENTS, OPENAPI, run

CONFIGURATION = "post_hooks: []\n"
"""Nobody reads the client: it is not formatted."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the generated package."""
    folder = tmp_path_factory.mktemp("python")
    (folder / "configuration.yaml").write_text(CONFIGURATION)
    package = folder / "transactions_api_client"
    # A warning is an operation or a model that the client would lack.
    run(
        *("openapi-python-client", "generate", "--fail-on-warning", "--meta", "none"),
        *("--path", OPENAPI, "--output-path", package, "--config", folder / "configuration.yaml"),
    )
    (package / "py.typed").touch()
    return folder


def test_the_client_has_a_function_for_every_operation_under_its_own_name(
    client: Path, operations: dict[str, dict[str, Any]]
) -> None:
    expected = {(operation["tags"][0], name) for name, operation in operations.items()}

    modules = client.glob("transactions_api_client/api/*/[!_]*.py")

    assert {(module.parent.name, module.stem) for module in modules} == expected


def test_a_consumer_of_the_client_is_well_typed(client: Path) -> None:
    run(
        *("mypy", "--strict", "--config-file", "/dev/null", "--cache-dir", client / ".mypy_cache"),
        CLIENTS / "consumer.py",
        MYPYPATH=str(client),
    )


def test_a_consumer_of_the_client_works_against_the_stack(client: Path, base_url: str) -> None:
    printed = run("python", "-W", "error", CLIENTS / "consumer.py", base_url, PYTHONPATH=str(client))

    assert printed == "done\n"
