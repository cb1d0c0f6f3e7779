"""One slice of load on one variant, and what it cost."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path

from tests.benchmarks import data
from tests.benchmarks.processes import BenchError, busy_microseconds, cpu_microseconds, settle
from tests.benchmarks.setting import HERE, Setting
from tests.benchmarks.variants import Running, Tokens

CLIENT_CLOSED = 499
"""nginx's own status where the client did not wait: wrk ends with requests under way."""

STATUS = re.compile(rb'"status":([0-9]{3}),|" ([0-9]{3}) ')
"""In a line of either access log."""

Request = tuple[str, str, str, str]
"""Method, path, access token, body."""


@dataclass(frozen=True)
class Operation:
    """What is asked for, how, and what a right answer is."""

    name: str
    expected: HTTPStatus
    connections: int
    requests: Callable[[Sequence[Tokens]], list[Request]]
    chained: bool = False
    slower: int = 1
    """How many times longer its slices are: what takes a quarter of a second cannot be counted in one."""


def _list(tokens: Sequence[Tokens]) -> list[Request]:
    return [("GET", "/api/transactions/", token.access, "") for token in tokens]


def _detail(tokens: Sequence[Tokens]) -> list[Request]:
    # The id of row n of user u, by the order in which data.LOAD inserts.
    rows = [(token, n) for token in tokens for n in range(0, data.ROWS, 17)]
    random.Random(1).shuffle(rows)  # noqa: S311 # the same order each time
    return [("GET", f"/api/transactions/{n * data.USERS + token.user}/", token.access, "") for token, n in rows]


def _search(tokens: Sequence[Tokens]) -> list[Request]:
    return [("GET", f"/api/transactions/?search={data.WORD}", token.access, "") for token in tokens]


def _create(tokens: Sequence[Tokens]) -> list[Request]:
    body = {"amount": "-3.20", "description": "Coffee"}
    # The owner is in the body for those who read it there; this stack takes it from the token.
    return [("POST", "/api/transactions/", token.access, json.dumps({"user": token.user, **body})) for token in tokens]


def _refresh(tokens: Sequence[Tokens]) -> list[Request]:
    return [("POST", "/auth/jwt/refresh/", "", json.dumps({"refresh": token.refresh})) for token in tokens]


def _login(tokens: Sequence[Tokens]) -> list[Request]:
    bodies = [{"username": f"user{token.user}", "password": data.PASSWORD} for token in tokens]
    return [("POST", "/auth/jwt/create/", "", json.dumps(body)) for body in bodies]


OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        Operation("list", HTTPStatus.OK, 16, _list),
        Operation("detail", HTTPStatus.OK, 16, _detail),
        Operation("search", HTTPStatus.OK, 16, _search),
        Operation("refresh", HTTPStatus.OK, 16, _refresh, chained=True),
        # Six at once: one hash takes a processor for itself.
        Operation("login", HTTPStatus.OK, 6, _login, slower=2),
        # Last: it changes what the others read.
        Operation("create", HTTPStatus.CREATED, 16, _create),
    )
}


@dataclass(frozen=True)
class Slice:
    """One slice: CPU microseconds of each part for one request, requests a second, and latencies in milliseconds."""

    requests: int
    application: float
    proxy: float
    database: float
    per_second: float
    p50: float
    p99: float
    others: float
    """The share of the processors that others used meanwhile; on an idle machine next to nothing."""

    @property
    def cpu(self) -> float:
        """Return what a request cost in all."""
        return self.application + self.proxy + self.database

    def as_dict(self) -> dict[str, float]:
        """Return it for JSON."""
        return {**asdict(self), "cpu": self.cpu}


def run_slice(setting: Setting, running: Running, operation: Operation, *, seconds: float) -> Slice:
    """Put one variant under load; raise ``BenchError`` where an answer is not the expected one.

    What is divided by is the number of lines in the access log of nginx: every request that reached the application,
    also those under way when the load ended, whose work is waited for.
    """
    tokens = running.tokens
    if operation.chained:
        # Twice as many as can be under way.
        tokens = running.variant.tokens([1 + number % data.USERS for number in range(4 * operation.connections)])
    requests = operation.requests(tokens)
    listed = setting.work / "requests.tsv"
    listed.write_text("".join("\t".join(request) + "\n" for request in requests))

    parts = ([*running.application], [running.proxy], [setting.postmaster()])
    everything = [pid for part in parts for pid in part]
    settle(everything)
    start_of_log = running.access_log.stat().st_size
    started, busy, generator = time.monotonic(), busy_microseconds(), _own_microseconds()
    before = [cpu_microseconds(part) for part in parts]
    report = _wrk(setting, running.url, listed, operation, seconds * operation.slower)
    settle(everything)
    used = [cpu_microseconds(part) - start for part, start in zip(parts, before, strict=True)]
    by_others = busy_microseconds() - busy - sum(used) - (_own_microseconds() - generator)
    capacity = (time.monotonic() - started) * 1e6 * len(os.sched_getaffinity(0))

    served = _statuses(running.access_log, start_of_log)
    aborted = served.pop(CLIENT_CLOSED, 0)
    total = served.total() + aborted
    name = f"{running.variant.name}, {operation.name}"
    if set(served) - {operation.expected} or report["failed"] or report["refused"] or aborted > operation.connections:
        raise BenchError(f"{name}: not every request was answered {operation.expected.value}: {dict(served)}, {report}")
    if not total:
        raise BenchError(f"{name}: no request was answered within {seconds} s")
    application, proxy, database = (part / total for part in used)
    return Slice(
        total,
        application,
        proxy,
        database,
        report["requests"] / report["microseconds"] * 1e6,
        report["p50"] / 1000,
        report["p99"] / 1000,
        max(0.0, by_others / capacity),
    )


def _own_microseconds() -> float:
    """Return the CPU time of this process and of the load generators that have ended."""
    found = os.times()
    return (found.user + found.system + found.children_user + found.children_system) * 1e6


def _wrk(setting: Setting, url: str, listed: Path, operation: Operation, seconds: float) -> dict[str, int]:
    command = [
        str(setting.wrk), "--threads", "1", "--connections", str(operation.connections), "--timeout", "60s",
        "--duration", f"{max(1, round(seconds))}s", "--script", str(HERE / "wrk.lua"), url, "--", str(listed),
        *(["chain"] if operation.chained else []),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 120)
    if done.returncode:
        raise BenchError(f"wrk failed: {done.stderr or done.stdout}")
    report: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return report


def _statuses(log: Path, start: int) -> Counter[int]:
    with log.open("rb") as lines:
        lines.seek(start)
        found = (STATUS.search(line) for line in lines)
        return Counter(int(match[1] or match[2]) for match in found if match)
