"""What nobody should send, to every operation of the served schema: a plain refusal, in JSON, and nothing stored.

``malformed`` holds the cases; each test sends one of them everywhere, with a token that works and without one.
"""

import codecs
import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import KW_ONLY, dataclass, field, replace
from http import HTTPStatus
from typing import Any

import httpx
import pytest

from tests.stack import malformed, wire
from tests.stack.containers import Stack
from tests.stack.contract import Operation, read_operations
from tests.stack.malformed import COFFEE, TOKEN
from tests.stack.people import Person, connect, sign_up

# What each test has stored is told by the number of all accounts, sessions and transactions.
pytestmark = pytest.mark.alone

JSON = "application/json"
LEDGER = "/api/transactions/"
REGISTER = "/auth/users/"
LOG_IN = "/auth/jwt/create/"
OTHER_PATHS = (
    "/",
    "/healthz",
    "/readyz",
    "/api/schema/",
    "/api/docs/",
    "/api/redoc/",
    "/nowhere",
    "/static/nowhere.css",
)
HANDS = 8
"""Requests at once: what the two backends answer without a queue."""

LEAKS = re.compile(
    r"(?i)traceback|file \"|\.py\b|site-packages|/app/|/opt/|/usr/|/tmp/|psycopg|django|gunicorn|wsgi|python|nginx"
    r"|postgres|\bselect\b.*\bfrom\b|insert into|syntax error|relation \""
    r"|(operational|data|integrity|programming|type|key)error"
)
"""What an error must not tell: code, SQL, versions, paths."""

Headers = list[tuple[str, str | bytes]]


@dataclass
class Probe:
    """One request, as it goes over the wire."""

    method: str
    target: str
    headers: Headers = field(default_factory=list)
    body: bytes | None = None
    _: KW_ONLY
    refused: bool = False
    """Whether a 2xx would be wrong."""

    expected: HTTPStatus | None = None
    """The one status that is right, where there is one."""

    operation: Operation | None = None
    with_token: bool = True

    def __str__(self) -> str:
        token = "with" if self.with_token else "without"
        return f"{self.method} {self.target[:120]} {token} a token"

    def complaints(self, answer: httpx.Response) -> Iterator[str]:
        """Say what is wrong with the answer."""
        status = answer.status_code
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.SERVICE_UNAVAILABLE:
            yield f"answered {status}"
        if (
            status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS)
            and "Retry-After" not in answer.headers
        ):
            yield f"answered {status} without Retry-After"
        if self.refused and answer.is_success:
            yield f"took it, with {status}"
        if self.expected is not None and status != self.expected:
            yield f"answered {status} rather than {self.expected}"
        if [len(name) for name in answer.headers.get_list("X-Request-ID")] != [32]:
            yield f"has the request ids {answer.headers.get_list('X-Request-ID')}"
        if "Set-Cookie" in answer.headers:
            yield f"sets a cookie: {answer.headers['Set-Cookie']}"
        if answer.is_error and self.method != "HEAD":
            yield from self._complaints_about_an_error(answer)

    @staticmethod
    def _complaints_about_an_error(answer: httpx.Response) -> Iterator[str]:
        if answer.headers.get("Content-Type", "").split(";")[0] != JSON:
            yield f"calls its error {answer.headers.get('Content-Type')}"
        try:
            said = answer.json()
        except ValueError:
            yield f"is not JSON: {answer.text[:200]}"
            return
        if not isinstance(said, dict) or not said:
            yield f"is no object that says something: {answer.text[:200]}"
        if leak := LEAKS.search(answer.text):
            yield f"tells {leak[0]!r}: {answer.text[:300]}"


class Corpus:
    """A person, a row, every operation, and how to send probes to all of them."""

    def __init__(self, base_url: str, alice: Person, tally: "Tally") -> None:
        self.base_url = base_url
        self.alice = alice
        self.tally = tally
        self.client = connect(base_url, limits=httpx.Limits(max_connections=HANDS, max_keepalive_connections=HANDS))
        self.operations = read_operations(self.client)
        self.row = alice.record("Coffee")["id"]
        self.sent = 0
        self._sessions_asked_for = 0
        self._guests: list[str] = []

    def url(self, operation: Operation) -> str:
        """Return the path to alice's own row where it can be read or written; none of hers is deleted."""
        own = operation.path.startswith(LEDGER) and operation.method != "DELETE"
        return operation.url(self.row if own else None)

    def both(self, probes: Iterable[Probe]) -> list[Probe]:
        """Return each probe with a token and, where a token is needed, once more without."""
        found = []
        for probe in probes:
            found.append(probe)
            if probe.operation is not None and probe.operation.is_secured:
                found.append(replace(probe, with_token=False, refused=True, expected=None))
        return found

    def refuse(self, probes: Iterable[Probe]) -> None:
        """Send the probes, none of which may change the ledger in any way."""
        before = self.alice.client.get(LEDGER).json()
        self.send(probes)
        assert self.alice.client.get(LEDGER).json() == before

    def send(self, probes: Iterable[Probe]) -> list[httpx.Response]:
        """Send the probes, and complain about the answers; as many rows are stored as were acknowledged.

        Rows are transactions of alice, and accounts and sessions of everybody.
        """
        probes = list(probes)
        before, stored_before, guests_before = self._count(), self.tally.take(), len(self._guests)
        with ThreadPoolExecutor(HANDS) as hands:
            answers = list(hands.map(self._ask, probes))
        self.sent += len(probes)
        complaints = [
            f"{probe} {complaint}"
            for probe, answer in zip(probes, answers, strict=True)
            for complaint in probe.complaints(answer)
        ]
        assert not complaints, f"{len(complaints)} of {len(probes)}: " + "\n".join(complaints[:20])
        taken = Counter(
            probe.target.partition("?")[0]
            for probe, answer in zip(probes, answers, strict=True)
            if probe.method == "POST" and answer.status_code in (HTTPStatus.OK, HTTPStatus.CREATED)
        )
        guests = len(self._guests) - guests_before
        accounts, sessions = stored_before
        assert self._count() == before + taken[LEDGER]
        assert self.tally.take() == (accounts + guests + taken[REGISTER], sessions + guests + taken[LOG_IN])
        return answers

    def _count(self) -> int:
        return int(self.alice.client.get(LEDGER, params={"limit": 1}).json()["count"])

    def _ask(self, probe: Probe) -> httpx.Response:
        own: Headers = [("Host", httpx.URL(self.base_url).netloc)]
        if probe.with_token and probe.operation is not None and probe.operation.is_secured:
            token = self._token(probe.operation)
            own += [("Authorization", f"Bearer {token}")] if token else []
        request = self.client.build_request(
            probe.method,
            self.base_url + "/",
            headers=[(name.encode(), self._with_token(value)) for name, value in own + probe.headers],
            content=probe.body,
            # As it is: the client's own idea of a URL would mend what is malformed.
            extensions={"target": probe.target.encode("ascii"), "timeout": httpx.Timeout(20).as_dict()},
        )
        return self.client.send(request)

    def _with_token(self, value: str | bytes) -> bytes:
        raw = value.encode() if isinstance(value, str) else value
        return raw.replace(TOKEN.encode(), self.alice.access.encode())

    def _token(self, operation: Operation) -> str | None:
        """Return alice's token; for what would end her session none, or, now and then, that of a guest."""
        ends_the_session = operation.method == "POST" and not operation.fields and not operation.takes_an_id
        if not ends_the_session:
            return self.alice.access
        self._sessions_asked_for += 1
        if self._sessions_asked_for % 25:
            return None
        with closing((guest := sign_up(self.base_url, "guest")).client):
            self._guests.append(guest.name)
            return guest.access


class Tally:
    """How many accounts and sessions there are, of everybody: by one client of the database, asked before and after."""

    def __init__(self, stack: Stack) -> None:
        self._client = subprocess.Popen(
            [
                *("docker", "exec", "--interactive", stack.container("db").id),
                *("psql", "-XAtq", "-F", " ", "-h", "127.0.0.1", "-U", "postgres", "-d", "transactions"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def take(self) -> tuple[int, int]:
        """Return the numbers of now."""
        assert self._client.stdin
        assert self._client.stdout
        self._client.stdin.write(
            "SELECT (SELECT count(*) FROM accounts_user), (SELECT count(*) FROM accounts_session);\n"
        )
        self._client.stdin.flush()
        accounts, sessions = self._client.stdout.readline().split()
        return int(accounts), int(sessions)

    def close(self) -> None:
        """Let the client end."""
        self._client.communicate(timeout=10)


@pytest.fixture(scope="module")
def corpus(base_url: str, stack: Stack) -> Iterator[Corpus]:
    """Everything the tests of this module share; what they sent is said at the end."""
    with closing((alice := sign_up(base_url, "alice")).client), closing(Tally(stack)) as tally:
        found = Corpus(base_url, alice, tally)
        with closing(found.client):
            yield found
        print(f"\n{CASES} cases, {found.sent} requests to {len(found.operations)} operations")


def cases(of: Iterable[str]) -> Callable[[Callable[..., None]], Any]:
    """Run a test once for each name."""
    return pytest.mark.parametrize("name", of)


CASES = sum(
    len(part)
    for part in (
        *(malformed.NO_JSON, malformed.NO_OBJECT, malformed.EMPTY_OBJECTS, malformed.VALUES, malformed.CONTENT_TYPES),
        *(malformed.IDS, malformed.PARAMETERS, malformed.QUERIES),
        *(malformed.AUTHORIZATIONS, malformed.HEADERS, malformed.METHODS),
    )
)


def test_the_corpus_has_300_cases_and_finds_every_kind_of_operation(corpus: Corpus) -> None:
    assert CASES >= 300
    assert any(operation.fields for operation in corpus.operations)
    assert any(operation.takes_an_id for operation in corpus.operations)
    assert any(operation.query for operation in corpus.operations)
    assert {operation.is_secured for operation in corpus.operations} == {True, False}
    assert {operation.method for operation in corpus.operations} >= {"GET", "POST", "PUT", "PATCH", "DELETE"}


REFUSED_BODIES = {**malformed.NO_JSON, **{f"no object: {name}": body for name, body in malformed.NO_OBJECT.items()}}


@cases(REFUSED_BODIES)
def test_a_body_that_is_no_object_of_json_is_refused_wherever_one_is_read(name: str, corpus: Corpus) -> None:
    corpus.refuse(
        corpus.both(
            Probe(
                operation.method,
                corpus.url(operation),
                [("Content-Type", JSON)],
                REFUSED_BODIES[name],
                expected=HTTPStatus.BAD_REQUEST if operation.fields else None,
                operation=operation,
            )
            for operation in corpus.operations
        )
    )


@cases(malformed.EMPTY_OBJECTS)
def test_an_object_without_any_known_name_stores_nothing(name: str, corpus: Corpus) -> None:
    corpus.refuse(
        corpus.both(
            Probe(
                operation.method,
                corpus.url(operation),
                [("Content-Type", JSON)],
                malformed.EMPTY_OBJECTS[name],
                operation=operation,
            )
            for operation in corpus.operations
        )
    )


@cases(malformed.VALUES)
def test_an_odd_value_is_refused_or_taken_by_every_field_but_breaks_none(name: str, corpus: Corpus) -> None:
    value = malformed.VALUES[name]
    probes = []
    for operation in corpus.operations:
        for odd, schema in operation.fields.items():
            kind = "amount" if odd == "amount" else "text" if is_text(schema) else "other"
            body = operation.body()
            del body[odd]
            text = json.dumps(body).removesuffix("}") + (", " if body else "") + f'"{odd}": {value.json}}}'
            probes.append(
                Probe(
                    operation.method,
                    corpus.url(operation),
                    [("Content-Type", JSON)],
                    text.encode(),
                    refused=kind != "other" and value.refused_by in ("all", kind),
                    operation=operation,
                )
            )

    corpus.send(probes)


def is_text(schema: dict[str, Any]) -> bool:
    return all(choice.get("type") == "string" for choice in schema.get("oneOf", [schema]))


@cases(malformed.CONTENT_TYPES)
def test_a_body_is_json_in_utf_8_or_refused_whatever_it_calls_itself(name: str, corpus: Corpus) -> None:
    content_type, fate = malformed.CONTENT_TYPES[name]
    headers: Headers = [] if content_type is None else [("Content-Type", content_type)]
    odd = packed(content_type)

    for probes in (
        # Sound JSON that does not say so.
        [
            Probe(
                operation.method,
                corpus.url(operation),
                headers,
                json.dumps(operation.body()).encode(),
                expected=status_of(fate, operation),
                operation=operation,
            )
            for operation in corpus.operations
        ],
        # Bytes that are JSON in the charset that they name, and in no other.
        [
            Probe(
                operation.method,
                corpus.url(operation),
                headers,
                odd,
                refused=bool(operation.fields),
                operation=operation,
            )
            for operation in corpus.operations
        ],
    ):
        corpus.send(corpus.both(probes))


def status_of(fate: str, operation: Operation) -> HTTPStatus | None:
    """Return what sound JSON deserves that calls itself something, where only one status is right."""
    if fate == "refused" and operation.fields:
        return HTTPStatus.UNSUPPORTED_MEDIA_TYPE
    if fate == "read" and str(operation) == f"POST {LEDGER}":
        return HTTPStatus.CREATED
    return None


def packed(content_type: bytes | None) -> bytes:
    """Return sound JSON as its charset would have it; where that is UTF-8, or nothing, as UTF-8 has it not."""
    charset = (content_type or b"").partition(b"charset=")[2].decode("latin-1")
    packers: list[Any] = [COFFEE, COFFEE.decode()]  # codecs that pack bytes, and those that encode letters
    for sound in packers:
        try:
            found = codecs.encode(sound, charset)
        except (AttributeError, LookupError, TypeError, ValueError):
            continue
        raw = found if isinstance(found, bytes) else str(found).encode()
        if raw != COFFEE and charset != "rot13":  # which is JSON again
            return raw
    return COFFEE.replace(b"Coffee", b"Caf\xe9")


@cases(malformed.IDS)
def test_an_odd_id_is_nobodys(name: str, corpus: Corpus) -> None:
    corpus.refuse(
        corpus.both(
            Probe(
                operation.method,
                operation.url(malformed.IDS[name]),
                [("Content-Type", JSON)],
                json.dumps(operation.body()).encode() if operation.fields else None,
                refused=True,
                operation=operation,
            )
            for operation in corpus.operations
            if operation.takes_an_id
        )
    )


@cases(malformed.PARAMETERS)
def test_an_odd_parameter_breaks_no_list(name: str, corpus: Corpus) -> None:
    corpus.refuse(
        corpus.both(
            Probe(
                operation.method,
                f"{corpus.url(operation)}?{parameter['name']}={malformed.PARAMETERS[name]}",
                refused=name.startswith("no number") and parameter["schema"].get("type") == "integer",
                operation=operation,
            )
            for operation in corpus.operations
            for parameter in operation.query
        )
    )


def everywhere(corpus: Corpus, headers: Headers, query: str = "") -> list[Probe]:
    """Return a sound request to every operation, and to every path that is none, but for what is odd."""
    return [
        Probe(
            operation.method,
            corpus.url(operation) + query,
            [*([("Content-Type", JSON)] if operation.fields else []), *headers],
            json.dumps(operation.body()).encode() if operation.fields else None,
            operation=operation,
        )
        for operation in corpus.operations
    ] + [Probe("GET", path + query, headers) for path in OTHER_PATHS]


@cases(malformed.QUERIES)
def test_an_odd_query_breaks_no_route(name: str, corpus: Corpus) -> None:
    corpus.send(corpus.both(everywhere(corpus, [], f"?{malformed.QUERIES[name]}")))


@cases(malformed.HEADERS)
def test_an_odd_header_breaks_no_route(name: str, corpus: Corpus) -> None:
    corpus.send(corpus.both(everywhere(corpus, malformed.HEADERS[name])))


@cases(malformed.AUTHORIZATIONS)
def test_an_odd_authorization_opens_nothing(name: str, corpus: Corpus) -> None:
    odd: Headers = [("Authorization", value) for value in malformed.AUTHORIZATIONS[name]]
    probes = everywhere(corpus, odd)
    for probe in probes:
        probe.with_token = False
        probe.refused = probe.operation is not None and probe.operation.is_secured

    answers = corpus.send(probes)

    for probe, answer in zip(probes, answers, strict=True):
        if probe.refused:
            assert answer.status_code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.BAD_REQUEST), (str(probe), answer.text)


@cases(malformed.METHODS)
def test_an_odd_method_reaches_nothing(name: str, corpus: Corpus) -> None:
    sound = name in ("OPTIONS", "HEAD")
    targets = {corpus.url(operation): operation for operation in corpus.operations}
    probes = [
        Probe(name, url, [("Content-Type", JSON)], COFFEE, refused=not sound, operation=operation)
        for url, operation in targets.items()
    ] + [Probe(name, path, refused=not sound) for path in OTHER_PATHS]

    answers = corpus.send(corpus.both(probes) if sound else probes)

    if not sound:
        for answer in answers:
            assert answer.status_code in (HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.BAD_REQUEST), answer.text
            assert "Allow" in answer.headers or answer.status_code == HTTPStatus.BAD_REQUEST


RAW = {
    "a header that is folded": "GET {path} HTTP/1.1\nHost: localhost\nAuthorization: Bearer\n x\n\n",
    "a header with NUL": "GET {path} HTTP/1.1\nHost: localhost\nAuthorization: Bearer \x00\n\n",
    "a header with a line feed alone": "GET {path} HTTP/1.1\nHost: localhost\nX-Note: a\rb\n\n",
    "a path with a letter of Latin-1": "GET {path}\xe9 HTTP/1.1\nHost: localhost\n\n",
    "a path with NUL": "GET {path}\x00 HTTP/1.1\nHost: localhost\n\n",
    "a path with a blank": "GET {path} x HTTP/1.1\nHost: localhost\n\n",
    "a path with a tab": "GET {path}\tx HTTP/1.1\nHost: localhost\n\n",
    "a query with a letter of Latin-1": "GET {path}?a=\xe9 HTTP/1.1\nHost: localhost\n\n",
    "a method in small letters": "get {path} HTTP/1.1\nHost: localhost\n\n",
    "a method of Latin-1": "G\xc9T {path} HTTP/1.1\nHost: localhost\n\n",
    "no path": "GET  HTTP/1.1\nHost: localhost\n\n",
    "a path without a slash": "GET api HTTP/1.1\nHost: localhost\n\n",
    "an asterisk for a path": "GET * HTTP/1.1\nHost: localhost\n\n",
    "an unknown scheme for a path": "GET file:///etc/hostname HTTP/1.1\nHost: localhost\n\n",
    "version 9 of HTTP": "GET {path} HTTP/9.9\nHost: localhost\n\n",
}
"""What no HTTP client can be made to send."""


@pytest.mark.parametrize("name", RAW)
def test_an_odd_request_line_is_refused(name: str, corpus: Corpus) -> None:
    for path in sorted({corpus.url(operation) for operation in corpus.operations}):
        request = RAW[name].format(path=path).replace("\n", "\r\n").encode("latin-1")

        conversation = wire.converse(corpus.base_url, request, patience=1)

        assert len(conversation.statuses) == 1, conversation.received
        assert 400 <= conversation.statuses[0] < 500, conversation.received
        assert b"Content-Type: application/json\r\n" in conversation.received
        assert conversation.received.count(b"X-Request-ID: ") == 1
        assert not LEAKS.search(conversation.received.partition(b"\r\n\r\n")[2].decode("latin-1"))


@pytest.mark.parametrize("missing", [1, 20, len(COFFEE)])
def test_a_body_that_stops_short_is_not_taken(missing: int, corpus: Corpus) -> None:
    head = (
        f"POST {LEDGER} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {corpus.alice.access}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(COFFEE)}\r\n\r\n"
    ).encode()
    before = corpus.alice.client.get(LEDGER).json()

    with wire.connect(corpus.base_url) as connection:
        connection.sendall(head + COFFEE[:-missing])

    assert corpus.alice.client.get(LEDGER).json() == before


def test_a_body_that_nobody_reads_costs_nobody_else_their_answer(corpus: Corpus) -> None:
    unread = [
        Probe("POST", path, [("Content-Type", JSON)], b" " * 300_000) for path in ("/auth/jwt/logout/", "/nowhere")
    ]
    record = next(operation for operation in corpus.operations if str(operation) == f"POST {LEDGER}")
    others = [
        Probe("POST", LEDGER, [("Content-Type", JSON)], COFFEE, expected=HTTPStatus.CREATED, operation=record),
        Probe("POST", "/auth/jwt/verify/", [("Content-Type", JSON)], b"{}", expected=HTTPStatus.BAD_REQUEST),
    ]

    corpus.send((unread + others) * 100)
