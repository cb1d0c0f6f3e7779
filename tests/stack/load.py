"""Clients that never stop asking while something happens to the stack, and the ledger that each of them keeps."""

import http.client
import json
import random
import ssl
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from tests.stack.containers import Stack
from tests.stack.people import Person, sign_up

CLIENTS = 32
PAUSE_SECONDS = (0.05, 0.5)
"""Between two requests of one client: some 100 requests a second in all, which two processors can bear."""

PATIENCE_SECONDS = 15
TURNS = ("GET", "keyed POST", "plain POST") * 6 + ("refresh",)
"""What each client does, over and over; it begins at a place of its own."""


@dataclass
class Ledger:
    """What one client did."""

    asked: Counter[str] = field(default_factory=Counter)
    acknowledged: list[str] = field(default_factory=list)
    """The descriptions of the rows that the API has confirmed."""
    failures: list[str] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    """When a request was answered 503 with a time to come again, of the failures."""
    counted: int = 0
    """How many requests were sent while the load was on."""
    is_closed: bool = False


class Visitor:
    """One person, with a session, who reads, records with and without an Idempotency-Key, and renews the session.

    Nobody asks twice: whatever is not answered as it should be is a failure. Half of them keep their connection, half
    make a new one for each request.
    """

    def __init__(self, person: Person, connection: http.client.HTTPConnection, number: int) -> None:
        self.person = person
        self.ledger = Ledger()
        self._access, self._refresh = person.access, person.refresh
        self._connection = connection
        self._keeps_connection = number % 2 == 0
        self._turn = number

    def go_on(self, stop: threading.Event, chance: random.Random) -> None:
        """Send one request after the other."""
        while not stop.wait(chance.uniform(*PAUSE_SECONDS)):
            self._turn += 1
            self.do(TURNS[self._turn % len(TURNS)])
        # The session has lived through it all.
        self.ledger.counted = self.ledger.asked.total()
        self.do("refresh")
        self.do("GET")
        self._connection.close()
        self.ledger.is_closed = True

    def do(self, kind: str) -> None:
        """Send one request of this kind and note what comes of it."""
        if kind == "GET":
            self._ask(kind, HTTPStatus.OK, "GET", "/api/transactions/?limit=2")
        elif kind == "refresh":
            if pair := self._ask(kind, HTTPStatus.OK, "POST", "/auth/jwt/refresh/", {"refresh": self._refresh}):
                self._access, self._refresh = pair["access"], pair["refresh"]
        else:
            row = {"amount": "1.00", "description": uuid4().hex}
            key = {"Idempotency-Key": str(uuid4())} if kind == "keyed POST" else {}
            if self._ask(kind, HTTPStatus.CREATED, "POST", "/api/transactions/", row, **key):
                self.ledger.acknowledged.append(row["description"])

    def _ask(self, kind: str, wanted: HTTPStatus, method: str, path: str, body: object = None, **headers: str) -> Any:
        """Return the answer if it is the wanted one."""
        self.ledger.asked[kind] += 1
        headers |= {"Authorization": f"Bearer {self._access}", "Content-Type": "application/json"}
        if not self._keeps_connection:
            headers["Connection"] = "close"
        began = time.strftime("%H:%M:%S")
        try:
            self._connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = self._connection.getresponse()
            content = answer.read()
            if answer.status == wanted:
                return json.loads(content)
        except (OSError, ValueError, http.client.HTTPException) as error:
            self.ledger.failures.append(f"{began} {kind} {body}: {type(error).__name__} {error}")
            self._connection.close()
            return None
        if answer.status == HTTPStatus.SERVICE_UNAVAILABLE and answer.getheader("Retry-After"):
            self.ledger.refused.append(time.monotonic())
        request_id = answer.getheader("X-Request-ID")
        self.ledger.failures.append(f"{began} {kind} {body}: {answer.status} {content[:200]!r} {request_id}")
        return None


class Load:
    """Constant load from outside while the block runs: a third each of GET, keyed POST and plain POST, and refreshes.

    ``trust`` says whom a client trusts where the stack speaks TLS.
    """

    def __init__(self, stack: Stack, *, seed: int = 0, trust: ssl.SSLContext | None = None) -> None:
        self.stack = stack
        self._seed = seed
        self._trust = trust
        self._stop = threading.Event()
        with ThreadPoolExecutor(4) as pool:
            self._visitors = list(pool.map(self._visitor, range(CLIENTS)))
        self._threads = [
            threading.Thread(target=visitor.go_on, args=(self._stop, random.Random(seed + number)))  # noqa: S311
            for number, visitor in enumerate(self._visitors)
        ]

    def _visitor(self, number: int) -> Visitor:
        person = sign_up(self.stack.base_url, "busy", **({"verify": self._trust} if self._trust else {}))
        person.client.close()
        address = urlsplit(self.stack.base_url).netloc
        if self._trust:
            secure = http.client.HTTPSConnection(address, timeout=PATIENCE_SECONDS, context=self._trust)
            return Visitor(person, secure, number)
        return Visitor(person, http.client.HTTPConnection(address, timeout=PATIENCE_SECONDS), number)

    def __enter__(self) -> "Load":
        """Begin."""
        for thread in self._threads:
            thread.start()
        time.sleep(1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End, each client after the answer to its last request and one more refresh of its session."""
        time.sleep(1)
        self._stop.set()
        for thread, visitor in zip(self._threads, self._visitors, strict=True):
            thread.join(PATIENCE_SECONDS * 2)
            if not visitor.ledger.is_closed:
                visitor.ledger.failures.append("a client hung, or went down")

    @property
    def asked(self) -> Counter[str]:
        """How many requests were sent, of each kind."""
        return sum((visitor.ledger.asked for visitor in self._visitors), Counter[str]())

    @property
    def failures(self) -> list[str]:
        """What was not answered as it should be."""
        return [failure for visitor in self._visitors for failure in visitor.ledger.failures]

    def _was_refused_for(self, seconds: float) -> bool:
        """Return whether nothing but 503 went wrong, with a time to come again, and for no longer than ``seconds``."""
        moments = [moment for visitor in self._visitors for moment in visitor.ledger.refused]
        return len(moments) == len(self.failures) and max(moments) - min(moments) <= seconds

    def assert_whole(self, *, refused_for: float = 0) -> None:
        """Fail unless every request was answered, and every confirmed row is there, once.

        For ``refused_for`` seconds requests may be answered 503.
        """
        assert self.failures == [] or (refused_for and self._was_refused_for(refused_for)), "\n".join(
            [
                f"{len(self.failures)} of {self.asked.total()} requests failed (seed {self._seed}):",
                *self.failures,
                *self._logged(),
            ]
        )
        acknowledged = Counter(row for visitor in self._visitors for row in visitor.ledger.acknowledged)
        people = ",".join(f"'{visitor.person.name}'" for visitor in self._visitors)
        select = (
            "SELECT t.description FROM transactions_transaction t JOIN accounts_user u ON u.id = t.user_id"  # noqa: S608
            f" WHERE u.username IN ({people})"
        )
        stored = Counter(self.stack.sql(select).stdout.split())
        assert set(self.asked) == set(TURNS), "the load was no load"
        assert min(visitor.ledger.counted for visitor in self._visitors) > 1, "a client was no load"
        assert len(acknowledged) > CLIENTS, "the load was no load"
        assert stored == acknowledged, (
            f"lost: {sorted(acknowledged - stored)[:5]}, too many: {sorted(stored - acknowledged)[:5]}"
        )

    def _logged(self) -> list[str]:
        """Return what nginx has logged of the requests that failed with an answer."""
        ids = {failure.rpartition(" ")[2] for failure in self.failures}
        return [line for line in self.stack.logs("nginx").splitlines() if any(one in line for one in ids)]
