"""What every answer has, whoever made it: nginx by itself, nginx from its disk, or the backend."""

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cache
from http import HTTPStatus
from http.client import HTTPResponse
from typing import Any

import httpx
import pytest

from tests.stack import wire
from tests.stack.headers import assert_every_header_once
from tests.stack.people import PASSWORD, Person, connect, sign_up, unique
from tests.stack.static import assets_of

JSON = {"Content-Type": "application/json"}

Answer = httpx.Response
Ask = Callable[[Person], Answer]


def send(method: str, path: str, **options: Any) -> Ask:
    """Return a question that alice asks with her token."""
    return lambda alice: alice.client.request(method, path, **options)


def send_anonymously(method: str, path: str, **options: Any) -> Ask:
    def ask(alice: Person) -> Answer:
        with connect(str(alice.client.base_url)) as client:
            return client.request(method, path, **options)

    return ask


def send_raw(head: str) -> Ask:
    """Return a question that no HTTP client would ask; ``head`` is everything before the empty line."""

    def ask(alice: Person) -> Answer:
        with wire.connect(str(alice.client.base_url)) as connection:
            connection.sendall(head.encode().replace(b"\n", b"\r\n") + b"\r\n\r\n")
            with closing(HTTPResponse(connection, method=head.partition(" ")[0])) as answer:
                answer.begin()
                return Answer(answer.status, headers=answer.getheaders(), content=answer.read())

    return ask


def asset(**headers: str) -> Ask:
    """Return a question for a static file, with headers that may repeat what its answer said."""

    def ask(alice: Person) -> Answer:
        path = assets_of(alice.client, "/api/docs/")[0]
        known = alice.client.get(path)
        return alice.client.get(path, headers={name: known.headers[value] for name, value in headers.items()})

    return ask


def post_to_an_asset(alice: Person) -> Answer:
    return alice.client.post(assets_of(alice.client, "/api/docs/")[0])


def delete_a_row(alice: Person) -> Answer:
    return alice.client.delete(f"/api/transactions/{alice.record('gone')['id']}/")


def register(alice: Person) -> Answer:
    return alice.client.post("/auth/users/", json={"username": unique("bob"), "password": PASSWORD})


SUCCESSES: dict[str, tuple[Ask, HTTPStatus]] = {
    "a page of transactions": (send("GET", "/api/transactions/"), HTTPStatus.OK),
    "the docs": (send("GET", "/api/docs/"), HTTPStatus.OK),
    "liveness": (send("GET", "/healthz"), HTTPStatus.OK),
    "readiness": (send("GET", "/readyz"), HTTPStatus.OK),
    "a static file": (asset(), HTTPStatus.OK),
    "HEAD": (send("HEAD", "/api/transactions/"), HTTPStatus.OK),
    "OPTIONS": (send("OPTIONS", "/api/transactions/"), HTTPStatus.OK),
    "a new account": (register, HTTPStatus.CREATED),
    "a deleted row": (delete_a_row, HTTPStatus.NO_CONTENT),
    "a redirect": (send("GET", "/"), HTTPStatus.FOUND),
    "a static file that has not changed, by tag": (asset(**{"If-None-Match": "ETag"}), HTTPStatus.NOT_MODIFIED),
    "a static file that has not changed, by date": (
        asset(**{"If-Modified-Since": "Last-Modified"}),
        HTTPStatus.NOT_MODIFIED,
    ),
}
ERRORS: dict[str, tuple[Ask, HTTPStatus]] = {
    "a bad field": (send("POST", "/api/transactions/", json={"amount": "much"}), HTTPStatus.BAD_REQUEST),
    "not JSON": (
        send("POST", "/auth/jwt/create/", content=b"{", headers=JSON),
        HTTPStatus.BAD_REQUEST,
    ),
    "bottomless JSON": (
        send_anonymously("POST", "/auth/users/", content=b"[" * 50_000, headers=JSON),
        HTTPStatus.BAD_REQUEST,
    ),
    "a malformed request line": (send_raw("GET / nonsense\nHost: localhost"), HTTPStatus.BAD_REQUEST),
    "no host": (send_raw("GET / HTTP/1.1\nAccept: */*"), HTTPStatus.BAD_REQUEST),
    "a malformed host": (send_raw("GET / HTTP/1.1\nHost: local host"), HTTPStatus.BAD_REQUEST),
    "no token": (send_anonymously("GET", "/api/transactions/"), HTTPStatus.UNAUTHORIZED),
    "a token of nonsense": (
        send_anonymously("GET", "/api/transactions/", headers={"Authorization": "Bearer a.b.c"}),
        HTTPStatus.UNAUTHORIZED,
    ),
    "an unknown path": (send("GET", "/nowhere"), HTTPStatus.NOT_FOUND),
    "an unknown path under /api/": (send("GET", "/api/nowhere/"), HTTPStatus.NOT_FOUND),
    "the sample's old path": (send("GET", "/transactions/"), HTTPStatus.NOT_FOUND),
    "an unanchored login": (send("POST", "/auth/jwt/createX", json={}), HTTPStatus.NOT_FOUND),
    "a login without its slash": (send("POST", "/auth/jwt/create", json={}), HTTPStatus.NOT_FOUND),
    "the admin site, which is off": (send("GET", "/admin/"), HTTPStatus.NOT_FOUND),
    "a static file that is not there": (send("GET", "/static/nowhere.css"), HTTPStatus.NOT_FOUND),
    "a static folder": (send("GET", "/static/docs/"), HTTPStatus.NOT_FOUND),
    "a path of two meanings": (send_raw("GET /auth/../readyz HTTP/1.1\nHost: localhost"), HTTPStatus.NOT_FOUND),
    "nginx's own status page": (send("GET", "/status"), HTTPStatus.NOT_FOUND),
    "a method that the view has not": (send("PUT", "/auth/jwt/create/", json={}), HTTPStatus.METHOD_NOT_ALLOWED),
    "TRACE": (send("TRACE", "/api/transactions/"), HTTPStatus.METHOD_NOT_ALLOWED),
    "POST to a static file": (post_to_an_asset, HTTPStatus.METHOD_NOT_ALLOWED),
    "HTML": (send("GET", "/api/transactions/", headers={"Accept": "text/html"}), HTTPStatus.NOT_ACCEPTABLE),
    "a body of 3 MB": (send("POST", "/auth/users/", content=b"x" * 3_000_000), HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    "a chunked body of 3 MB": (
        send("POST", "/auth/users/", content=(b"x" * 100_000 for _ in range(30))),
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    ),
    "a URL of 6 kB": (send("GET", "/api/transactions/?search=" + "x" * 6_000), HTTPStatus.REQUEST_URI_TOO_LONG),
    "a URL of 60 kB": (send("GET", "/" + "x" * 60_000), HTTPStatus.REQUEST_URI_TOO_LONG),
    "a form": (send("POST", "/auth/users/", data={"username": "bob"}), HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    "an unknown host": (send("GET", "/healthz", headers={"Host": "evil.example"}), HTTPStatus.MISDIRECTED_REQUEST),
    "an unknown host and path": (send("GET", "/x", headers={"Host": "evil.example"}), HTTPStatus.MISDIRECTED_REQUEST),
    "a header of 30 kB": (
        send("GET", "/healthz", headers={"X-Long": "x" * 30_000}),
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    ),
    "200 headers": (
        send("GET", "/healthz", headers={f"X-{number}": "x" for number in range(200)}),
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    ),
}
ALL = SUCCESSES | ERRORS


@pytest.fixture(scope="module")
def answers(base_url: str) -> Iterator[Callable[[str], Answer]]:
    """Every question, asked once by one person however many tests look at its answer."""
    with closing((alice := sign_up(base_url, "alice")).client):
        yield cache(lambda question: ALL[question][0](alice))


@pytest.mark.parametrize("question", ALL)
def test_every_question_has_the_status_that_it_deserves(question: str, answers: Callable[[str], Answer]) -> None:
    answer = answers(question)

    assert answer.status_code == ALL[question][1], answer.text


@pytest.mark.parametrize("question", ALL)
def test_every_answer_has_every_header_once(question: str, answers: Callable[[str], Answer]) -> None:
    assert_every_header_once(answers(question))


@pytest.mark.parametrize("question", ERRORS)
def test_every_error_is_json_in_the_frameworks_shape(question: str, answers: Callable[[str], Answer]) -> None:
    answer = answers(question)

    assert answer.headers["Content-Type"].split(";")[0] == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.json()
    assert isinstance(body, dict)
    assert body
    assert isinstance(body.get("detail"), str) or all(isinstance(said, list) for said in body.values()), body


@pytest.mark.parametrize("question", ALL)
def test_no_answer_names_a_version(question: str, answers: Callable[[str], Answer]) -> None:
    answer = answers(question)

    text = f"{answer.headers} {answer.text if question not in ('the docs', 'a static file') else ''}"
    assert not re.search(r"(?i)nginx/|gunicorn|wsgi|python|django|postgres|debian|traceback|File \"", text), text


def test_every_request_has_an_id_of_its_own(client: httpx.Client) -> None:
    ids = {client.get("/healthz").headers["X-Request-ID"] for _ in range(20)}

    assert len(ids) == 20


def test_an_unknown_host_is_refused_before_the_backend(client: httpx.Client) -> None:
    answer = client.get("/api/docs/", headers={"Host": "evil.example"})

    assert answer.status_code == HTTPStatus.MISDIRECTED_REQUEST
    assert "evil.example" not in answer.text


def test_a_host_in_the_request_line_is_checked_like_any_other(base_url: str) -> None:
    answer = wire.converse(base_url, b"GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")

    assert answer.statuses == [HTTPStatus.MISDIRECTED_REQUEST]


def test_a_body_that_is_too_large_leaves_other_connections_alone(client: httpx.Client, alice: Person) -> None:
    refused = alice.client.post("/api/transactions/", content=b"x" * 3_000_000)
    next_one = alice.client.get("/api/transactions/")

    assert refused.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert next_one.status_code == HTTPStatus.OK


def test_answers_with_tokens_are_not_compressed_and_pages_are(alice: Person) -> None:
    for number in range(12):
        alice.record(f"row {number} {'x' * 200}")

    page = alice.client.get("/api/transactions/", headers={"Accept-Encoding": "gzip"})
    tokens = alice.client.post(
        "/auth/jwt/create/", json={"username": alice.name, "password": PASSWORD}, headers={"Accept-Encoding": "gzip"}
    )

    assert page.headers["Content-Encoding"] == "gzip"
    assert tokens.status_code == HTTPStatus.OK
    assert "Content-Encoding" not in tokens.headers
