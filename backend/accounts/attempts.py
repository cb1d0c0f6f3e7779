"""Slowing down whoever guesses the password of one account from many addresses.

nginx bounds the rate of one address; here the attempts on one account are counted over all of them. An attempt is
counted before the password is looked at, in one statement, so that a thousand at once are no way round, and taken back
if it succeeds. Once there were too many in the present window, the answer is 429 and the password is not looked at.

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
from django.db import connection
from django.db.models import F, Value
from django.db.models.functions import Greatest, Lower
from django.utils import timezone
from django.utils.crypto import salted_hmac
from rest_framework.exceptions import APIException

from accounts.models import FailedAttempts, Session
from config.upkeep import delete_in_batches

logger = logging.getLogger(__name__)

IPV6_PREFIX = 64
"""What one household or host gets; within it an address is anybody's choice."""

COUNT = """
    INSERT INTO accounts_failedattempts (account_key, network, count, ends_at) VALUES (%s, %s, 1, %s)
    ON CONFLICT (account_key, network) DO UPDATE SET
        count = CASE WHEN accounts_failedattempts.ends_at > %s THEN accounts_failedattempts.count + 1 ELSE 1 END,
        ends_at = CASE WHEN accounts_failedattempts.ends_at > %s
            THEN accounts_failedattempts.ends_at ELSE EXCLUDED.ends_at END
    RETURNING count, ends_at
"""


class TooManyFailures(APIException):
    """429: the password was not looked at."""

    status_code = HTTPStatus.TOO_MANY_REQUESTS
    # One text for an account that exists and one that does not, from here and from anywhere.
    default_detail = "Too many failed attempts. Try again later."
    default_code = "too_many_failures"

    def __init__(self, wait: int) -> None:
        super().__init__()
        self.wait = wait  # Django REST framework sends it as Retry-After


@dataclass
class Attempt:
    """One attempt that is under way."""

    account_key: str
    network: str
    succeeded: bool = False


@contextmanager
def attempt(*, name: str, address: str | None) -> Iterator[Attempt]:
    """Count an attempt on the account called ``name``; take it back if ``succeeded`` is set in the block.

    Raises ``TooManyFailures`` where there were too many.
    """
    lowered, network = _place(name, address)
    current = Attempt(_key(lowered), network)
    now = timezone.now()
    count, ends_at = _count(current, now)
    if count > settings.ACCOUNT_FAILURES_LIMIT:
        wait = max(1, round((ends_at - now).total_seconds()))
        logger.warning("attempt refused: account key %s, %s s to wait", current.account_key[:16], wait)
        raise TooManyFailures(wait)
    yield current
    if current.succeeded:
        _take_back(current)
    else:
        logger.warning("attempt failed: account key %s, number %s", current.account_key[:16], count)


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
    with connection.cursor() as cursor:
        cursor.execute("SELECT lower(%s::text)", [name])
        lowered: str = cursor.fetchone()[0]
    known = (
        network
        and Session.objects.filter(user__username__lower=Lower(Value(name)), client_address__within=network).exists()
    )
    return lowered, network if known else ""


def _network(address: str) -> str:
    prefix = IPV6_PREFIX if ":" in address else 32
    return str(ip_network(f"{address}/{prefix}", strict=False))


def _key(lowered: str) -> str:
    return salted_hmac("accounts.attempts", lowered, algorithm="sha256").hexdigest()


def _count(current: Attempt, now: datetime) -> tuple[int, datetime]:
    ends_at = now + timedelta(seconds=settings.ACCOUNT_FAILURES_WINDOW_SECONDS)
    with connection.cursor() as cursor:
        cursor.execute(COUNT, [current.account_key, current.network, ends_at, now, now])
        count, ends_at = cursor.fetchone()
    return count, ends_at


def _take_back(current: Attempt) -> None:
    rows = FailedAttempts.objects.filter(account_key=current.account_key, network=current.network)
    if current.network:
        # Its owner is there: what went wrong before were mistypings.
        rows.delete()
    else:
        # The rest may be somebody else's.
        rows.update(count=Greatest(F("count") - 1, 0))
