"""The keys that sign tokens: several verify, one signs, and replacing it signs nobody out."""

from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import jwt
import pytest
from django.conf import settings as django_settings

from accounts.signing import key_id, token_backend
from config.env import InvalidError, key_ring
from tests.backend.accounts.visitors import Visitor, claims, client, log_in, register

pytestmark = pytest.mark.django_db

OLD = "old-" + "3kQ9zvT1mXw7Lr5YpB2n" * 3
NEW = "new-" + "8HsD4cJf6GxKq0VtZu9M" * 3

UseRing = Callable[[list[str]], None]


@pytest.fixture
def use_ring(settings: Any) -> Iterator[UseRing]:
    """Return a function that restarts the backend with these keys, as far as tokens go."""

    def use(ring: list[str]) -> None:
        settings.JWT_KEY_RING = ring
        token_backend.cache_clear()

    yield use
    token_backend.cache_clear()


@pytest.fixture(autouse=True)
def alice() -> None:
    register("alice")


def kid(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


def test_both_tokens_name_their_key_issuer_audience_session_and_account() -> None:
    visitor = log_in("alice")

    for token, kind in ((visitor.access, "access"), (visitor.refresh, "refresh")):
        said = claims(token)
        assert kid(token) == key_id(django_settings.JWT_KEY_RING[0])
        assert (said["iss"], said["aud"], said["token_type"]) == ("transactions", "transactions-api", kind)
        assert set(said) == {"iss", "aud", "token_type", "exp", "iat", "jti", "sid", "user_id"}
        assert jwt.get_unverified_header(token)["alg"] == "HS256"


def test_the_name_of_a_key_says_nothing_about_it() -> None:
    assert key_id(OLD) != key_id(NEW)
    assert len(key_id(OLD)) == 16
    assert key_id(OLD) not in OLD


def test_the_first_key_signs_and_every_key_verifies(use_ring: UseRing) -> None:
    use_ring([OLD])
    before = log_in("alice")

    use_ring([NEW, OLD])
    after = before.renew()

    assert before.read() == after.read() == HTTPStatus.OK
    assert (kid(before.access), kid(after.access)) == (key_id(OLD), key_id(NEW))
    assert (kid(before.refresh), kid(after.refresh)) == (key_id(OLD), key_id(NEW))


def test_replacing_a_key_in_three_steps_signs_nobody_out(use_ring: UseRing) -> None:
    def everybody_is_in(visitors: list[Visitor]) -> list[Visitor]:
        assert all(visitor.read() == HTTPStatus.OK for visitor in visitors)
        return [visitor.renew() for visitor in visitors]

    use_ring([OLD])
    visitors = [log_in("alice")]
    # 1. It joins the ring: from now on every replica knows it, whichever is restarted first.
    use_ring([OLD, NEW])
    visitors = everybody_is_in([*visitors, log_in("alice")])
    # 2. It signs; a replica that has not been restarted yet verifies what it signed.
    use_ring([NEW, OLD])
    visitors = everybody_is_in([*visitors, log_in("alice")])
    use_ring([OLD, NEW])
    visitors = everybody_is_in(visitors)
    use_ring([NEW, OLD])
    # A session that is used within the life of a refresh token has a new pair by then.
    visitors = everybody_is_in(visitors)
    # 3. The old one leaves.
    use_ring([NEW])
    everybody_is_in(visitors)


def test_a_token_of_a_key_that_has_left_is_refused(use_ring: UseRing) -> None:
    use_ring([OLD])
    visitor = log_in("alice")

    use_ring([NEW])

    assert visitor.is_out()


@pytest.mark.parametrize(
    "header", [{"kid": "0123456789abcdef"}, {"kid": ""}, {}, {"kid": key_id(NEW)}, {"kid": "../../../etc/passwd"}]
)
def test_a_token_under_the_wrong_name_or_none_is_refused(use_ring: UseRing, header: dict[str, str]) -> None:
    use_ring([OLD])
    visitor = log_in("alice")

    for name in ("access", "refresh"):
        forged = jwt.encode(claims(getattr(visitor, name)), OLD, algorithm="HS256", headers=header)
        setattr(visitor, name, forged)

    assert visitor.is_out()


@pytest.mark.parametrize("claim", ["sid", "user_id"])
@pytest.mark.parametrize("value", [None, "", "x", 5.5, [], {}, "7"])
def test_a_signed_token_of_nothing_that_was_ever_issued_is_refused(use_ring: UseRing, claim: str, value: Any) -> None:
    use_ring([OLD])
    visitor = log_in("alice")
    said = {**claims(visitor.refresh), claim: value}

    refresh = jwt.encode(said, OLD, algorithm="HS256", headers={"kid": key_id(OLD)})

    for path, field in (("refresh", "refresh"), ("blacklist", "refresh")):
        answer = client().post(f"/auth/jwt/{path}/", {field: refresh})
        assert answer.status_code == HTTPStatus.UNAUTHORIZED, path
    assert visitor.is_in()


def test_a_ring_is_written_one_key_a_line() -> None:
    assert key_ring(OLD) == [OLD]
    assert key_ring(f"{NEW}\n{OLD}") == [NEW, OLD]


@pytest.mark.parametrize("raw", [f"{OLD}\n", f"\n{OLD}", f"{OLD}\nshort", f"{OLD} {NEW}", f"{OLD}\n\n{NEW}"])
def test_a_ring_with_a_bad_line_is_refused(raw: str) -> None:
    with pytest.raises(InvalidError):
        key_ring(raw)
