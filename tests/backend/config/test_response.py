"""What Gunicorn sends is the same with this stack's response as with its own, in fewer pieces."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from gunicorn import util
from gunicorn.config import Config
from gunicorn.http import RequestParser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from config.response import Response
from tests.backend.conftest import Python

(ITS_OWN,) = Response.__bases__
LONGEST = 50_000


@pytest.fixture(autouse=True, scope="module")
def one_second() -> Iterator[None]:
    """Let all answers be of one second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(util, "http_date", lambda: "Thu, 01 Jan 1970 00:00:00 GMT")
        yield


def begin(kind: type, sock: socket.socket, method: str, version: str, length: int | None) -> Any:
    """Return a response to a request that has arrived on ``sock``."""
    configuration = Config()
    head = f"{method} / HTTP/{version}\r\nHost: x\r\n\r\n".encode()
    request = next(RequestParser(configuration, iter([head]), ("127.0.0.1", 1)))
    headers = [("Content-Type", "text/plain")]
    if length is not None:
        headers.append(("Content-Length", str(length)))
    response = kind(request, sock, configuration)
    response.start_response("200 OK", headers)
    return response


def sent(
    kind: type, method: str, version: str, length: int | None, pieces: list[bytes], *, apart: bool = False
) -> list[bytes]:
    """Return what goes over a socket; ``apart``: over one that keeps apart what was sent one by one."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET if apart else socket.SOCK_STREAM)
    with ours, theirs:
        response = begin(kind, ours, method, version, length)
        for piece in pieces:
            response.write(piece)
        response.close()
        ours.shutdown(socket.SHUT_WR)
        return list(iter(lambda: theirs.recv(2 * LONGEST), b""))


@settings(deadline=None)
@given(
    method=st.sampled_from(["GET", "HEAD", "POST"]),
    version=st.sampled_from(["1.0", "1.1"]),
    length=st.none() | st.integers(0, 20),
    pieces=st.lists(st.binary(max_size=10), max_size=4),
)
@example(method="GET", version="1.1", length=3, pieces=[b"abc"])
@example(method="GET", version="1.1", length=None, pieces=[b"", b"a" * LONGEST, b"", b"bc"])
@example(method="GET", version="1.1", length=0, pieces=[])
@example(method="HEAD", version="1.1", length=3, pieces=[b""])
def test_an_answer_is_byte_for_byte_what_gunicorn_would_send(
    method: str, version: str, length: int | None, pieces: list[bytes]
) -> None:
    assert b"".join(sent(Response, method, version, length, pieces)) == b"".join(
        sent(ITS_OWN, method, version, length, pieces)
    )


@pytest.mark.parametrize(
    ("length", "pieces", "ends"),
    [
        (3, [b"abc"], [b"\r\n\r\nabc"]),
        (5, [b"abc", b"de"], [b"\r\n\r\nabc", b"de"]),
        (0, [b""], [b"\r\n\r\n"]),
        (0, [], [b"\r\n\r\n"]),
        (None, [b"abc", b"de"], [b"\r\n\r\n3\r\nabc\r\n", b"2\r\nde\r\n", b"0\r\n\r\n"]),
        (None, [b"", b"abc"], [b"\r\n\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n"]),  # what is there goes out at once
    ],
)
def test_head_and_first_piece_are_one(length: int | None, pieces: list[bytes], ends: list[bytes]) -> None:
    parts = sent(Response, "GET", "1.1", length, pieces, apart=True)

    assert len(parts) == len(ends)
    assert parts[0].startswith(b"HTTP/1.1 200 OK\r\n")
    assert parts[0].count(b"\r\n\r\n") == 1
    for part, end in zip(parts, ends, strict=True):
        assert part.endswith(end)


def test_nothing_is_sent_of_an_answer_that_is_no_bytes() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        response = begin(Response, ours, "GET", "1.1", 3)

        with pytest.raises(TypeError):
            response.write("abc")

        assert not response.headers_sent, "the worker answers 500 only where nothing was sent"
        ours.shutdown(socket.SHUT_WR)
        assert theirs.recv(1) == b""


def test_the_configuration_puts_it_in_the_place_of_gunicorns_own(python: Python) -> None:
    code = """
import runpy
from gunicorn import util
from gunicorn.config import Config
from gunicorn.http import RequestParser
from gunicorn.workers.gthread import wsgi
from config import response

runpy.run_path("gunicorn.conf.py")
address = ("127.0.0.1", 1)
request = next(RequestParser(Config(), iter([b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n"]), address))
made, _ = wsgi.create(request, None, address, address, Config())
print(type(made) is response.Response, util.http_date is response.http_date)
"""

    done = python("-c", code)

    assert done.stdout == "True True\n", done.stderr
