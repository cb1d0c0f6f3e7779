"""Do all variants answer the same, and let in the same? Otherwise their costs cannot be compared."""

from __future__ import annotations

import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from http import HTTPStatus
from typing import Any

import jwt
from psycopg import sql

from tests.benchmarks import data
from tests.benchmarks.processes import BenchError
from tests.benchmarks.variants import Running, Shipped, Tokens

LIST, LOGIN, REFRESH, LOGOUT = "/api/transactions/", "/auth/jwt/create/", "/auth/jwt/refresh/", "/auth/jwt/logout/"
FIELDS = {"id", "user", "amount", "description", "timestamp"}
OF_ONE = {"count_is_exact"}
"""What this stack alone has in the envelope of a page; it is left out of the comparison."""

SOME_USERS = (0, 41, 99)
HELD_BACK = 50
"""The user whose account is closed for a moment."""


def check_agreement(fleet: Sequence[Running], operations: Sequence[str]) -> None:
    """Raise ``BenchError`` where two variants answer differently what is measured; leave the rows as they were."""
    for running in fleet:
        check_tokens(running, operations)
    first = fleet[0]
    expected = _answers(first, operations)
    for running in fleet[1:]:
        for question, answer in _answers(running, operations).items():
            if answer != expected[question]:
                raise BenchError(
                    f"{running.variant.name} and {first.variant.name} disagree about {question}:\n"
                    f"  {str(answer)[:500]}\n  {str(expected[question])[:500]}"
                )


# Who is let in --------------------------------------------------------------------------------------------------------


def check_tokens(running: Running, operations: Sequence[str]) -> None:
    """Raise ``BenchError`` where a variant looks less closely at who asks than the others."""
    [token] = running.variant.tokens([HELD_BACK])
    key = running.variant.setting.secret
    for what, access, expected in (
        ("a good token", token.access, HTTPStatus.OK),
        # So that what follows is refused for what it says.
        ("a token signed once more", _signed(token.access, key), HTTPStatus.OK),
        ("no token", "", HTTPStatus.UNAUTHORIZED),
        ("a bad signature", token.access[:-8] + "AAAAAAAA", HTTPStatus.UNAUTHORIZED),
        ("another key", _signed(token.access, secrets.token_urlsafe(48)), HTTPStatus.UNAUTHORIZED),
        ("an expired token", _signed(token.access, key, exp=int(time.time()) - 3600), HTTPStatus.UNAUTHORIZED),
        ("a refresh token for an access token", token.refresh, HTTPStatus.UNAUTHORIZED),
    ):
        _expect(running, what, token, expected, access=access)
    with _closed(running):
        _expect(running, "an account that was closed", token, HTTPStatus.UNAUTHORIZED)
        for operation, path, body in (
            ("create", LIST, {"user": token.user, "amount": "1.00", "description": "Tea"}),
            ("refresh", REFRESH, {"refresh": token.refresh}),
            ("login", LOGIN, {"username": f"user{token.user}", "password": data.PASSWORD}),
        ):
            if operation in operations:
                status, _ = _ask(running, "POST", path, token.access if operation == "create" else "", body)
                _must_be(running, f"{operation} of an account that was closed", status, HTTPStatus.UNAUTHORIZED)
    _expect(running, "an account that was opened again", token, HTTPStatus.OK)
    if isinstance(running.variant, Shipped):
        # The others have no sessions.
        status, _ = _ask(running, "POST", LOGOUT, token.access, {"refresh": token.refresh})
        _must_be(running, "logout", status, HTTPStatus.NO_CONTENT)
        _expect(running, "a session that was ended", token, HTTPStatus.UNAUTHORIZED)


def _expect(running: Running, what: str, token: Tokens, expected: HTTPStatus, *, access: str | None = None) -> None:
    for path in (LIST, _one(token.user)):
        status, answer = _ask(running, "GET", path, token.access if access is None else access)
        _must_be(running, f"{what}, GET {path}", status, expected)
        if status != HTTPStatus.OK and "detail" not in answer:
            raise BenchError(f"{running.variant.name}, {what}, GET {path}: no detail in {answer}")


def _must_be(running: Running, what: str, status: int, expected: HTTPStatus) -> None:
    if status != expected:
        raise BenchError(f"{running.variant.name}, {what}: answered {status}, not {expected.value}")


def _signed(token: str, key: str, **changed: Any) -> str:
    """Return the same claims but for those that are ``changed``, signed with ``key``."""
    claims = jwt.decode(token, options={"verify_signature": False})
    header = jwt.get_unverified_header(token)
    return jwt.encode({**claims, **changed}, key, algorithm="HS256", headers=header)


@contextmanager
def _closed(running: Running) -> Iterator[None]:
    """Close an account for as long as the context lasts."""
    variant = running.variant
    close = sql.SQL("UPDATE {} SET is_active = %s WHERE id = %s").format(sql.Identifier(variant.users))
    with variant.setting.connect(variant.database) as connection:
        connection.execute(close, [False, HELD_BACK])
        try:
            yield
        finally:
            connection.execute(close, [True, HELD_BACK])


# What is answered -----------------------------------------------------------------------------------------------------


def _one(user: int) -> str:
    """Return the path of a row of that user."""
    return f"{LIST}{5 * data.USERS + user}/"


def _answers(running: Running, operations: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for number in SOME_USERS:
        token = running.tokens[number]
        for operation, path in (
            ("list", LIST),
            ("search", f"{LIST}?search={data.WORD}"),
            ("detail", _one(token.user)),
        ):
            if operation in operations:
                found[f"{operation} of user {token.user}"] = _plain(*_ask(running, "GET", path, token.access))
        if "detail" in operations:
            stranger = running.tokens[number - 1].access
            found[f"detail of a stranger's row, user {token.user}"] = _plain(
                *_ask(running, "GET", _one(token.user), stranger)
            )
    if "create" in operations:
        found["create"] = _create(running)
    if "login" in operations:
        body = {"username": "user1", "password": data.PASSWORD}
        found["login"] = _pair(running, LOGIN, body)
        found["login with a wrong password"] = _plain(*_ask(running, "POST", LOGIN, "", {**body, "password": "wrong"}))
    if "refresh" in operations:
        # Not one of those that are measured: a spent token that comes back ends its session here.
        [token] = running.variant.tokens([1])
        found["refresh"] = _pair(running, REFRESH, {"refresh": token.refresh})
        found["refresh with a spent token"] = _plain(*_ask(running, "POST", REFRESH, "", {"refresh": token.refresh}))
    return found


def _pair(running: Running, path: str, body: dict[str, str]) -> Any:
    """Return what may be compared of a new pair of tokens: its names, and what its access token opens."""
    status, answer = _ask(running, "POST", path, "", body)
    if status != HTTPStatus.OK:
        return _plain(status, answer)
    return status, sorted(answer), _plain(*_ask(running, "GET", LIST, answer["access"]))


def _create(running: Running) -> Any:
    token = running.tokens[0]
    body = {"user": token.user, "amount": "-3.20", "description": "Coffee"}
    status, row = _ask(running, "POST", LIST, token.access, body)
    with running.variant.setting.connect(running.variant.database) as connection:
        connection.execute("DELETE FROM transactions_transaction WHERE id > %s", [data.USERS * data.ROWS])
    return status, {name: value for name, value in row.items() if name not in {"id", "timestamp"}}, sorted(row)


def _ask(running: Running, method: str, path: str, token: str, body: Any = None) -> tuple[int, dict[str, Any]]:
    headers = {"Accept": "application/json", "Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(running.url + path, content, headers, method=method)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as response:
            return response.status, _body(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _body(error.read())


def _body(content: bytes) -> dict[str, Any]:
    answer = json.loads(content or b"{}")
    if not isinstance(answer, dict):
        raise BenchError(f"not an object of JSON: {content[:200]!r}")
    return answer


def _plain(status: int, answer: dict[str, Any]) -> Any:
    """Return an answer without what may differ.

    That is the host in links and the order of their parameters, how a moment is spelled, and the words of a refusal,
    which each framework has in ``detail``.
    """
    if status >= HTTPStatus.BAD_REQUEST:
        return status, "detail" in answer
    if "results" not in answer:
        return status, _row(answer)
    rows = [_row(row) for row in answer["results"]]
    following = sorted(str(answer["next"]).partition("?")[2].split("&"))
    return status, sorted(set(answer) - OF_ONE), answer["count"], answer["previous"], following, rows


def _row(row: dict[str, Any]) -> Any:
    if set(row) != FIELDS:
        return sorted(row)
    return {**row, "timestamp": datetime.fromisoformat(row["timestamp"]).isoformat()}
