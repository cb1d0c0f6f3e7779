"""Turns what the Postman converter makes of docs/openapi.yaml into a collection that works when it is run.

usage: python tests/clients/postman.py OPENAPI CONVERTED OUTPUT-FOLDER

The converter writes each request once, with random ids, random values and no order. This gives them the order in
which they can work, the values of this run's account, the ids of the rows that the run made, and tests.
./scripts/describe-api calls it. Everything is derived from the schema, except for what the constants below name.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import yaml

SCRIPTS = Path(__file__).parent / "postman"
BASE_URL = "http://127.0.0.1:8080"
"""Where ./scripts/up serves; another stack's goes into the environment."""

REGISTER, LOGIN = "register", "login"
"""The operations that open a session, which every other needs."""

ACCOUNT = "get_account"
"""The operation that tells whether the session is still open."""

VALUES = {
    "username": "{{username}}",
    "email": "{{username}}@example.com",
    "password": "{{password}}",
    "current_password": "{{password}}",
    "new_password": "{{password}}",
    "refresh": "{{refreshToken}}",
    "token": "{{accessToken}}",
}
"""What a property of a request is set to, by its name, wherever it occurs."""

SAVED = {"access": "accessToken", "refresh": "refreshToken"}
"""The properties of an answer that are kept, and the variable that keeps each."""

HEADERS = {"Idempotency-Key": "{{$guid}}"}
"""The optional headers that are sent nevertheless, as a careful client does."""

NAMESPACE = UUID("6f2d3c0e-52a5-4ad1-8c57-4f0f3f4c2f7e")
"""Ids are made from it and a name, so that the same schema gives the same collection."""

METHODS = ["post", "get", "put", "patch", "delete"]
"""In the order in which they are sent: what is read has been made before, and is deleted last."""

SUCCESS = re.compile(r"2[0-9][0-9]")

Json = dict[str, Any]


@dataclass(frozen=True)
class Operation:
    """One operation of the schema."""

    path: str
    method: str
    description: Json

    @property
    def id(self) -> str:
        """The name by which the schema and every client know it."""
        return str(self.description["operationId"])

    @property
    def authenticated(self) -> bool:
        """Whether it needs an access token."""
        return any(self.description.get("security", []))

    @property
    def answers(self) -> dict[int, list[str]]:
        """The media types of each documented success."""
        return {
            int(status): sorted(response.get("content", {}))
            for status, response in sorted(self.description["responses"].items())
            if SUCCESS.fullmatch(status)
        }


class Schema:
    """The schema, as far as a collection needs it."""

    def __init__(self, document: Json) -> None:
        """Read the operations of ``document``."""
        self.document = document
        self.operations = {
            operation.id: operation
            for path, item in document["paths"].items()
            for method, description in item.items()
            if method in METHODS
            for operation in [Operation(path, method, description)]
        }
        for name in (REGISTER, LOGIN, ACCOUNT):
            if name not in self.operations:
                raise SystemExit(f"postman.py: error: the schema has no operation {name!r}, which this program names")

    def resolve(self, node: Json) -> Json:
        """Return ``node``, or what it refers to."""
        while "$ref" in node:
            reference, node = node["$ref"], self.document
            for key in reference.removeprefix("#/").split("/"):
                node = node[key]
        return node

    def properties(self, media_types: Json) -> Json:
        """Return the properties of a JSON body."""
        schema = self.resolve(media_types.get("application/json", {}).get("schema", {}))
        return {name: self.resolve(value) for name, value in schema.get("properties", {}).items()}

    def answered_properties(self, operation: Operation) -> Json:
        """Return the properties of the body of a success."""
        found: Json = {}
        for status in operation.answers:
            found.update(self.properties(operation.description["responses"][str(status)].get("content", {})))
        return found

    def parameters(self, operation: Operation) -> dict[tuple[str, str], Json]:
        """Return the parameters of the operation by place and name."""
        listed = [
            *self.document["paths"][operation.path].get("parameters", []),
            *operation.description.get("parameters", []),
        ]
        return {(found["in"], found["name"]): found for found in map(self.resolve, listed)}

    def body(self, operation: Operation) -> Json | None:
        """Return a body for the request: the documented example or what is required, with the values of this run."""
        if "requestBody" not in operation.description:
            return None
        content = self.resolve(operation.description["requestBody"])["content"]
        media = content["application/json"]
        examples = [example["value"] for example in media.get("examples", {}).values()]
        body = dict(examples[0]) if examples else {}
        required = self.resolve(media["schema"]).get("required", [])
        for name, schema in self.properties(content).items():
            if name in VALUES and (name in body or name in required or not examples):
                body[name] = VALUES[name]
            elif name in required and name not in body:
                body[name] = schema.get("example", schema.get("default", "1"))
        return body


def main(openapi: Path, converted: Path, output: Path) -> None:
    """Write the collection and its environment."""
    schema = Schema(yaml.safe_load(openapi.read_text()))
    collection = build_collection(schema, json.loads(converted.read_text()))
    write(output / "collection.json", collection)
    write(output / "environment.json", build_environment(schema))


def build_collection(schema: Schema, converted: Json) -> Json:
    """Return the collection: registration and login, the tags in the schema's order, and the end of the account."""
    items = {operation.id: build_item(schema, operation, item) for operation, item in matched(schema, converted)}
    if missing := schema.operations.keys() - items.keys():
        raise SystemExit(f"postman.py: error: the converter left out {', '.join(sorted(missing))}")

    first = [REGISTER, LOGIN]
    # What has no id and is deleted is the account itself.
    last = [o.id for o in schema.operations.values() if o.method == "delete" and "{" not in o.path]
    between = sorted(
        (operation for name, operation in schema.operations.items() if name not in {*first, *last}),
        key=lambda operation: (METHODS.index(operation.method), operation.path),
    )
    folders = [
        folder("Start", "Makes an account of its own for this run, and logs in.", [items[name] for name in first])
    ]
    for tag in schema.document["tags"]:
        tagged = [items[operation.id] for operation in between if operation.description["tags"] == [tag["name"]]]
        if tagged:
            folders.append(folder(tag["name"].capitalize(), tag["description"], tagged, in_session(schema)))
    folders.append(folder("End", "Closes the account.", [items[name] for name in last], in_session(schema)))
    if sum(len(one["item"]) for one in folders) != len(schema.operations):
        raise SystemExit(
            "postman.py: error: an operation has no tag, or more than one, or one that the schema does not list"
        )

    return {
        "info": {
            "_postman_id": stable_id("collection"),
            "name": schema.document["info"]["title"],
            "description": schema.document["info"]["description"],
            "schema": converted["info"]["schema"],
        },
        "auth": {"type": "bearer", "bearer": [{"key": "token", "value": "{{accessToken}}", "type": "string"}]},
        "event": [script("test", "wait-when-limited.js")],
        "item": folders,
    }


def build_environment(schema: Schema) -> Json:
    """Return the variables of a run; the requests fill all but the first."""
    public = ["username", *sorted({variable_of(path) for path in paths_of_rows(schema)})]
    return {
        "id": stable_id("environment"),
        "name": schema.document["info"]["title"],
        "values": [
            {"key": "baseUrl", "value": BASE_URL, "type": "default", "enabled": True},
            *({"key": name, "value": "", "type": "default", "enabled": True} for name in public),
            *({"key": name, "value": "", "type": "secret", "enabled": True} for name in ("password", *SAVED.values())),
        ],
        "_postman_variable_scope": "environment",
    }


def matched(schema: Schema, converted: Json) -> Iterator[tuple[Operation, Json]]:
    """Yield each request of the converter with the operation that it was made from."""
    by_route = {(operation.method, operation.path): operation for operation in schema.operations.values()}
    waiting = list(converted["item"])
    while waiting:
        item = waiting.pop()
        if "item" in item:
            waiting += item["item"]
            continue
        request = item["request"]
        path = "/" + "/".join(re.sub(r"^:(.+)", r"{\1}", part) for part in request["url"]["path"])
        yield by_route[request["method"].lower(), path], item


def build_item(schema: Schema, operation: Operation, converted: Json) -> Json:
    """Return one request with its tests."""
    request: Json = {"method": operation.method.upper(), "url": build_url(schema, operation, converted)}
    if not operation.authenticated:
        request["auth"] = {"type": "noauth"}
    request["header"] = build_headers(schema, operation, converted)
    if (body := schema.body(operation)) is not None:
        language = {"raw": {"language": "json"}}
        request["body"] = {"mode": "raw", "raw": json.dumps(body, indent=2), "options": language}
        if not any(header["key"] == "Content-Type" for header in request["header"]):
            request["header"].insert(0, {"key": "Content-Type", "value": "application/json"})
    request["description"] = operation.description.get("description", "")

    events = [inline("test", tests_of(schema, operation))]
    if operation.id == REGISTER:
        events.insert(0, script("prerequest", "new-account.js"))
    name = operation.description["summary"]
    return {"id": stable_id(operation.id), "name": name, "event": events, "request": request, "response": []}


def build_url(schema: Schema, operation: Operation, converted: Json) -> Json:
    """Return the URL: the row that this run made, and the optional parameters ready to be switched on."""
    url = converted["request"]["url"]
    parameters = schema.parameters(operation)
    query = [describe(parameters["query", found["key"]], found) for found in url.get("query", [])]
    rows = [
        {"key": found["key"], "value": f"{{{{{variable_of(parent_of(operation.path))}}}}}"}
        for found in url.get("variable", [])
    ]
    raw = "{{baseUrl}}/" + "/".join(url["path"])
    if enabled := [f"{found['key']}={found['value']}" for found in query if not found.get("disabled")]:
        raw += "?" + "&".join(enabled)
    built: Json = {"raw": raw, "host": ["{{baseUrl}}"], "path": url["path"]}
    if query:
        built["query"] = query
    if rows:
        built["variable"] = rows
    return built


def build_headers(schema: Schema, operation: Operation, converted: Json) -> list[Json]:
    """Return the headers: the converter's own, and those of the schema."""
    parameters = schema.parameters(operation)
    return [
        describe(parameters["header", found["key"]], found)
        if ("header", found["key"]) in parameters
        else {"key": found["key"], "value": found["value"]}
        for found in converted["request"].get("header", [])
    ]


def describe(parameter: Json, converted: Json) -> Json:
    """Return a parameter in the query or a header; switched off where the schema leaves it to the client."""
    name = converted["key"]
    value = HEADERS.get(name) or parameter.get("example") or parameter.get("schema", {}).get("default", "")
    built: Json = {"key": name, "value": str(value), "description": parameter.get("description", "")}
    if not parameter.get("required") and name not in HEADERS:
        built["disabled"] = True
    return built


def tests_of(schema: Schema, operation: Operation) -> str:
    """Return the script that checks the answer against the schema and keeps what later requests need."""
    documented = json.dumps({str(status): media_types for status, media_types in operation.answers.items()})
    lines = [
        "// A 429 is no answer yet: the collection waits and asks again.",
        "if (pm.response.code !== 429) {",
        f"    const documented = {documented}[pm.response.code];",
        '    pm.test("answers with a documented success", () => {',
        '        pm.expect(documented, pm.response.code + " " + pm.response.text()).to.be.an("array");',
        "    });",
        "    if (documented) {",
        '        pm.test("answers in a documented media type", () => {',
        '            const mediaType = (pm.response.headers.get("Content-Type") || "").split(";")[0];',
        "            if (documented.length) pm.expect(documented).to.include(mediaType);",
        '            else pm.expect(pm.response.text()).to.equal("");',
        "        });",
        *(f"        {line}" for line in kept(schema, operation)),
        "    }",
        "}",
    ]
    return "\n".join(lines)


def kept(schema: Schema, operation: Operation) -> Iterator[str]:
    """Yield the lines that keep tokens, and the id of a row for the requests about one row."""
    properties = schema.answered_properties(operation)
    for name, variable in SAVED.items():
        if name in properties:
            yield f'pm.environment.set("{variable}", pm.response.json().{name});'
    if operation.path not in paths_of_rows(schema):
        return
    if operation.method == "post" and "id" in properties:
        yield f'pm.environment.set("{variable_of(operation.path)}", pm.response.json().id);'
    elif operation.method == "get" and not made_by_post(schema, operation.path) and "results" in properties:
        yield f'pm.environment.set("{variable_of(operation.path)}", pm.response.json().results[0].id);'


def made_by_post(schema: Schema, path: str) -> bool:
    """Return whether rows under ``path`` are made there, or only listed."""
    return any(operation.path == path and operation.method == "post" for operation in schema.operations.values())


def paths_of_rows(schema: Schema) -> set[str]:
    """Return the paths of which another path names one row by its id."""
    return {parent_of(operation.path) for operation in schema.operations.values() if "{" in operation.path}


def parent_of(path: str) -> str:
    """Return the path of the rows to which the one in ``path`` belongs."""
    return path[: path.index("{")]


def variable_of(path: str) -> str:
    """Return the variable that keeps the id of a row: ``/api/transactions/`` gives ``transactionId``."""
    return path.strip("/").split("/")[-1].removesuffix("s") + "Id"


def in_session(schema: Schema) -> Json:
    """Return the script that logs in again where an earlier request has ended the session."""
    paths = {"LOGIN": schema.operations[LOGIN].path, "ACCOUNT": schema.operations[ACCOUNT].path}
    text = (SCRIPTS / "open-session.js").read_text()
    for name, path in paths.items():
        text = text.replace(name, f"{{{{baseUrl}}}}{path}")
    return inline("prerequest", text)


def folder(name: str, description: str, items: list[Json], *events: Json) -> Json:
    """Return a folder of requests."""
    built: Json = {"id": stable_id(f"folder {name}"), "name": name, "description": description}
    if events:
        built["event"] = list(events)
    return {**built, "item": items}


def script(listen: str, file: str) -> Json:
    """Return a script from a file beside this program."""
    return inline(listen, (SCRIPTS / file).read_text())


def inline(listen: str, text: str) -> Json:
    """Return a script."""
    return {"listen": listen, "script": {"type": "text/javascript", "exec": text.rstrip().splitlines()}}


def stable_id(name: str) -> str:
    """Return the id that ``name`` always has."""
    return str(uuid5(NAMESPACE, name))


def write(path: Path, document: Json) -> None:
    """Write JSON as it is committed."""
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(__doc__)
    main(*map(Path, sys.argv[1:]))
