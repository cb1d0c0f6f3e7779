"""What is committed for clients is what the code says, under names that read well in their languages."""

import keyword
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
DOCS = REPOSITORY / "docs"
WRITE = "./scripts/describe-api"

METHODS = {"get", "put", "post", "delete", "patch"}
GENERATED = re.compile(r"(^|_)(api|auth|retrieve|destroy|partial)(_|$)|_(create|list|[0-9]+)$")
"""What operation ids look like when nobody has named them."""

RESERVED = {"delete", "export", "new", "switch", "this", "typeof", "var", "void"}
"""Words that are no name in TypeScript, beside those that are none in Python."""


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the code says, in a folder of its own."""
    folder = tmp_path_factory.mktemp("docs")
    done = subprocess.run([WRITE, "--output", folder], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def operations() -> list[dict[str, Any]]:
    """The operations of the committed schema, of an API with mail: all that there are."""
    document = yaml.safe_load((DOCS / "openapi-mail.yaml").read_text())
    return [operation for path in document["paths"].values() for method, operation in path.items() if method in METHODS]


# The first run installs npm packages.
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "name", ["openapi.yaml", "openapi-mail.yaml", "postman/collection.json", "postman/environment.json"]
)
def test_what_is_committed_is_what_the_code_says(name: str, described: Path) -> None:
    now, committed = (described / name).read_text(), (DOCS / name).read_text()

    assert committed == now, f"docs/{name} is out of date: run {WRITE} and commit what it writes"


def test_operation_ids_are_phrases_that_somebody_chose(operations: list[dict[str, Any]]) -> None:
    names = [operation["operationId"] for operation in operations]

    assert [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)*", name)] == []
    assert [name for name in names if GENERATED.search(name)] == []


def test_operation_ids_are_names_in_python_and_typescript(operations: list[dict[str, Any]]) -> None:
    names = [operation["operationId"] for operation in operations]

    assert [name for name in names if keyword.iskeyword(name) or name in RESERVED] == []
    assert len({name.replace("_", "") for name in names}) == len(names), "two of them differ only in their underscores"


def test_summaries_tell_operations_apart(operations: list[dict[str, Any]]) -> None:
    summaries = [operation["summary"] for operation in operations]

    assert len(set(summaries)) == len(summaries)
    assert [text for text in summaries if text.endswith(".")] == []
