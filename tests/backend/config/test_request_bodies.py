"""What becomes of a body that is deep, that nobody reads, or that calls itself something unheard of."""

import io
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from rest_framework.test import APIClient

from config.parsers import MAX_DEPTH
from config.wsgi import application
from transactions.models import Transaction

pytestmark = pytest.mark.django_db

LIST = "/api/transactions/"
JSON = "application/json"
BIG = 300_000
"""More than the 64 kB that Gunicorn reads by itself of what a view has left."""


class Body(io.BytesIO):
    """A body that breaks off where the client has gone."""

    gone = False

    def read(self, size: int | None = -1) -> bytes:
        """Read on, or fail as a socket does."""
        if self.gone:
            raise ConnectionResetError
        return super().read(size)


def ask(method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes, Body]:
    """Ask the application as a server would; return what it says, and the body with what it has left of it."""
    stream = Body(body)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method, "PATH_INFO": path, "HTTP_HOST": "testserver", "wsgi.input": stream,
        "CONTENT_LENGTH": str(len(body)), "CONTENT_TYPE": JSON, **headers,
    }  # fmt: skip
    setup_testing_defaults(environ)
    said: dict[str, Any] = {}

    def start_response(status: str, headers: list[tuple[str, str]], *_: object) -> Callable[[bytes], object]:
        said.update(status=int(status[:3]), headers=dict(headers))
        return stream.write

    answer = b"".join(application(environ, start_response))

    return said["status"], said["headers"], answer, stream


# Depth ----------------------------------------------------------------------------------------------------------------


def nested(depth: int, kind: str) -> bytes:
    opening, closing = {"arrays": ("[", "]"), "objects": ('{"a":', "}")}[kind]
    return (opening * depth + "1" + closing * depth).encode()


@pytest.mark.parametrize("kind", ["arrays", "objects"])
@pytest.mark.parametrize("depth", [MAX_DEPTH, 1_000, 50_000, 100_000])
def test_deep_value_is_refused_wherever_it_stands(as_alice: APIClient, kind: str, depth: int) -> None:
    for body in (
        nested(depth + 1, kind),
        b'{"amount": "1", "description": ' + nested(depth, kind) + b"}",
        b'{"amount": "1", "description": "Coffee", "more": [' + nested(depth - 1, kind) + b"]}",
    ):
        response = as_alice.post(LIST, body, content_type=JSON)

        assert response.status_code == HTTPStatus.BAD_REQUEST
        assert response.json() == {"detail": "JSON parse error - nested too deeply."}
    assert not Transaction.objects.exists()


@pytest.mark.parametrize("kind", ["arrays", "objects"])
def test_value_of_the_greatest_depth_is_read(as_alice: APIClient, kind: str) -> None:
    body = b'{"amount": "1", "description": "Coffee", "more": ' + nested(MAX_DEPTH - 1, kind) + b"}"

    response = as_alice.post(LIST, body, content_type=JSON)

    assert response.status_code == HTTPStatus.CREATED, response.content


def test_wide_value_is_read(as_alice: APIClient) -> None:
    body = json.dumps({"amount": "1", "description": "Coffee", "more": [[{}, []]] * 10_000})

    assert as_alice.post(LIST, body, content_type=JSON).status_code == HTTPStatus.CREATED


# Bodies that nobody reads ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/auth/jwt/logout/", HTTPStatus.UNAUTHORIZED),
        ("POST", LIST, HTTPStatus.UNAUTHORIZED),
        ("GET", LIST, HTTPStatus.UNAUTHORIZED),
        ("PUT", "/auth/jwt/create/", HTTPStatus.METHOD_NOT_ALLOWED),
        ("POST", "/nowhere", HTTPStatus.NOT_FOUND),
        ("POST", "/healthz", HTTPStatus.OK),
        ("POST", "/auth/jwt/create/", HTTPStatus.BAD_REQUEST),
    ],
)
def test_body_is_read_to_its_end_although_nobody_wants_it(method: str, path: str, status: HTTPStatus) -> None:
    answered, _, _, body = ask(method, path, b" " * BIG)

    assert answered == status
    assert body.tell() == BIG


def test_body_without_a_reasonable_end_is_left_at_the_limit() -> None:
    status, _, _, body = ask("POST", "/nowhere", b" " * 5_000_000)

    assert status == HTTPStatus.NOT_FOUND
    assert 2_000_000 < body.tell() < 2_200_000


def test_client_that_goes_before_its_body_has_come_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Body, "gone", True)

    assert ask("POST", "/nowhere", b" " * BIG)[0] == HTTPStatus.NOT_FOUND


# Media types that no parser can read ----------------------------------------------------------------------------------

UNREADABLE = [
    "application/json; charset*=nothing''utf-8", "application/json; charset*=zlib''%41",
    "application/json; x*=undefined''%41", "text/html, application/json; x*=nothing''x", "application/json; x*=''y",
    "*/*; q*=idna''%41",
]  # fmt: skip


@pytest.mark.parametrize("media_type", UNREADABLE)
@pytest.mark.parametrize("path", ["/healthz", "/nowhere", LIST, "/auth/jwt/create/", "/api/schema/"])
def test_media_type_that_cannot_be_read_is_no_failure_of_the_server(path: str, media_type: str) -> None:
    for header in ("CONTENT_TYPE", "HTTP_ACCEPT"):
        for method in ("GET", "POST"):
            status, headers, said, _ = ask(method, path, b"{}", **{header: media_type})

            assert status < HTTPStatus.INTERNAL_SERVER_ERROR, said
            if status >= HTTPStatus.BAD_REQUEST:
                assert headers["Content-Type"] == JSON
                assert isinstance(json.loads(said), dict)


def test_body_of_a_type_that_cannot_be_read_is_unsupported() -> None:
    status, _, said, _ = ask("POST", "/auth/jwt/create/", b"{}", CONTENT_TYPE=UNREADABLE[0])

    assert (status, json.loads(said)) == (
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        {"detail": 'Unsupported media type "application/octet-stream" in request.'},
    )


def test_client_that_accepts_only_what_cannot_be_read_is_told_so() -> None:
    status, _, said, _ = ask("POST", "/auth/jwt/create/", b"{}", HTTP_ACCEPT=UNREADABLE[0])

    assert (status, list(json.loads(said))) == (HTTPStatus.NOT_ACCEPTABLE, ["detail"])
