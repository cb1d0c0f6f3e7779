"""Clients that go on as people do while something is replaced beneath them, and notice whatever fails."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import httpx

from tests.stack.people import Person, sign_up

PAUSE_SECONDS = 0.02
"""Between two requests of one client: enough of them for others on the same host to work too."""

REFRESH_EVERY = 20


@dataclass
class Load:
    """What the clients have done and seen so far."""

    done: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    written: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, kind: str, wanted: HTTPStatus, answer: httpx.Response | Exception) -> None:
        """Count one request."""
        with self.lock:
            self.done[kind] += 1
            if isinstance(answer, Exception):
                self.failures.append(f"{kind}: {answer!r}")
            elif answer.status_code != wanted:
                self.failures.append(f"{kind}: {answer.status_code} {answer.text[:200]} {answer.headers}")

    def total(self) -> int:
        """Return how many requests there were."""
        return sum(self.done.values())


class Visitor:
    """One person with one connection, who reads, writes, and refreshes the session."""

    def __init__(self, person: Person, load: Load) -> None:
        self.person = person
        self.refresh = person.refresh
        self.load = load

    def ask(self, kind: str, wanted: HTTPStatus, method: str, path: str, **options: Any) -> httpx.Response | None:
        """Send one request; return the answer if it is the wanted one."""
        try:
            answer = self.person.client.request(method, path, **options)
        except httpx.HTTPError as error:
            self.load.note(kind, wanted, error)
            return None
        self.load.note(kind, wanted, answer)
        return answer if answer.status_code == wanted else None

    def record(self, kind: str, **options: Any) -> None:
        """Write a row and remember it."""
        description = f"{kind} {uuid4().hex}"
        row = {"amount": "1.00", "description": description}
        if self.ask(kind, HTTPStatus.CREATED, "POST", "/api/transactions/", json=row, **options):
            with self.load.lock:
                self.load.written[description] = self.person.name

    def renew(self) -> None:
        """Exchange the refresh token for the next pair, as a client does every quarter of an hour."""
        body = {"refresh": self.refresh}
        if answer := self.ask("refresh", HTTPStatus.OK, "POST", "/auth/jwt/refresh/", json=body):
            self.refresh = answer.json()["refresh"]
            self.person.client.headers["Authorization"] = f"Bearer {answer.json()['access']}"

    def go_on(self, stop: threading.Event) -> None:
        """Send one request after the other."""
        turn = 0
        while not stop.is_set():
            turn += 1
            self.ask("read", HTTPStatus.OK, "GET", "/api/transactions/")
            if turn % 2:
                self.record("plain")
            else:
                self.record("keyed", headers={"Idempotency-Key": uuid4().hex})
            if turn % REFRESH_EVERY == 0:
                self.renew()
            time.sleep(PAUSE_SECONDS)


@contextmanager
def steady_load(base_url: str, *, clients: int = 8, **options: Any) -> Iterator[Load]:
    """Keep ``clients`` people busy until the block ends; then each proves that the session of the start goes on."""
    load, stop = Load(), threading.Event()
    visitors = [Visitor(sign_up(base_url, "busy", **options), load) for _ in range(clients)]
    threads = [threading.Thread(target=visitor.go_on, args=(stop,)) for visitor in visitors]
    for thread in threads:
        thread.start()
    try:
        time.sleep(1)
        yield load
        time.sleep(1)
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=60)
        for visitor in visitors:
            visitor.renew()
            visitor.ask("read", HTTPStatus.OK, "GET", "/api/transactions/")
            visitor.person.client.close()
