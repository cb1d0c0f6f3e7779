"""Whose row, whose field, whose token: asked of every operation that the served schema has."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.stack.containers import Stack
from tests.stack.contract import Operation, read_operations
from tests.stack.people import PASSWORD, Person, connect, sign_up, unique

LEDGER = "/api/transactions/"
PUBLIC = {
    "POST /auth/users/",  # nobody has a token yet
    "POST /auth/jwt/create/",  # where tokens come from
    # The credential is in the body.
    "POST /auth/jwt/refresh/",
    "POST /auth/jwt/verify/",
    "POST /auth/jwt/blacklist/",
    # Where mail is configured: whoever has lost the password has no token, and gets one by mail.
    "POST /auth/users/activation/",
    "POST /auth/users/resend_activation/",
    "POST /auth/users/reset_password/",
    "POST /auth/users/reset_password_confirm/",
}
"""All that a stranger may ask. Whatever is not in this list answers 401."""

Claims = dict[str, Any]


@pytest.fixture(scope="module")
def operations(base_url: str) -> list[Operation]:
    """Every operation of the served schema."""
    with connect(base_url) as client:
        return read_operations(client)


@pytest.fixture(scope="module")
def owner(base_url: str) -> Iterator[Person]:
    """Somebody who owns things, for all tests of this module."""
    with closing((person := sign_up(base_url, "alice")).client):
        yield person


@pytest.fixture(scope="module")
def stranger(base_url: str) -> Iterator[Person]:
    """Somebody to whom none of them belongs."""
    with closing((person := sign_up(base_url, "bob")).client):
        yield person


def ask(client: httpx.Client, operation: Operation, key: object = None, **options: Any) -> httpx.Response:
    """Ask an operation, with a well-formed body where it takes one."""
    if operation.fields:
        options.setdefault("json", operation.body())
    return client.request(operation.method, operation.url(key), **options)


# --- Rows (A1) --------------------------------------------------------------------------------------------------------


def own_key(person: Person, operation: Operation) -> object:
    """Return the id of a row of that person, from the list that the row is in."""
    if operation.collection == LEDGER:
        person.record("mine")
    answer = person.client.get(operation.collection)
    assert answer.status_code == HTTPStatus.OK, f"{operation}: where are its ids listed? {answer.text}"
    return answer.json()["results"][0]["id"]


def test_another_persons_row_is_not_there(operations: list[Operation], owner: Person, stranger: Person) -> None:
    asked = [operation for operation in operations if operation.takes_an_id]
    for operation in asked:
        key = own_key(owner, operation)
        before = owner.client.get(operation.collection).json()

        foreign = ask(stranger.client, operation, key)
        missing = ask(stranger.client, operation)

        assert foreign.status_code == HTTPStatus.NOT_FOUND, f"{operation}: {foreign.text}"
        assert (foreign.status_code, foreign.text) == (missing.status_code, missing.text), str(operation)
        assert owner.client.get(operation.collection).json() == before, str(operation)

    assert {operation.method for operation in asked} >= {"GET", "PUT", "PATCH", "DELETE"}


def test_no_list_holds_another_persons_row(operations: list[Operation], owner: Person, stranger: Person) -> None:
    owner.record("a secret of alice's")
    for operation in operations:
        if operation.method != "GET" or operation.takes_an_id:
            continue
        said = ask(stranger.client, operation)

        assert said.status_code == HTTPStatus.OK, f"{operation}: {said.text}"
        assert "a secret of alice's" not in said.text, str(operation)
        assert owner.name not in said.text, str(operation)


def test_no_parameter_shows_another_persons_row(operations: list[Operation], owner: Person, stranger: Person) -> None:
    account = owner.client.get("/auth/users/me/").json()["id"]
    owner.record("a secret of alice's")
    for operation in operations:
        if operation.method != "GET" or operation.takes_an_id:
            continue
        for name in (
            "user",
            "user_id",
            "owner",
            "user__id",
            "user__username",
            "account",
            "id",
            "pk",
            "all",
            "is_staff",
        ):
            for value in (account, owner.name, "true"):
                said = stranger.client.get(operation.url(), params={name: value})

                assert "a secret of alice's" not in said.text, f"{operation} {name}={value}"


# --- Fields (A2) ------------------------------------------------------------------------------------------------------


def lies(other: Person) -> dict[str, Any]:
    """Return fields that are the server's alone to set, as a client might set them."""
    account = other.client.get("/auth/users/me/").json()["id"]
    return {
        **dict.fromkeys(("user", "user_id", "owner", "owner_id", "account", "created_by"), account),
        **dict.fromkeys(("id", "pk", "version", "_version", "count"), 999_999_999),
        **dict.fromkeys(("is_staff", "is_superuser", "is_admin", "admin", "is_active"), True),
        **dict.fromkeys(("timestamp", "created_at", "date_joined", "last_login", "expires_at"), "2001-01-01T00:00:00Z"),
        "groups": [1],
        "user_permissions": [1],
        "role": "admin",
        "scope": "admin",
        "current": True,
    }


def test_no_row_takes_what_is_the_servers_to_set(operations: list[Operation], alice: Person, bob: Person) -> None:
    account = alice.client.get("/auth/users/me/").json()["id"]
    started = datetime.now(UTC) - timedelta(minutes=5)
    writes = [item for item in operations if item.path.startswith(LEDGER) and item.method in ("POST", "PUT", "PATCH")]
    for operation in writes:
        before = alice.record("before")
        key = before["id"] if operation.takes_an_id else None
        wanted = {"amount": "7.00", "description": "after"}

        answer = ask(alice.client, operation, key, json={**lies(bob), **wanted})

        assert answer.is_success, f"{operation}: {answer.text}"
        row = alice.client.get(f"{LEDGER}{key or answer.json()['id']}/").json()
        assert {name: row[name] for name in wanted} == wanted, str(operation)
        assert row["user"] == account, str(operation)
        assert row["id"] == (key or row["id"]) != 999_999_999, str(operation)
        assert datetime.fromisoformat(row["timestamp"]) > started, str(operation)
        assert key is None or row["timestamp"] == before["timestamp"], str(operation)
        assert row.keys() == before.keys(), str(operation)
    assert bob.descriptions() == []
    assert {operation.method for operation in writes} == {"POST", "PUT", "PATCH"}


PRIVILEGES = (
    "SELECT is_staff, is_superuser, is_active, date_joined > now() - interval '1 hour',"
    " (SELECT count(*) FROM accounts_user_groups WHERE user_id = accounts_user.id)"
    " FROM accounts_user WHERE username = '{}'"
)


def test_no_account_takes_what_is_the_servers_to_set(base_url: str, alice: Person, bob: Person, stack: Stack) -> None:
    name = unique("carol")
    with connect(base_url) as client:
        registered = client.post("/auth/users/", json={**lies(bob), "username": name, "password": PASSWORD})
    changed = [
        alice.client.request(method, "/auth/users/me/", json={**lies(bob), "username": unique("mallory")})
        for method in ("PUT", "PATCH")
    ]

    assert registered.status_code == HTTPStatus.CREATED, registered.text
    assert registered.json()["id"] != 999_999_999
    assert [answer.status_code for answer in changed] == [HTTPStatus.OK] * 2
    assert [answer.json()["username"] for answer in changed] == [alice.name] * 2
    for account in (name, alice.name):
        stored = stack.sql(PRIVILEGES.format(account))
        assert stored.stdout.strip() == "f|f|t|t|0", account


def test_no_answer_to_a_lie_repeats_it(operations: list[Operation], alice: Person, bob: Person) -> None:
    for operation in operations:
        if not operation.fields or operation.method == "DELETE":
            continue
        key = own_key(alice, operation) if operation.takes_an_id else None

        answer = ask(alice.client, operation, key, json={**lies(bob), **operation.body()})

        assert answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR, f"{operation}: {answer.text}"
        assert "999999999" not in answer.text, f"{operation}: {answer.text}"
        assert "2001-01-01" not in answer.text, f"{operation}: {answer.text}"


# --- Strangers (A3) ---------------------------------------------------------------------------------------------------


def test_a_stranger_is_asked_for_a_token_everywhere_but_where_the_list_says(
    operations: list[Operation], client: httpx.Client, owner: Person
) -> None:
    for operation in operations:
        key = own_key(owner, operation) if operation.takes_an_id else None
        if str(operation) in PUBLIC:
            continue

        answer = ask(client, operation, key)

        assert answer.status_code == HTTPStatus.UNAUTHORIZED, f"{operation}: {answer.status_code} {answer.text}"
        assert answer.headers["Content-Type"] == "application/json", str(operation)
        assert answer.headers["WWW-Authenticate"].startswith("Bearer"), str(operation)
        assert list(answer.json()) == ["detail"], str(operation)


def test_the_schema_says_of_every_operation_whether_it_needs_a_token(operations: list[Operation]) -> None:
    assert {str(item) for item in operations if not item.is_secured} == PUBLIC & {str(item) for item in operations}
    assert any(item.is_secured for item in operations)


def test_a_stranger_learns_the_same_about_a_row_that_is_there(
    operations: list[Operation], client: httpx.Client, owner: Person
) -> None:
    for operation in operations:
        if operation.takes_an_id:
            there, missing = ask(client, operation, own_key(owner, operation)), ask(client, operation)

            assert (there.status_code, there.text) == (missing.status_code, missing.text), str(operation)


# --- Tokens (A8) ------------------------------------------------------------------------------------------------------


def encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def decode(part: str) -> Claims:
    return dict(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))))


class Forger:
    """Somebody who knows how tokens are made, and, to show that the rest is looked at as well, with which key."""

    def __init__(self, token: str, key: str) -> None:
        self.header, self.claims = (decode(part) for part in token.split(".")[:2])
        self.key = key

    def token(
        self,
        *,
        without: tuple[str, ...] = (),
        header: Claims | None = None,
        key: str | None = None,
        digest: str = "sha256",
        signature: str | None = None,
        **claims: Any,
    ) -> str:
        """Return the token with the claims and the header changed, properly signed unless something else is said."""
        payload = {name: value for name, value in {**self.claims, **claims}.items() if name not in without}
        head = {name: value for name, value in {**self.header, **(header or {})}.items() if value is not None}
        signed = ".".join(encode(json.dumps(part).encode()) for part in (head, payload))
        secret = (self.key if key is None else key).encode()
        own = encode(hmac.new(secret, signed.encode(), digest).digest())
        return f"{signed}.{own if signature is None else signature}"


NOW = int(time.time())
FORGERIES: dict[str, Callable[[Forger], str]] = {
    "no algorithm": lambda forger: forger.token(header={"alg": "none"}, signature=""),
    "no algorithm, in capitals": lambda forger: forger.token(header={"alg": "NONE"}, signature=""),
    "no algorithm, in both": lambda forger: forger.token(header={"alg": "nOnE"}, signature=""),
    "no algorithm but a signature": lambda forger: forger.token(header={"alg": "none"}),
    "no word of an algorithm": lambda forger: forger.token(header={"alg": None}),
    "an empty algorithm": lambda forger: forger.token(header={"alg": ""}),
    "an algorithm of two": lambda forger: forger.token(header={"alg": ["HS256", "none"]}),
    "RS256, signed as HS256": lambda forger: forger.token(header={"alg": "RS256"}),
    "ES256, signed as HS256": lambda forger: forger.token(header={"alg": "ES256"}),
    "HS384": lambda forger: forger.token(header={"alg": "HS384"}, digest="sha384"),
    "HS512": lambda forger: forger.token(header={"alg": "HS512"}, digest="sha512"),
    "HS256 in small letters": lambda forger: forger.token(header={"alg": "hs256"}),
    "another key": lambda forger: forger.token(key="x" * 64),
    "an empty key": lambda forger: forger.token(key=""),
    "its key id for a key": lambda forger: forger.token(key=forger.header["kid"]),
    "the issuer for a key": lambda forger: forger.token(key=forger.claims["iss"]),
    "a key of its own, enclosed": lambda forger: forger.token(
        key="x" * 64, header={"jwk": {"kty": "oct", "k": encode(b"x" * 64)}}
    ),
    "a key of its own, at an address": lambda forger: forger.token(
        key="x" * 64, header={"jku": "http://127.0.0.1:9/keys", "x5u": "http://127.0.0.1:9/keys"}
    ),
    "no key id": lambda forger: forger.token(header={"kid": None}),
    "another key id": lambda forger: forger.token(header={"kid": "0" * 16}),
    "an empty key id": lambda forger: forger.token(header={"kid": ""}, key=""),
    "a path for a key id": lambda forger: forger.token(header={"kid": "../../../../dev/null"}, key=""),
    "SQL for a key id": lambda forger: forger.token(header={"kid": "x' UNION SELECT 'y"}, key="y"),
    "a list for a key id": lambda forger: forger.token(header={"kid": [forger.header["kid"]]}),
    "an object for a key id": lambda forger: forger.token(header={"kid": {"x": 1}}),
    "an unknown critical header": lambda forger: forger.token(header={"crit": ["x"], "x": 1}),
    "a payload that is not encoded": lambda forger: forger.token(header={"b64": False, "crit": ["b64"]}),
    "no signature": lambda forger: forger.token(signature=""),
    "a signature of zeros": lambda forger: forger.token(signature=encode(bytes(32))),
    "half a signature": lambda forger: forger.token()[:-20],
    "a signature that is no base 64": lambda forger: forger.token(signature="!" * 43),
    "another payload under the signature": lambda forger: ".".join(
        [*forger.token(user_id="0").split(".")[:2], forger.token().split(".")[2]]
    ),
    "another header under the signature": lambda forger: ".".join(
        [forger.token(header={"x": 1}).split(".")[0], *forger.token().split(".")[1:]]
    ),
    "two parts": lambda forger: forger.token().rpartition(".")[0],
    "four parts": lambda forger: forger.token() + ".x",
    "expired": lambda forger: forger.token(exp=NOW - 1),
    "expired long ago": lambda forger: forger.token(exp=1),
    "expired before time began": lambda forger: forger.token(exp=-(10**18)),
    "for ever": lambda forger: forger.token(without=("exp",)),
    "until null": lambda forger: forger.token(exp=None),
    "until a word": lambda forger: forger.token(exp="tomorrow"),
    "until a list": lambda forger: forger.token(exp=[NOW + 900]),
    "until infinity": lambda forger: forger.token(exp=float("inf")),
    "not yet": lambda forger: forger.token(nbf=NOW + 3600),
    "from the future": lambda forger: forger.token(iat=NOW + 3600, nbf=NOW + 3600),
    "another audience": lambda forger: forger.token(aud="somebody-else"),
    "no audience": lambda forger: forger.token(without=("aud",)),
    "an empty list of audiences": lambda forger: forger.token(aud=[]),
    "another issuer": lambda forger: forger.token(iss="somebody-else"),
    "no issuer": lambda forger: forger.token(without=("iss",)),
    "a list of issuers": lambda forger: forger.token(iss=[forger.claims["iss"]]),
    "another type": lambda forger: forger.token(token_type="sliding"),
    "no type": lambda forger: forger.token(without=("token_type",)),
    "a list of types": lambda forger: forger.token(token_type=["access", "refresh"]),
    "no session": lambda forger: forger.token(without=("sid",)),
    "another session": lambda forger: forger.token(sid=str(uuid4())),
    "a session that is no UUID": lambda forger: forger.token(sid="1"),
    "a session that is null": lambda forger: forger.token(sid=None),
    "a session that is a number": lambda forger: forger.token(sid=1),
    "a session that is an object": lambda forger: forger.token(sid={"in": [1]}),
    "a session in a list": lambda forger: forger.token(sid=[forger.claims["sid"]]),
    "no id": lambda forger: forger.token(without=("jti",)),
    "claims that are a list": lambda forger: _raw(forger, b"[]"),
    "claims that are no JSON": lambda forger: _raw(forger, b"x"),
    "claims that are null": lambda forger: _raw(forger, b"null"),
    "claims nested without end": lambda forger: _raw(forger, b"[" * 2_000),
    "claims that are no UTF-8": lambda forger: _raw(forger, b'{"sid": "\xff"}'),
}


def _raw(forger: Forger, claims: bytes) -> str:
    signed = f"{encode(json.dumps(forger.header).encode())}.{encode(claims)}"
    return f"{signed}.{encode(hmac.new(forger.key.encode(), signed.encode(), hashlib.sha256).digest())}"


@pytest.fixture(scope="module")
def key(checkout: Path) -> str:
    """The key that signs in this stack, the first of its ring."""
    return (checkout / "secrets" / "jwt_signing_key").read_text().splitlines()[0]


def takes_a_token(operation: Operation) -> str:
    return next((name for name in ("refresh", "token") if name in operation.fields and not operation.is_secured), "")


def test_forgeries_are_made_of_tokens_that_work(owner: Person, base_url: str, key: str) -> None:
    bearer = {"Authorization": f"Bearer {Forger(owner.access, key).token(made='by hand')}"}
    with connect(base_url) as client:
        opened = client.get(LEDGER, headers=bearer)
        verified = client.post("/auth/jwt/verify/", json={"token": Forger(owner.refresh, key).token(made="by hand")})

    assert (opened.status_code, verified.status_code) == (HTTPStatus.OK, HTTPStatus.OK)


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_access_token_opens_nothing(
    forgery: str, operations: list[Operation], owner: Person, client: httpx.Client, key: str
) -> None:
    token = FORGERIES[forgery](Forger(owner.access, key))

    for operation in operations:
        if operation.is_secured:
            answer = ask(client, operation, headers={"Authorization": f"Bearer {token}"})

            assert answer.status_code == HTTPStatus.UNAUTHORIZED, f"{operation}: {answer.status_code} {answer.text}"
            assert answer.headers["Content-Type"] == "application/json", str(operation)


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forged_refresh_token_is_good_for_nothing(
    forgery: str, operations: list[Operation], owner: Person, client: httpx.Client, key: str
) -> None:
    token = FORGERIES[forgery](Forger(owner.refresh, key))

    for operation in operations:
        if name := takes_a_token(operation):
            answer = ask(client, operation, json={**operation.body(), name: token})

            assert answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.BAD_REQUEST), (
                f"{operation}: {answer.text}"
            )


def test_each_kind_of_token_is_good_for_its_own_purpose_alone(
    operations: list[Operation], owner: Person, client: httpx.Client
) -> None:
    for operation in operations:
        if operation.is_secured:
            answer = ask(client, operation, headers={"Authorization": f"Bearer {owner.refresh}"})

            assert answer.status_code == HTTPStatus.UNAUTHORIZED, f"{operation}: {answer.text}"
    for path in ("/auth/jwt/refresh/", "/auth/jwt/blacklist/"):
        answer = client.post(path, json={"refresh": owner.access})

        assert answer.status_code == HTTPStatus.UNAUTHORIZED, f"{path}: {answer.text}"


def test_a_token_works_in_the_header_alone(owner: Person, client: httpx.Client) -> None:
    elsewhere = [
        client.get(LEDGER, params={"access_token": owner.access, "token": owner.access, "jwt": owner.access}),
        client.get(
            LEDGER, headers={"Cookie": f"access={owner.access}; jwt={owner.access}; Authorization={owner.access}"}
        ),
        client.get(LEDGER, headers={"X-Authorization": f"Bearer {owner.access}", "X-Access-Token": owner.access}),
        client.get(LEDGER, headers={"Proxy-Authorization": f"Bearer {owner.access}"}),
        client.post(LEDGER, json={"amount": "1", "description": "x", "access_token": owner.access}),
    ]

    assert [answer.status_code for answer in elsewhere] == [HTTPStatus.UNAUTHORIZED] * len(elsewhere)
