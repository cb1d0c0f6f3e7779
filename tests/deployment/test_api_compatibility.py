"""./scripts/compare-api, which continuous integration asks about every pull request, can go red."""

import copy
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]

Document = dict[str, Any]

# The first run installs npm packages.
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="oasdiff comes for Linux on x86-64 only"
    ),
]

THINGS = "/things/"
THING: Document = {
    "type": "object",
    "properties": {"id": {"type": "integer"}, "name": {"type": "string", "maxLength": 100}, "note": {"type": "string"}},
    "required": ["id", "name"],
}
NEW_THING: Document = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 100}, "note": {"type": "string"}},
    "required": ["name"],
}
BASE: Document = {
    "openapi": "3.0.3",
    "info": {"title": "Things", "version": "1.4.0"},
    "paths": {
        THINGS: {
            "get": {
                "operationId": "list_things",
                "parameters": [{"name": "search", "in": "query", "schema": {"type": "string", "maxLength": 200}}],
                "responses": {
                    "200": {
                        "description": "",
                        "content": {
                            "application/json": {
                                "schema": {"type": "array", "items": {"$ref": "#/components/schemas/Thing"}}
                            }
                        },
                    }
                },
            },
            "post": {
                "operationId": "make_thing",
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/NewThing"}}},
                },
                "responses": {
                    "201": {
                        "description": "",
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Thing"}}},
                    }
                },
            },
        }
    },
    "components": {
        "schemas": {"Thing": THING, "NewThing": NEW_THING},
        "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
    },
}


def remove_path(api: Document) -> None:
    del api["paths"][THINGS]
    api["paths"]["/others/"] = copy.deepcopy(BASE["paths"][THINGS])


def remove_operation(api: Document) -> None:
    del api["paths"][THINGS]["post"]


def rename_operation(api: Document) -> None:
    api["paths"][THINGS]["post"]["operationId"] = "create_thing"


def require_new_property(api: Document) -> None:
    api["components"]["schemas"]["NewThing"]["properties"]["colour"] = {"type": "string"}
    api["components"]["schemas"]["NewThing"]["required"].append("colour")


def require_known_property(api: Document) -> None:
    api["components"]["schemas"]["NewThing"]["required"].append("note")


def shorten_property(api: Document) -> None:
    api["components"]["schemas"]["NewThing"]["properties"]["name"]["maxLength"] = 50


def remove_request_property(api: Document) -> None:
    del api["components"]["schemas"]["NewThing"]["properties"]["note"]


def remove_response_property(api: Document) -> None:
    del api["components"]["schemas"]["Thing"]["properties"]["note"]


def remove_required_response_property(api: Document) -> None:
    del api["components"]["schemas"]["Thing"]["properties"]["id"]
    api["components"]["schemas"]["Thing"]["required"].remove("id")


def change_type_of_response_property(api: Document) -> None:
    api["components"]["schemas"]["Thing"]["properties"]["id"]["type"] = "string"


def allow_null_in_response(api: Document) -> None:
    api["components"]["schemas"]["Thing"]["properties"]["name"]["nullable"] = True


def remove_parameter(api: Document) -> None:
    api["paths"][THINGS]["get"]["parameters"].clear()


def require_parameter(api: Document) -> None:
    api["paths"][THINGS]["get"]["parameters"].append(
        {"name": "owner", "in": "query", "required": True, "schema": {"type": "string"}}
    )


def change_status(api: Document) -> None:
    responses = api["paths"][THINGS]["post"]["responses"]
    responses["200"] = responses.pop("201")


def change_media_type(api: Document) -> None:
    content = api["paths"][THINGS]["get"]["responses"]["200"]["content"]
    content["text/csv"] = content.pop("application/json")


def require_token(api: Document) -> None:
    api["paths"][THINGS]["get"]["security"] = [{"token": []}]


def change_nothing(api: Document) -> None:
    pass


def add_path(api: Document) -> None:
    api["paths"]["/others/"] = copy.deepcopy(BASE["paths"][THINGS])
    for method, operation in api["paths"]["/others/"].items():
        operation["operationId"] = f"{method}_others"


def add_optional_property(api: Document) -> None:
    api["components"]["schemas"]["NewThing"]["properties"]["colour"] = {"type": "string"}


def add_response_property(api: Document) -> None:
    api["components"]["schemas"]["Thing"]["properties"]["colour"] = {"type": "string"}
    api["components"]["schemas"]["Thing"]["required"].append("colour")


def add_optional_parameter(api: Document) -> None:
    api["paths"][THINGS]["get"]["parameters"].append({"name": "owner", "in": "query", "schema": {"type": "string"}})


def add_optional_header(api: Document) -> None:
    api["paths"][THINGS]["post"]["parameters"] = [{"name": "If-Match", "in": "header", "schema": {"type": "string"}}]


def add_status(api: Document) -> None:
    api["paths"][THINGS]["post"]["responses"]["409"] = {"description": "There is one."}


def add_media_type(api: Document) -> None:
    api["paths"][THINGS]["get"]["responses"]["200"]["content"]["text/csv"] = {"schema": {"type": "string"}}


def lengthen_property(api: Document) -> None:
    api["components"]["schemas"]["NewThing"]["properties"]["name"]["maxLength"] = 200


def require_less(api: Document) -> None:
    api["components"]["schemas"]["NewThing"]["required"].clear()


def explain(api: Document) -> None:
    api["paths"][THINGS]["get"]["description"] = "All of them."


BREAKING: list[Callable[[Document], None]] = [
    *(remove_path, remove_operation, rename_operation, change_status, change_media_type, require_token),
    *(require_new_property, require_known_property, shorten_property, remove_request_property),
    *(remove_response_property, remove_required_response_property),
    *(change_type_of_response_property, allow_null_in_response, remove_parameter, require_parameter),
]
HARMLESS: list[Callable[[Document], None]] = [
    *(change_nothing, add_path, add_optional_property, add_response_property, add_optional_parameter),
    *(add_optional_header, add_status, add_media_type, lengthen_property, require_less, explain),
]


def compare(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the script on what is given."""
    command = [REPOSITORY / "scripts/compare-api", *arguments]
    return subprocess.run(command, env={**os.environ, **variables}, capture_output=True, text=True, check=False)


def changed(folder: Path, change: Callable[[Document], None], version: str = "1.4.0") -> tuple[Path, Path]:
    """Write a description, and what ``change`` makes of it."""
    revised = copy.deepcopy(BASE)
    change(revised)
    revised["info"]["version"] = version
    paths = folder / "base.yaml", folder / "revised.yaml"
    for path, document in zip(paths, (BASE, revised), strict=True):
        path.write_text(yaml.safe_dump(document, sort_keys=False))
    return paths


@pytest.mark.parametrize("change", BREAKING, ids=lambda change: change.__name__)
def test_a_change_that_breaks_clients_is_refused(change: Callable[[Document], None], tmp_path: Path) -> None:
    result = compare(*changed(tmp_path, change))

    assert result.returncode == 1, result.stderr
    assert "clients of the earlier API would break" in result.stderr


@pytest.mark.parametrize("change", HARMLESS, ids=lambda change: change.__name__)
def test_a_change_that_breaks_nobody_is_accepted(change: Callable[[Document], None], tmp_path: Path) -> None:
    result = compare(*changed(tmp_path, change))

    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("version", "status"), [("2.0.0", 0), ("1.5.0", 1), ("0.9.0", 1)])
def test_a_break_takes_a_higher_major_version(version: str, status: int, tmp_path: Path) -> None:
    result = compare(*changed(tmp_path, remove_operation, version))

    assert result.returncode == status, result.stderr
    assert f"POST {THINGS}" in result.stderr, "what breaks is not named"


@pytest.mark.parametrize("name", ["openapi.yaml", "openapi-mail.yaml"])
def test_the_committed_description_can_be_compared(name: str) -> None:
    description = REPOSITORY / "docs" / name

    result = compare(description, description)

    assert result.returncode == 0, result.stderr


def test_a_description_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    base, revised = changed(tmp_path, change_nothing)
    revised.write_text("openapi: 3.0.3\ninfo: {version: 2.0.0}\npaths: [")

    result = compare(base, revised)

    assert result.returncode == 1
    assert "could not be compared" in result.stderr or "states no version" in result.stderr


def commit(repository: Path, message: str) -> None:
    identity = ["-c", "user.name=alice", "-c", "user.email=alice@example.com", "-c", "commit.gpgsign=false"]
    for command in (["add", "--all"], [*identity, "commit", "--quiet", "--message", message]):
        subprocess.run(["git", "-C", repository, *command], check=True)


def test_the_earlier_description_can_come_from_git(tmp_path: Path) -> None:
    _, revised = changed(tmp_path, remove_operation)
    committed = tmp_path / "docs/openapi.yaml"
    repository = {"GIT_DIR": str(tmp_path / ".git")}
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    commit(tmp_path, "Before there was a description.")
    committed.parent.mkdir()
    committed.write_text(yaml.safe_dump(BASE))
    commit(tmp_path, "The description.")

    same, broken, nothing = (
        compare("HEAD", committed, **repository),
        compare("HEAD", revised, **repository),
        compare("HEAD^1", revised, **repository),
    )

    assert same.returncode == 0, same.stderr
    assert broken.returncode == 1, broken.stderr
    assert nothing.returncode == 0, nothing.stderr
    assert "there is nothing to break" in nothing.stderr


@pytest.mark.parametrize("name", ["openapi.yaml", "openapi-mail.yaml"])
def test_each_description_is_compared_with_its_own_earlier_one(name: str, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    shutil.copytree(REPOSITORY / "docs", tmp_path / "docs")
    earlier = yaml.safe_load((tmp_path / "docs" / name).read_text())
    earlier["paths"]["/auth/gone/"] = earlier["paths"]["/auth/jwt/logout/"]
    (tmp_path / "docs" / name).write_text(yaml.safe_dump(earlier, sort_keys=False))
    commit(tmp_path, "With an operation that is gone.")

    result = compare("HEAD", GIT_DIR=str(tmp_path / ".git"))

    assert result.returncode == 1, result.stderr
    assert f"docs/{name}: clients of the earlier API would break" in result.stderr


@pytest.mark.parametrize("revision", ["no-such-branch", "docs/no-such-file.yaml"])
def test_a_revision_that_is_not_there_is_refused(revision: str) -> None:
    result = compare(revision)

    assert result.returncode == 2
    assert revision in result.stderr
