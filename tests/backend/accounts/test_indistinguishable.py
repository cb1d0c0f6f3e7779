"""An account that is known, unknown, disabled or closed: the same answer, the same work, the same time."""

import json
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import pytest
from django.contrib.auth import hashers
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils.http import urlsafe_base64_encode

from accounts.models import User
from tests.backend.accounts.visitors import PASSWORD, client, register, try_login
from tests.backend.conftest import WITH_MAIL, server_on_the_database_of_tests

pytestmark = pytest.mark.django_db

SAMPLES = 200
NOISE = 0.10
BAD_LINK = {"token": "c8x2-0123456789abcdef", "new_password": "another-long-passphrase"}

Login = tuple[str, str]


@pytest.fixture
def logins() -> dict[str, Login]:
    """Return a name and a password for every kind of login that fails."""
    register("alice")
    register("disabled", is_active=False)
    register("waiting", is_active=False, awaits_activation=True)
    User.objects.create_user("keyless", "keyless@example.com", None)
    closed = register("gone")
    closed.close()
    return {
        "wrong password": ("alice", "wrong" + PASSWORD),
        "unknown": ("nobody", PASSWORD),
        "disabled": ("disabled", PASSWORD),
        "disabled, wrong password": ("disabled", "wrong" + PASSWORD),
        "not activated": ("waiting", PASSWORD),
        "without a password": ("keyless", PASSWORD),
        "closed": (f"closed:{closed.pk}", PASSWORD),
    }


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows with every use of the password hasher."""
    used: list[str] = []
    hasher = type(hashers.get_hasher())
    for method in ("encode", "verify"):
        original = getattr(hasher, method)

        def noted(*args: Any, _original: Callable[..., Any] = original, _method: str = method, **kwargs: Any) -> Any:
            used.append(_method)
            return _original(*args, **kwargs)

        monkeypatch.setattr(hasher, method, noted)
    return used


def test_every_failed_login_is_answered_the_same(logins: dict[str, Login]) -> None:
    answers = {kind: try_login(*login) for kind, login in logins.items()}

    assert {answer.status_code for answer in answers.values()} == {HTTPStatus.UNAUTHORIZED}
    assert {answer.content for answer in answers.values()} == {answers["unknown"].content}
    assert {tuple(sorted(answer.headers)) for answer in answers.values()} == {tuple(sorted(answers["unknown"].headers))}


def test_every_failed_login_hashes_once(logins: dict[str, Login], hashes: list[str]) -> None:
    for kind, login in logins.items():
        hashes.clear()
        try_login(*login)
        assert len(hashes) == 1, f"{kind}: {hashes}"


def test_every_failed_login_asks_the_database_the_same(logins: dict[str, Login]) -> None:
    asked = {}
    for kind, login in logins.items():
        with CaptureQueriesContext(
            connection,
        ) as queries:
            try_login(*login)
        asked[kind] = [query["sql"].split()[0] for query in queries]

    assert {tuple(words) for words in asked.values()} == {tuple(asked["unknown"])}, asked


def test_the_answer_to_a_reset_is_the_same_for_every_address(logins: dict[str, Login], mail_on: None) -> None:
    answers = [
        client().post("/auth/users/reset_password/", {"email": address})
        for address in ("alice@example.com", "ALICE@example.com", "nobody@example.com", "disabled@example.com")
    ]

    assert {(answer.status_code, answer.content) for answer in answers} == {(HTTPStatus.NO_CONTENT, b"")}


def test_a_reset_asks_the_database_the_same_for_every_address(logins: dict[str, Login], mail_on: None) -> None:
    asked = set()
    for address in ("alice@example.com", "nobody@example.com", "disabled@example.com", "keyless@example.com"):
        with CaptureQueriesContext(connection) as queries:
            client().post("/auth/users/reset_password/", {"email": address})
        asked.add(tuple(query["sql"].split()[0] for query in queries))

    assert asked == {("INSERT",)}


@pytest.mark.parametrize(
    ("path", "given"),
    [
        (
            "resend_activation",
            [{"email": f"{name}@example.com"} for name in ("waiting", "alice", "disabled", "nobody")],
        ),
        ("reset_password_confirm", [{"uid": name, **BAD_LINK} for name in ("alice", "disabled", "nobody")]),
        ("activation", [{"uid": name, **BAD_LINK} for name in ("waiting", "alice", "disabled", "nobody")]),
    ],
)
def test_a_mail_or_a_link_asks_the_database_the_same_for_everybody(
    logins: dict[str, Login], activation_on: None, path: str, given: list[dict[str, str]]
) -> None:
    asked = {}
    for body in given:
        with CaptureQueriesContext(connection) as queries:
            client().post(f"/auth/users/{path}/", with_uid(body))
        asked[str(body)] = tuple(query["sql"].split()[0] for query in queries)

    assert len(set(asked.values())) == 1, asked
    assert asked[str(given[0])], "the database is not asked at all"


def with_uid(body: dict[str, str]) -> dict[str, str]:
    """Return what a link carries for the account that ``uid`` names."""
    if "uid" not in body:
        return body
    account = User.objects.filter(username=body["uid"]).first()
    return {**body, "uid": urlsafe_base64_encode(str(account.pk if account else 999_999_999).encode())}


# Time, by a clock, from outside: waiting is no work, but it tells as much -------------------------


@pytest.fixture
def server(
    transactional_db: None, logins: dict[str, Login], configuration: dict[str, str], tmp_path: Path
) -> Iterator[HTTPConnection]:
    """Return a connection to a server with mail, which lets one account fail as often as it likes."""
    variables = {**WITH_MAIL, "DJANGO_ACCOUNT_FAILURES_LIMIT": "1000"}
    with server_on_the_database_of_tests(configuration, tmp_path / "log", **variables) as (port, _):
        connection = HTTPConnection("localhost", port, timeout=10)
        yield connection
        connection.close()


def ratio_of_medians(server: HTTPConnection, path: str, bodies: list[dict[str, str]]) -> float:
    """Return how much longer the slowest kind takes than the quickest; their samples are interleaved."""
    written = [json.dumps(body) for body in bodies]
    times: list[list[float]] = [[] for _ in written]
    statuses = set()
    for sample in range(SAMPLES):
        # Each kind comes first as often as the others.
        for number in range(len(written)):
            kind = (sample + number) % len(written)
            started = perf_counter()
            server.request("POST", path, written[kind], {"Content-Type": "application/json"})
            answer = server.getresponse()
            answer.read()
            times[kind].append(perf_counter() - started)
            statuses.add(answer.status)
    assert len(statuses) == 1, statuses
    assert statuses < {HTTPStatus.NO_CONTENT, HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED}
    medians = [median(taken) for taken in times]
    return max(medians) / min(medians)


def assert_within_noise(server: HTTPConnection, path: str, bodies: list[dict[str, str]]) -> None:
    # A busy host may spoil a measurement; a difference in the code spoils all of them.
    ratios = []
    for _ in range(4):
        ratios.append(ratio_of_medians(server, path, bodies))
        if ratios[-1] <= 1 + NOISE:
            return
    pytest.fail(f"the medians differ by more than {NOISE:.0%}: {ratios}")


@pytest.mark.timeout(600)
def test_every_failed_login_takes_the_same_time(logins: dict[str, Login], server: HTTPConnection) -> None:
    compared = [logins[kind] for kind in ("wrong password", "unknown", "disabled", "closed")]

    assert_within_noise(
        server, "/auth/jwt/create/", [{"username": name, "password": password} for name, password in compared]
    )


@pytest.mark.timeout(300)
def test_a_mail_takes_the_same_time_for_every_address(server: HTTPConnection) -> None:
    known, unknown, disabled, waiting = (
        {"email": f"{name}@example.com"} for name in ("alice", "nobody", "disabled", "waiting")
    )

    assert_within_noise(server, "/auth/users/reset_password/", [known, unknown, disabled])
    assert_within_noise(server, "/auth/users/resend_activation/", [waiting, unknown, disabled])


@pytest.mark.timeout(300)
def test_a_bad_link_takes_the_same_time_for_every_account(server: HTTPConnection) -> None:
    known, unknown, disabled, waiting = (
        with_uid({"uid": name, **BAD_LINK}) for name in ("alice", "nobody", "disabled", "waiting")
    )

    assert_within_noise(server, "/auth/users/reset_password_confirm/", [known, unknown, disabled])
    assert_within_noise(server, "/auth/users/activation/", [waiting, unknown, disabled])


def test_a_bad_link_does_not_say_what_is_wrong_with_it(logins: dict[str, Login], mail_on: None) -> None:
    known, unknown = (with_uid({"uid": name})["uid"] for name in ("alice", "nobody"))
    answers = [
        client().post("/auth/users/reset_password_confirm/", {"uid": uid, **BAD_LINK})
        for uid in (known, unknown, "!", "////")
    ]

    assert {answer.status_code for answer in answers} == {HTTPStatus.BAD_REQUEST}
    assert {answer.content for answer in answers} == {b'{"token":["This link is not valid, or not any more."]}'}
