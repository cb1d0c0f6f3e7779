"""TypeScript types made from the committed schema, checked with tsc and used against the running stack."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.clients.tools import CLIENTS, OPENAPI, Node, run


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, node: Node) -> Path:
    """A project that holds the types and a consumer of them."""
    folder = tmp_path_factory.mktemp("typescript")
    for name in ("consumer.ts", "tsconfig.json", "package.json"):
        shutil.copy(CLIENTS / name, folder)
    (folder / "node_modules").symlink_to(node.modules)
    node.run("openapi-typescript/bin/cli.js", OPENAPI, "--output", folder / "schema.d.ts")
    return folder


def test_the_types_name_every_operation(project: Path, operations: dict[str, dict[str, Any]]) -> None:
    (listed,) = re.findall(
        r"^export interface operations \{\n(.*?)^\}", (project / "schema.d.ts").read_text(), re.M | re.S
    )

    assert set(re.findall(r"^    (\w+): \{", listed, re.M)) == operations.keys()


def test_a_consumer_of_the_types_is_well_typed(project: Path, node: Node) -> None:
    node.run("typescript/bin/tsc", "--project", project)


def test_a_consumer_of_the_types_works_against_the_stack(project: Path, node: Node, base_url: str) -> None:
    printed = run(node.program, project / "consumer.ts", base_url, within=project)

    assert printed == "done\n"
