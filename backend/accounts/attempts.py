"""Slowing down whoever guesses the password of one account from many addresses.

nginx bounds the rate of one address; here the attempts on one account are counted over all of them. An attempt takes
one of the places that are left before the password is looked at, in one statement, so that a thousand at once are no
way round. When it has failed it counts; otherwise it gives its place back. Once too many have failed in the present
window, the answer is 429 and the password is not looked at. While the places are merely taken, the wait is a second.

So that nobody can lock somebody else out, an address that the account has been used from before is counted apart.
docs/decisions/0020 compares this with django-axes.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from ipaddress import ip_network

from django.conf import settings
from django.db import Error
from django.utils import timezone
from django.utils.crypto import salted_hmac
from rest_framework.exceptions import APIException

from accounts.models import FailedAttempts
from config.postgresql import prepared_cursor
from config.upkeep import delete_in_batches

logger = logging.getLogger(__name__)

IPV6_PREFIX = 64
"""What one household or host gets; within it an address is anybody's choice."""

IN_FLIGHT = timedelta(seconds=30)
"""After which time without another attempt those that were never settled are given up: their process was killed, or the
database went away under them. A password hash takes a hundredth of it.
"""

PLACE = """
    SELECT lower(%(name)s::text), EXISTS (
        SELECT FROM accounts_session AS session JOIN accounts_user AS account ON account.id = session.user_id
        WHERE lower(account.username) = lower(%(name)s::text) AND session.client_address <<= %(network)s::inet
    )
"""

TAKE_PLACE = """
    INSERT INTO accounts_failedattempts AS row (account_key, network, count, in_flight, in_flight_until, ends_at)
    VALUES (%(account_key)s, %(network)s, 0, 1, %(in_flight_until)s, %(ends_at)s)
    ON CONFLICT (account_key, network) DO UPDATE SET
        count = CASE WHEN row.ends_at > %(now)s THEN row.count ELSE 0 END,
        in_flight = CASE WHEN row.ends_at > %(now)s AND row.in_flight_until > %(now)s THEN row.in_flight ELSE 0 END + 1,
        in_flight_until = EXCLUDED.in_flight_until,
        ends_at = CASE
            WHEN row.ends_at > %(now)s AND (row.count > 0 OR row.in_flight > 0) THEN row.ends_at
            ELSE EXCLUDED.ends_at END
    WHERE row.ends_at <= %(now)s
        OR row.count + CASE WHEN row.in_flight_until > %(now)s THEN row.in_flight ELSE 0 END < %(limit)s
    RETURNING ends_at
"""
"""Returns no row where no place is left."""

GIVE_PLACE_BACK = """
    UPDATE accounts_failedattempts SET
        count = CASE %(outcome)s WHEN 'failed' THEN count + 1 WHEN 'forgiven' THEN 0 ELSE count END,
        in_flight = greatest(in_flight - 1, 0)
    WHERE account_key = %(account_key)s AND network = %(network)s AND ends_at = %(ends_at)s
    RETURNING count
"""
"""Returns no row where the window is over."""


class TooManyFailures(APIException):
    """429: the password was not looked at."""

    status_code = HTTPStatus.TOO_MANY_REQUESTS
    # One text for an account that exists and one that does not, from here and from anywhere.
    default_detail = "Too many failed attempts. Try again later."
    default_code = "too_many_failures"

    def __init__(self, wait: int) -> None:
        super().__init__()
        self.wait = wait  # Django REST framework sends it as Retry-After


class TooManyAtOnce(TooManyFailures):
    """429: others are being looked at; whether they fail is not known yet."""

    default_detail = "Too many attempts at the same moment. Try again in a second."
    default_code = "too_many_at_once"


@dataclass
class Attempt:
    """One attempt that is under way."""

    account_key: str
    network: str
    ends_at: datetime
    succeeded: bool = False


@contextmanager
def attempt(*, name: str, address: str | None) -> Iterator[Attempt]:
    """Count an attempt on the account called ``name`` unless ``succeeded`` is set in the block, or it raises.

    Raises ``TooManyFailures`` where there were too many.
    """
    lowered, network = _place(name, address)
    current = _begin(_key(lowered), network)
    outcome = "unknown"
    try:
        yield current
        outcome = "failed"
        if current.succeeded:
            # From where the account is used its owner is there: what went wrong before were mistypings. Elsewhere the
            # rest may be somebody else's.
            outcome = "forgiven" if network else "succeeded"
    finally:
        _settle(current, outcome)


def unlock(*, name: str) -> int:
    """Forget the failed attempts on the account called ``name``; return how many there were."""
    lowered, _ = _place(name, None)
    rows = FailedAttempts.objects.filter(account_key=_key(lowered))
    forgotten = sum(rows.values_list("count", flat=True))
    rows.delete()
    return forgotten


def remove_expired() -> dict[str, int]:
    """Remove the windows that are over."""
    return {"failed attempts": delete_in_batches(FailedAttempts.objects.filter(ends_at__lt=timezone.now()))}


def _place(name: str, address: str | None) -> tuple[str, str]:
    """Return ``name`` in lower case, and the network of ``address`` if the account was used from there, else "".

    PostgreSQL lowers the name, as it does for the login: Python has other ideas about some letters, and each idea would
    be one more series of attempts on the same account.
    """
    network = "" if address is None else _network(address)
    with prepared_cursor() as cursor:
        cursor.execute(PLACE, {"name": name, "network": network or None})
        lowered, is_known = cursor.fetchone()
    return lowered, network if is_known else ""


def _network(address: str) -> str:
    prefix = IPV6_PREFIX if ":" in address else 32
    return str(ip_network(f"{address}/{prefix}", strict=False))


def _key(lowered: str) -> str:
    return salted_hmac("accounts.attempts", lowered, algorithm="sha256").hexdigest()


def _begin(account_key: str, network: str) -> Attempt:
    now = timezone.now()
    ends_at = now + timedelta(seconds=settings.ACCOUNT_FAILURES_WINDOW_SECONDS)
    limit = settings.ACCOUNT_FAILURES_LIMIT
    with prepared_cursor() as cursor:
        cursor.execute(
            TAKE_PLACE,
            {
                "account_key": account_key,
                "network": network,
                "now": now,
                "in_flight_until": now + IN_FLIGHT,
                "ends_at": ends_at,
                "limit": limit,
            },
        )
        row = cursor.fetchone()
    if row is not None:
        return Attempt(account_key, network, ends_at=row[0])
    full = FailedAttempts.objects.filter(account_key=account_key, network=network, count__gte=limit).first()
    wait = max(1, round((full.ends_at - now).total_seconds())) if full else 1
    logger.warning("attempt refused: account key %s, %s s to wait", account_key[:16], wait)
    raise TooManyFailures(wait) if full else TooManyAtOnce(wait)


def _settle(current: Attempt, outcome: str) -> None:
    given: dict[str, str | datetime] = {
        "outcome": outcome,
        "account_key": current.account_key,
        "network": current.network,
        "ends_at": current.ends_at,
    }
    try:
        with prepared_cursor() as cursor:
            cursor.execute(GIVE_PLACE_BACK, given)
            row = cursor.fetchone()
    except Error:
        if outcome != "unknown":
            raise
        # The database is away, which is what has ended the attempt: it runs out by itself.
        return
    if outcome == "failed":
        logger.warning("attempt failed: account key %s, number %s", current.account_key[:16], row[0] if row else 1)
