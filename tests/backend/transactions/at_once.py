"""Many requests at the same moment, each with a database connection of its own."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

from django.db import connection


def at_once(sends: Iterable[Callable[[], Any]]) -> list[Any]:
    """Return what each of ``sends`` returns, called from threads that start together."""
    sends = list(sends)
    barrier = Barrier(len(sends))

    def call(send: Callable[[], Any]) -> Any:
        try:
            connection.ensure_connection()
            barrier.wait(timeout=30)
            return send()
        finally:
            connection.close()

    with ThreadPoolExecutor(len(sends)) as threads:
        return list(threads.map(call, sends))
