"""Clients that take their time: they keep nobody else out, and do not keep what they hold."""

import resource
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http import HTTPStatus

import pytest

from tests.stack import wire
from tests.stack.containers import PATIENCE
from tests.stack.people import connect

HALF_OPEN = 2000
"""Twice what two processes hold with nginx's own `worker_connections`, 512: there they hang up on half of them."""

HEAD_SECONDS, BODY_SECONDS = 10, 15
"""client_header_timeout and client_body_timeout in nginx/snippets/client-timeouts.conf."""

HALF_A_HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
HALF_A_BODY = b"POST /auth/users/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"


@contextmanager
def half_open(base_url: str, number: int) -> Iterator[list[socket.socket]]:
    """Hold so many connections, each in the middle of a request."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, number * 2)), hard))
    try:
        with ExitStack() as connections:
            held = [connections.enter_context(wire.connect(base_url)) for _ in range(number)]
            for connection in held:
                with suppress(ConnectionError):
                    connection.sendall(HALF_A_HEAD)
            yield held
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def is_open(connection: socket.socket) -> bool:
    """Whether nginx has neither answered nor hung up."""
    connection.setblocking(False)
    try:
        connection.recv(1)
    except BlockingIOError:
        return True
    except ConnectionError:
        pass
    return False


def test_half_open_connections_of_one_client_keep_no_other_out(base_url: str) -> None:
    statuses = []
    with half_open(base_url, HALF_OPEN) as held:
        for _ in range(20):
            with connect(base_url) as client:
                statuses.append(client.get("/healthz").status_code)
        still_open = sum(map(is_open, held))

    assert statuses == [HTTPStatus.OK] * 20
    # Not because it has hung up on half of them; some may be past their ten seconds, where the host is slow.
    assert still_open > HALF_OPEN * 3 / 4


def seconds_until_closed(base_url: str, begin: bytes, drop: bytes) -> float:
    """Begin a request and go on with it drop by drop; return after how long nginx has had enough."""
    started = time.monotonic()
    with wire.connect(base_url) as connection:
        connection.sendall(begin)
        connection.settimeout(1)
        while time.monotonic() - started < 60 * PATIENCE:
            try:
                if connection.recv(1024) == b"":
                    break
            except TimeoutError:
                connection.sendall(drop)
            except ConnectionError:
                break
    return time.monotonic() - started


@pytest.mark.timeout(240)
def test_a_client_that_is_too_slow_is_not_waited_for(base_url: str) -> None:
    with ThreadPoolExecutor(2) as pool:
        head = pool.submit(seconds_until_closed, base_url, HALF_A_HEAD, b"X")
        body = pool.submit(seconds_until_closed, base_url, HALF_A_BODY, b"")

    # The head as a whole, however steadily it drips; between two pieces of the body. nginx's own are 60 s.
    assert HEAD_SECONDS - 1 < head.result() < HEAD_SECONDS * PATIENCE
    assert BODY_SECONDS - 1 < body.result() < BODY_SECONDS * PATIENCE
