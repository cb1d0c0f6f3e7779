"""Requests that two servers may read differently: refused by the first, and the connection closed."""

from collections.abc import Iterator
from http import HTTPStatus

import httpx
import pytest

from tests.stack import wire
from tests.stack.containers import Stack, eventually
from tests.stack.people import Person

INNER = "GET /readyz HTTP/1.1\nHost: localhost\n\n"
"""What an attacker hides; answered, it would be the second answer."""


def post(headers: str, body: str) -> str:
    return f"POST /auth/jwt/create/ HTTP/1.1\nHost: localhost\nContent-Type: application/json\n{headers}\n\n{body}"


def chunked(body: str) -> str:
    return post("Transfer-Encoding: chunked", body)


AMBIGUOUS = {
    "length and chunks": post(f"Content-Length: {len(INNER)}\nTransfer-Encoding: chunked", f"0\n\n{INNER}"),
    "chunks and length": post(f"Transfer-Encoding: chunked\nContent-Length: {len(INNER)}", f"0\n\n{INNER}"),
    "two lengths that differ": post("Content-Length: 2\nContent-Length: 60", "{}" + INNER),
    "two lengths that agree": post("Content-Length: 2\nContent-Length: 2", "{}" + INNER),
    "two lengths in a list": post("Content-Length: 2, 2", "{}" + INNER),
    "a length with a sign": post("Content-Length: +2", "{}" + INNER),
    "a negative length": post("Content-Length: -2", "{}" + INNER),
    "a length in hexadecimal": post("Content-Length: 0x2", "{}" + INNER),
    "a length beyond every integer": post("Content-Length: 99999999999999999999999", "{}" + INNER),
    "an empty length": post("Content-Length:", "{}" + INNER),
    "two codings": post("Transfer-Encoding: chunked\nTransfer-Encoding: chunked", f"0\n\n{INNER}"),
    "two codings in a list": post("Transfer-Encoding: chunked, chunked", f"0\n\n{INNER}"),
    "an unknown coding": post("Transfer-Encoding: xchunked", f"0\n\n{INNER}"),
    "an unknown coding before chunks": post("Transfer-Encoding: gzip, chunked", f"0\n\n{INNER}"),
    "identity and a length": post("Transfer-Encoding: identity\nContent-Length: 2", "{}" + INNER),
    "a coding behind a vertical tab": post("Transfer-Encoding: \x0bchunked", f"0\n\n{INNER}"),
    "a coding in quotes": post('Transfer-Encoding: "chunked"', f"0\n\n{INNER}"),
    "a space before the colon": post(f"Transfer-Encoding : chunked\nContent-Length: {len(INNER)}", f"0\n\n{INNER}"),
    "a folded header": post(f"X-Note: a\n b\nContent-Length: {len(INNER)}", f"0\n\n{INNER}"),
    "a folded coding": post("Transfer-Encoding:\n chunked\nContent-Length: 2", "{}" + INNER),
    "a first header that is folded": f"GET /healthz HTTP/1.1\n X-Note: a\nHost: localhost\n\n{INNER}",
    "a header without a name": post(": x\nContent-Length: 2", "{}" + INNER),
    "a header with NUL": post("X-Note: a\x00b\nContent-Length: 2", "{}" + INNER),
    "a name with a control character": post("Content\x01Length: 2\nContent-Length: 2", "{}" + INNER),
    "two hosts that differ": f"GET /healthz HTTP/1.1\nHost: localhost\nHost: evil.example\n\n{INNER}",
    "two hosts that agree": f"GET /healthz HTTP/1.1\nHost: localhost\nHost: localhost\n\n{INNER}",
    "a chunk size with a prefix": chunked(f"0x2\n{{}}\n0\n\n{INNER}"),
    "a chunk size with a sign": chunked(f"+2\n{{}}\n0\n\n{INNER}"),
    "a negative chunk size": chunked(f"-2\n{{}}\n0\n\n{INNER}"),
    "a chunk size beyond every integer": chunked(f"{'f' * 20}\n{{}}\n0\n\n{INNER}"),
    "a chunk size of no digits": chunked(f"\n{{}}\n0\n\n{INNER}"),
    "a chunk size of letters": chunked(f"zz\n{{}}\n0\n\n{INNER}"),
    "a chunk that is longer than it says": chunked(f"2\n{{}}{{}}\n0\n\n{INNER}"),
    "a chunked request of HTTP/1.0": chunked(f"0\n\n{INNER}").replace("HTTP/1.1", "HTTP/1.0", 1),
    "an unknown version": f"GET /healthz HTTP/3.9\nHost: localhost\n\n{INNER}",
}


@pytest.mark.parametrize("trick", AMBIGUOUS)
def test_an_ambiguous_request_is_refused_and_ends_the_connection(trick: str, base_url: str) -> None:
    request = AMBIGUOUS[trick].replace("\n", "\r\n").encode("latin-1")

    conversation = wire.converse(base_url, request)

    assert conversation.statuses == [HTTPStatus.BAD_REQUEST], conversation.received
    assert conversation.closed


def test_a_request_of_http_0_9_reaches_nobody(base_url: str) -> None:
    conversation = wire.converse(base_url, b"GET /healthz\r\n" + INNER.replace("\n", "\r\n").encode())

    assert conversation.received == b'{"detail":"This server does not serve that host name."}'
    assert conversation.closed


@pytest.mark.parametrize("trick", ["a length in front of its body", "chunks", "two requests at once"])
def test_a_clear_request_on_the_same_connection_is_answered(trick: str, base_url: str) -> None:
    first = {
        "a length in front of its body": post("Content-Length: 2", "{}"),
        "chunks": chunked("2;extension=x\n{}\n0\n\n"),
        "two requests at once": "GET /healthz HTTP/1.1\nHost: localhost\n\n",
    }[trick]
    request = (first + INNER.replace("localhost", "localhost\nConnection: close")).replace("\n", "\r\n").encode()

    conversation = wire.converse(base_url, request)

    assert conversation.statuses == [200 if trick == "two requests at once" else 400, HTTPStatus.OK]
    assert conversation.closed


@pytest.fixture
def connections(stack: Stack) -> Iterator[int]:
    """How many connections nginx held before; as many as afterwards, or some have leaked."""

    def held() -> int:
        status = stack.container("nginx").execute("curl", "-sS", "http://127.0.0.1:8081/status").stdout
        return int(status.split()[2])

    before = held()
    yield before
    # What it keeps open to the backends comes and goes.
    eventually(lambda: held() <= before + 16, within=30, what="nginx let go of the connections of clients that left")


def test_clients_that_leave_in_the_middle_disturb_nobody(base_url: str, connections: int, alice: Person) -> None:
    body = b'{"amount": "1.00", "description": "left"}'
    head = (
        f"POST /api/transactions/ HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {alice.access}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    moments = {
        "nothing sent": b"",
        "within the headers": head[:60],
        "before the body": head,
        "within the body": head + body[:10],
        "before the answer": head + body,
    }

    for sent in moments.values():
        for _ in range(40):
            with wire.connect(base_url) as connection:
                connection.sendall(sent)
    answer = alice.client.get("/api/transactions/")

    assert connections >= 1
    assert answer.status_code == HTTPStatus.OK
    assert answer.json()["count"] <= 40
    assert {row["description"] for row in answer.json()["results"]} <= {"left"}


def test_a_client_that_never_finishes_its_headers_is_cut_off(base_url: str, client: httpx.Client) -> None:
    conversation = wire.converse(base_url, b"GET /healthz HTTP/1.1\r\n", b"Host: local", patience=20)

    assert conversation.closed
    assert client.get("/healthz").status_code == HTTPStatus.OK
