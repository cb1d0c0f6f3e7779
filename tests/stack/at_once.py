"""Many hands that send their requests at the same moment, each over a connection of its own."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import httpx

from tests.stack.people import connect

HANDS, ROUNDS = 20, 10
"""Several rounds, since a race is not lost every time."""


def at_once(base_url: str, send: Callable[[httpx.Client], httpx.Response]) -> list[httpx.Response]:
    """Return the answers to what ``HANDS`` hands send, once all of them are connected."""
    start = Barrier(HANDS)

    def act(_hand: int) -> httpx.Response:
        with connect(base_url) as client:
            client.get("/healthz")  # the connection is there before the start
            start.wait(timeout=30)
            return send(client)

    with ThreadPoolExecutor(HANDS) as hands:
        return list(hands.map(act, range(HANDS)))
