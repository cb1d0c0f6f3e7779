"""Clients that never stop asking while something happens to the stack, and the ledger that each of them keeps."""

import http.client
import json
import random
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from urllib.parse import urlsplit
from uuid import uuid4

from tests.stack.containers import Stack
from tests.stack.people import PASSWORD, sign_up

CLIENTS = 32
PEOPLE = 4
PAUSE_SECONDS = (0.05, 0.5)
"""Between two requests of one client: some 100 requests a second in all, which two processors can bear."""

PATIENCE_SECONDS = 15
TOKEN_SECONDS = 600
"""How long an access token is used; it lives for 15 minutes."""


@dataclass
class Ledger:
    """What one client did."""

    asked: int = 0
    acknowledged: list[str] = field(default_factory=list)
    """The descriptions of the rows that the API has confirmed."""
    failures: list[str] = field(default_factory=list)


class Account:
    """An account whose access token is renewed before it expires."""

    def __init__(self, base_url: str, number: int) -> None:
        person = sign_up(base_url, f"load-{number}")
        person.client.close()
        self._base_url, self._name, self._access = base_url, person.name, person.access
        self._since, self._lock = time.monotonic(), threading.Lock()

    def token(self) -> str:
        """Return a token that is valid for minutes yet."""
        with self._lock:
            if time.monotonic() - self._since > TOKEN_SECONDS:
                address = urlsplit(self._base_url).netloc
                with closing(http.client.HTTPConnection(address, timeout=PATIENCE_SECONDS)) as connection:
                    credentials = json.dumps({"username": self._name, "password": PASSWORD})
                    connection.request("POST", "/auth/jwt/create/", credentials, {"Content-Type": "application/json"})
                    self._access = json.load(connection.getresponse())["access"]
                self._since = time.monotonic()
            return self._access


class Load:
    """Constant load from outside: a third each of GET, POST with an Idempotency-Key, and plain POST.

    No client asks twice: whatever is not answered as it should be is a failure. Half of them keep their connection,
    half make a new one for each request.
    """

    def __init__(self, stack: Stack, seed: int) -> None:
        self.stack = stack
        self.run = uuid4().hex[:8]
        self.seed = seed
        self.ledgers = [Ledger() for _ in range(CLIENTS)]
        self._accounts = [Account(stack.base_url, number) for number in range(PEOPLE)]
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(number,)) for number in range(CLIENTS)]

    def __enter__(self) -> "Load":
        """Begin."""
        for thread in self._threads:
            thread.start()
        time.sleep(1)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End, each client after the answer to its last request."""
        time.sleep(1)
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS * 2)

    @property
    def asked(self) -> int:
        """How many requests were sent."""
        return sum(ledger.asked for ledger in self.ledgers)

    @property
    def failures(self) -> list[str]:
        """What was not answered as it should be."""
        return [failure for ledger in self.ledgers for failure in ledger.failures]

    def assert_whole(self) -> None:
        """Fail unless every request was answered, and every confirmed row is there, once."""
        assert self.failures == [], "\n".join(
            [
                f"{len(self.failures)} of {self.asked} requests failed (seed {self.seed}):",
                *self.failures,
                *self._logged(),
            ]
        )
        acknowledged = Counter(name for ledger in self.ledgers for name in ledger.acknowledged)
        select = f"SELECT description FROM transactions_transaction WHERE description LIKE 'load-{self.run}-%'"  # noqa: S608
        stored = Counter(self.stack.sql(select).stdout.split())
        assert len(acknowledged) > CLIENTS, "the load was no load"
        assert stored == acknowledged, (
            f"lost: {sorted(acknowledged - stored)[:5]}, too many: {sorted(stored - acknowledged)[:5]}"
        )

    def _logged(self) -> list[str]:
        """Return what nginx has logged of the requests that failed with an answer."""
        ids = {failure.rpartition(" ")[2] for failure in self.failures}
        return [line for line in self.stack.logs("nginx").splitlines() if any(one in line for one in ids)]

    def _work(self, number: int) -> None:
        ledger, account = self.ledgers[number], self._accounts[number % PEOPLE]
        chance = random.Random(self.seed + number)  # noqa: S311
        keeps_connection = number % 2 == 0
        kind = ("GET", "keyed POST", "plain POST")[number % 3]
        connection = http.client.HTTPConnection(urlsplit(self.stack.base_url).netloc, timeout=PATIENCE_SECONDS)
        while not self._stop.wait(chance.uniform(*PAUSE_SECONDS)):
            ledger.asked += 1
            row = f"load-{self.run}-{number}-{ledger.asked}"
            headers = {"Authorization": f"Bearer {account.token()}", "Content-Type": "application/json"}
            if kind == "keyed POST":
                headers["Idempotency-Key"] = str(uuid4())
            if not keeps_connection:
                headers["Connection"] = "close"
            began = time.strftime("%H:%M:%S")
            try:
                if kind == "GET":
                    connection.request("GET", "/api/transactions/?limit=2", headers=headers)
                else:
                    connection.request(
                        "POST", "/api/transactions/", json.dumps({"amount": "1.00", "description": row}), headers
                    )
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != (HTTPStatus.OK if kind == "GET" else HTTPStatus.CREATED):
                    ledger.failures.append(
                        f"{began} {kind} {row}: {answer.status} {body[:200]!r} {answer.getheader('X-Request-ID')}"
                    )
                elif kind != "GET":
                    ledger.acknowledged.append(row)
            except (OSError, http.client.HTTPException) as error:
                ledger.failures.append(f"{began} {kind} {row}: {type(error).__name__} {error}")
                connection.close()
        connection.close()
