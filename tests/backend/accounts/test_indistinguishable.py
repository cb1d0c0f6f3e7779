"""An account that is known, unknown, disabled or closed: the same answer, the same work, the same time."""

from collections.abc import Callable
from http import HTTPStatus
from statistics import median
from time import process_time
from typing import Any

import pytest
from django.contrib.auth import hashers
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.models import User
from tests.backend.accounts.visitors import PASSWORD, client, register, try_login

pytestmark = pytest.mark.django_db

SAMPLES = 200
NOISE = 0.10

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


def ratio_of_medians(actions: dict[str, Callable[[], Any]], samples: int = SAMPLES) -> float:
    """Return how much longer the slowest kind takes than the quickest; their samples are interleaved.

    Of the processor: what the database is asked is compared statement by statement, above.
    """
    times: dict[str, list[float]] = {kind: [] for kind in actions}
    for _ in range(samples):
        for kind, action in actions.items():
            started = process_time()
            action()
            times[kind].append(process_time() - started)
    medians = [median(taken) for taken in times.values()]
    return max(medians) / min(medians)


def assert_within_noise(actions: dict[str, Callable[[], Any]]) -> None:
    # A busy host may spoil a measurement; a difference in the code spoils all of them.
    ratios = []
    for _ in range(3):
        ratios.append(ratio_of_medians(actions))
        if ratios[-1] <= 1 + NOISE:
            return
    pytest.fail(f"the medians differ by more than {NOISE:.0%}: {ratios}")


@pytest.mark.timeout(300)
def test_every_failed_login_takes_the_same_time(logins: dict[str, Login], settings: Any) -> None:
    settings.ACCOUNT_FAILURES_LIMIT = 10**6
    compared = ["wrong password", "unknown", "disabled", "closed"]

    assert_within_noise({kind: lambda kind=kind: try_login(*logins[kind]) for kind in compared})  # type: ignore


def test_a_reset_takes_the_same_time_for_every_address(logins: dict[str, Login], mail_on: None) -> None:
    visitor = client()

    def ask(address: str) -> Any:
        return visitor.post("/auth/users/reset_password/", {"email": address})

    assert_within_noise(
        {
            address: lambda address=address: ask(address)  # type: ignore
            for address in ("alice@example.com", "nobody@example.com", "disabled@example.com")
        }
    )


def test_a_bad_link_does_not_say_what_is_wrong_with_it(logins: dict[str, Login], mail_on: None) -> None:
    from django.utils.encoding import force_bytes  # noqa: PLC0415
    from django.utils.http import urlsafe_base64_encode  # noqa: PLC0415

    known = urlsafe_base64_encode(force_bytes(User.objects.get(username="alice").pk))
    unknown = urlsafe_base64_encode(b"999999999")
    given = {"token": "c8x2-0123456789abcdef", "new_password": "another-long-passphrase"}
    answers = [
        client().post("/auth/users/reset_password_confirm/", {"uid": uid, **given})
        for uid in (known, unknown, "!", "////")
    ]

    assert {answer.status_code for answer in answers} == {HTTPStatus.BAD_REQUEST}
    assert {answer.content for answer in answers} == {b'{"token":["This link is not valid, or not any more."]}'}
