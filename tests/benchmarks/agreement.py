"""Do all variants answer the same? Otherwise their costs cannot be compared."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any

from tests.benchmarks import data
from tests.benchmarks.processes import BenchError
from tests.benchmarks.variants import Running

FIELDS = {"id", "user", "amount", "description", "timestamp"}
SOME_USERS = (0, 41, 99)


def check_agreement(fleet: Sequence[Running], operations: Sequence[str]) -> None:
    """Raise ``BenchError`` where two variants answer differently what is measured; leave the rows as they were."""
    first = fleet[0]
    expected = _answers(first, operations)
    for running in fleet[1:]:
        for question, answer in _answers(running, operations).items():
            if question in expected and answer != expected[question]:
                raise BenchError(
                    f"{running.variant.name} and {first.variant.name} disagree about {question}:\n"
                    f"  {str(answer)[:500]}\n  {str(expected[question])[:500]}"
                )


def _answers(running: Running, operations: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number in SOME_USERS:
        token = running.tokens[number]
        one = f"/api/transactions/{5 * data.USERS + token.user}/"
        for operation, path in (
            ("list", "/api/transactions/"),
            ("search", f"/api/transactions/?search={data.WORD}"),
            ("detail", one),
        ):
            if operation in operations:
                found[f"{operation} of user {token.user}"] = _plain(*_ask(running, "GET", path, token.access))
        if "detail" in operations:
            stranger = running.tokens[number - 1].access
            found[f"detail of a stranger's row, user {token.user}"] = _ask(running, "GET", one, stranger)[0]
    for path in ("/api/transactions/", f"/api/transactions/{data.USERS}/"):
        for token_of_nobody in ("", running.tokens[0].access[:-8] + "AAAAAAAA"):
            found[f"GET {path} without a token"] = _ask(running, "GET", path, token_of_nobody)[0]
    if "create" in operations:
        found["create"] = _create(running)
    for question, operation, path, body in (
        ("login", "login", "/auth/jwt/create/", {"username": "user1", "password": data.PASSWORD}),
        ("login with a wrong password", "login", "/auth/jwt/create/", {"username": "user1", "password": "wrong"}),
        ("refresh", "refresh", "/auth/jwt/refresh/", {"refresh": running.tokens[0].refresh}),
        ("refresh with a spent token", "refresh", "/auth/jwt/refresh/", {"refresh": running.tokens[0].refresh}),
    ):
        if operation in operations:
            status, answer = _ask(running, "POST", path, "", body)
            found[question] = status, sorted(answer) if status == HTTPStatus.OK else None
    return found


def _create(running: Running) -> Any:
    token = running.tokens[0]
    body = {"user": token.user, "amount": "-3.20", "description": "Coffee"}
    status, row = _ask(running, "POST", "/api/transactions/", token.access, body)
    with running.variant.setting.connect(running.variant.database) as connection:
        connection.execute("DELETE FROM transactions_transaction WHERE id > %s", [data.USERS * data.ROWS])
    if isinstance(row, dict):
        row = {name: value for name, value in row.items() if name not in {"id", "timestamp"}} | {"fields": sorted(row)}
    return status, row


def _ask(running: Running, method: str, path: str, token: str, body: Any = None) -> tuple[int, Any]:
    headers = {"Accept": "application/json", "Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(running.url + path, content, headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, {}


def _plain(status: int, answer: Any) -> Any:
    """Return an answer without what may differ: the host in links and their order, how a moment is spelled."""
    if not isinstance(answer, dict):
        return status, answer
    if "results" not in answer:
        return status, _row(answer)
    rows = [_row(row) for row in answer["results"]]
    return status, answer["count"], answer["previous"], sorted(str(answer["next"]).partition("?")[2].split("&")), rows


def _row(row: dict[str, Any]) -> Any:
    if set(row) != FIELDS:
        return sorted(row)
    return {**row, "timestamp": datetime.fromisoformat(row["timestamp"]).isoformat()}
