"""Bodies and parameters that nobody should send: each is refused by name, in JSON, and never with a 5xx."""

import bz2
import zlib
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from rest_framework.test import APIClient

from accounts.models import User
from config.wsgi import application
from tests.backend.conftest import Operation
from transactions.models import Transaction

pytestmark = pytest.mark.django_db

LIST = "/api/transactions/"
JSON = "application/json"
COFFEE = b'{"amount": "1", "description": "Coffee"}'

# Not one of them is JSON with one meaning.
NO_JSON = {
    "nothing but a brace": b"{",
    "cut off": b'{"amount": "1", "descri',
    "two values": COFFEE + COFFEE,
    "trailing comma": b'{"amount": "1",}',
    "comment": b'{"amount": "1" /* x */}',
    "single quotes": b"{'amount': '1'}",
    "text": b"hello",
    "blank": b"   ",
    "control character": b'{"description": "a\nb"}',
    "NaN": b'{"amount": NaN}',
    "Infinity": b'{"amount": Infinity}',
    "-Infinity": b'{"amount": -Infinity}',
    "the same name twice": b'{"amount": "1", "amount": "2", "description": "Coffee"}',
    "the same name twice, deep inside": b'{"amount": "1", "description": {"a": [{"b": 1, "b": 2}]}}',
    "the same name twice, escaped": b'{"amount": "1", "\\u0061mount": "2", "description": "Coffee"}',
    "nested without end": b"[" * 50_000,
    "objects without end": b'{"a":' * 50_000,
    "nested deeply": b"[" * 20_000 + b"]" * 20_000,
    "byte order mark": b"\xef\xbb\xbf" + COFFEE,
    "not UTF-8": COFFEE.replace(b"Coffee", b"Caf\xe9"),
    "UTF-16": COFFEE.decode().encode("utf-16"),
    "UTF-32": COFFEE.decode().encode("utf-32"),
    "NUL": b"\x00",
    "overlong": b'{"description": "\xc0\xaf"}',
    "raw surrogate": b'{"description": "\xed\xa0\x80"}',
    "number of 5000 digits": b'{"amount": ' + b"9" * 5000 + b"}",
}
# JSON, but no object.
NO_OBJECTS = {
    "null": b"null",
    "true": b"true",
    "number": b"5",
    "string": b'"x"',
    "list": b"[]",
    "list of objects": b"[{}]",
}
# Objects whose every field is of a wrong kind.
FIELDS = (
    "username",
    "password",
    "email",
    "token",
    "refresh",
    "current_password",
    "new_password",
    "amount",
    "description",
)
WRONG_VALUES = {
    "null": "null", "true": "true", "list": "[]", "object": "{}", "nested": '[[["x"]]]', "integer": "5",
    "big integer": "9" * 400, "fraction": "0.1", "exponent": "1e400", "NUL": '"\\u0000"', "surrogate": '"\\ud800"',
    "empty": '""', "blank": '" "', "long": '"' + "x" * 100_000 + '"',
    "right to left": '"\\u202e"', "emoji": '"\\ud83d\\ude00"',
}  # fmt: skip
WRONG_OBJECTS = {
    f"every field {name}": ("{" + ", ".join(f'"{field}": {value}' for field in FIELDS) + "}").encode()
    for name, value in WRONG_VALUES.items()
}
CORPUS = {**NO_JSON, **NO_OBJECTS, **WRONG_OBJECTS}


def call(client: APIClient, method: str, path: str, body: bytes) -> Any:
    data: Any = body  # the stubs want text
    return client.generic(method, path, data, content_type=JSON)


@pytest.mark.parametrize("body", NO_JSON.values(), ids=NO_JSON)
def test_body_that_is_not_json_with_one_meaning_is_refused(as_alice: APIClient, body: bytes) -> None:
    response = as_alice.post(LIST, body, content_type=JSON)

    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert list(response.json()) == ["detail"]
    assert response.json()["detail"].startswith("JSON parse error - ")
    assert not Transaction.objects.exists()


def test_body_with_a_name_twice_says_so(as_alice: APIClient) -> None:
    response = as_alice.post(LIST, NO_JSON["the same name twice"], content_type=JSON)

    assert response.json() == {"detail": "JSON parse error - an object has the same name twice."}


@pytest.mark.parametrize("body", CORPUS.values(), ids=CORPUS)
def test_malformed_body_is_the_clients_fault_on_every_route(
    alice: User,
    sign_in: Callable[[User], APIClient],
    anonymous: APIClient,
    coffee: Transaction,
    operations_with_mail: list[Operation],
    body: bytes,
) -> None:
    as_alice = sign_in(alice)
    as_alice.raise_request_exception = False
    for client in (as_alice, anonymous):
        for method, template, _ in operations_with_mail:
            path = template.replace("999999", str(coffee.pk))

            response: Any = call(client, method.upper(), path, body)

            assert response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR, (method, path)
            if response.status_code >= HTTPStatus.BAD_REQUEST:
                assert response["Content-Type"] == "application/json", (method, path)
                assert isinstance(response.json(), dict), (method, path, response.content)


@pytest.mark.parametrize(
    "content_type",
    ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", "application/xml",
     "application/json5", "text/json", "x", "application/octet-stream"],
)  # fmt: skip
def test_body_that_does_not_call_itself_json_is_refused(
    as_alice: APIClient, anonymous: APIClient, content_type: str
) -> None:
    for client, path in ((as_alice, LIST), (anonymous, "/auth/jwt/create/"), (anonymous, "/auth/users/")):
        response = client.post(path, COFFEE, content_type=content_type)

        assert response.status_code == HTTPStatus.UNSUPPORTED_MEDIA_TYPE
        assert response["Content-Type"] == JSON
        assert list(response.json()) == ["detail"]


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", "utf-8; x=y"])
def test_body_may_say_that_it_is_utf_8(as_alice: APIClient, charset: str) -> None:
    response = as_alice.post(LIST, COFFEE, content_type=f"{JSON}; charset={charset}")

    assert response.status_code == HTTPStatus.CREATED


@pytest.mark.parametrize(
    "charset",
    ["utf-7", "utf-16", "latin-1", "nothing", "", "zlib", "hex", "base64", "rot13", "idna", "punycode",
     "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "bz2", "quopri", "uu"],
)  # fmt: skip
def test_body_is_utf_8_whatever_charset_it_names(as_alice: APIClient, charset: str) -> None:
    utf_8 = as_alice.post(LIST, COFFEE, content_type=f"{JSON}; charset={charset}")
    latin_1 = as_alice.post(LIST, NO_JSON["not UTF-8"], content_type=f"{JSON}; charset={charset}")

    assert utf_8.status_code == HTTPStatus.CREATED
    assert latin_1.status_code == HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize(("charset", "packed"), [("zlib", zlib.compress(COFFEE)), ("bz2", bz2.compress(COFFEE))])
def test_body_is_never_unpacked(as_alice: APIClient, charset: str, packed: bytes) -> None:
    response = as_alice.post(LIST, packed, content_type=f"{JSON}; charset={charset}")

    assert response.status_code == HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize("charset", ["zlib", "rot13", "hex", "undefined", "idna", "utf-16", "nothing", ""])
@pytest.mark.parametrize("path", ["/healthz", "/auth/jwt/create/", LIST])
def test_charset_that_is_none_is_no_failure_of_the_server(path: str, charset: str) -> None:
    environ: dict[str, Any] = {
        "HTTP_HOST": "testserver", "PATH_INFO": path, "QUERY_STRING": "a=%41%FF",
        "CONTENT_TYPE": f"{JSON}; charset={charset}",
    }  # fmt: skip
    setup_testing_defaults(environ)
    answers: list[str] = []

    def start_response(status: str, *_: Any) -> Any:
        answers.append(status)

    application(environ, start_response)

    assert answers[0][:3] in {"200", "401", "405"}


def test_body_beyond_the_limit_is_refused_in_json(as_alice: APIClient, anonymous: APIClient) -> None:
    big = b'{"amount": "1", "description": "' + b"x" * (2 * 1024 * 1024) + b'"}'

    for client, path in ((as_alice, LIST), (anonymous, "/auth/users/"), (anonymous, "/auth/jwt/create/")):
        response = client.post(path, big, content_type=JSON)

        assert response.status_code in {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE}
        assert response["Content-Type"] == JSON
        assert list(response.json()) == ["detail"]


@pytest.mark.parametrize(
    "query",
    ["page=%00", "page[]=1", "page=1&page=x", "search=%FF%FE", "search=" + "%20".join("abcdefghijkl"), "limit=&offset=",
     "offset=99999999999999999999", "x" * 4000, "&" * 1500, "=" * 300, "search=%ED%A0%80", "ordering=-amount", "user=1",
     "page=1;DROP", "cursor=abc", "format=json"],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_malformed_parameters_are_never_a_failure(as_alice: APIClient, query: str) -> None:
    as_alice.raise_request_exception = False

    response = as_alice.get(f"{LIST}?{query}")

    assert response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR
    assert response["Content-Type"] == JSON
    assert isinstance(response.json(), dict)


def test_more_parameters_than_anybody_needs_are_refused_in_json(as_alice: APIClient) -> None:
    as_alice.raise_request_exception = False

    response = as_alice.get(LIST + "?" + "&".join(f"a{n}=1" for n in range(1001)))

    assert response.status_code == HTTPStatus.BAD_REQUEST
    assert response.json() == {"detail": "Bad request."}


def test_number_that_is_too_long_is_refused_in_our_words(as_alice: APIClient) -> None:
    body = b'{"amount": ' + b"9" * 5000 + b', "description": "x"}'

    answer = as_alice.post("/api/transactions/", body, content_type="application/json")

    assert answer.status_code == HTTPStatus.BAD_REQUEST
    assert answer.json() == {"detail": "JSON parse error - a number has more than 1000 digits."}


@pytest.mark.parametrize("method", ["head", "options", "trace"])
def test_uncommon_methods_are_never_a_failure(
    as_alice: APIClient, anonymous: APIClient, operations_with_mail: list[Operation], method: str
) -> None:
    as_alice.raise_request_exception = False
    for client in (as_alice, anonymous):
        for _, path, _ in operations_with_mail:
            response: Any = getattr(client, method)(path)

            assert response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR, path
