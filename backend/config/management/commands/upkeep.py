"""Everything that has to happen without anybody asking for it."""

import logging
import signal
import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import connection
from django.utils.module_loading import import_string

from accounts.mail import deliver_due
from config.env import EX_CONFIG, ConfigurationError, Environment, InvalidError, whole
from config.errors import DATABASE_ERRORS, log_database_error
from config.locks import require_session
from config.upkeep import stopping

UPKEEP_LOCK = 7_262_002
"""The key of the advisory lock; `migrate` has another."""

TICK_SECONDS = 5
"""How long a mail waits at most until it is noticed, and how soon a database that was away is tried again."""

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    """Remove what has expired, and send the mail that is due: once, or for as long as the process runs."""

    help = "Removes what has expired and sends the mail that is due. Several at once do no harm: one of them works."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--every",
            type=_seconds,
            metavar="SECONDS",
            help="stay, remove what has expired every so many seconds, and send mail as it becomes due",
        )
        parser.add_argument(
            "--heartbeat",
            type=Path,
            metavar="FILE",
            help="with --every: touch FILE whenever all is well, for `python -m health.heartbeat`",
        )

    def handle(self, *args: Any, every: int | None, heartbeat: Path | None, **options: Any) -> None:
        """Work once, or until the process is told to stop."""
        _require_mail_server()
        stopping.clear()
        if every is None:
            self.remove_expired()
            self.deliver()
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopping.set())
        self.stay(every, heartbeat)

    def stay(self, every: int, heartbeat: Path | None) -> None:
        """Work until the process is told to stop; a database that is away is waited for."""
        logger.info("upkeep every %s s, mail %s", every, "as it becomes due" if settings.MAIL_ENABLED else "not at all")
        removal_due = monotonic()
        removed_all = True
        while not stopping.is_set():
            try:
                if monotonic() >= removal_due:
                    removed_all = self.remove_expired()
                    removal_due = monotonic() + every
                well = self.deliver() and removed_all
                _ask_database()
            except DATABASE_ERRORS as error:
                log_database_error(error)
                # Nothing but a new connection helps; the next statement makes it.
                connection.close()
                well = False
            if heartbeat and well:
                heartbeat.touch()
            stopping.wait(TICK_SECONDS)
        logger.info("upkeep ends, as it was told to")

    def remove_expired(self) -> bool:
        """Run every job of ``settings.UPKEEP`` under the lock; return whether none failed."""
        well = True
        began, total = monotonic(), 0
        with _lock() as alone:
            if not alone:
                self.stderr.write("Another upkeep process is removing what has expired; nothing is left to do here.")
                return True
            for path in settings.UPKEEP:
                job: Callable[[], dict[str, int]] = import_string(path)
                removed = _shielded(path, job)
                well = well and removed is not None
                for kind, count in (removed or {}).items():
                    total += count
                    if count:
                        logger.info("removed %s expired %s", count, kind)
                if stopping.is_set():
                    break
        # Also where there was nothing: a log that is silent for days looks like a process that does nothing.
        logger.info("upkeep removed %s expired rows in %.1f s", total, monotonic() - began)
        return well

    def deliver(self) -> bool:
        """Send the mail that is due; return whether that worked as such."""
        return not settings.MAIL_ENABLED or _shielded("accounts.mail.deliver_due", deliver_due) is not None


def _ask_database() -> None:
    """Raise where the database is away, also in a turn that had nothing else to ask it: all is not well then."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def _shielded(path: str, job: Callable[[], dict[str, int]]) -> dict[str, int] | None:
    """Return what ``job`` returns; None, with the traceback in the log, where it has a defect: the others go on."""
    try:
        return job()
    except DATABASE_ERRORS:
        raise
    except Exception:
        logger.exception("upkeep: %s failed", path)
        return None


@contextmanager
def _lock() -> Iterator[bool]:
    """Hold the lock, unless another process has it; it ends with the connection, however that ends."""
    require_session()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s)", [UPKEEP_LOCK])
        alone = bool(cursor.fetchone()[0])
    try:
        yield alone
    finally:
        # A connection that broke has let go of the lock, and a new one has nothing to unlock.
        if alone and connection.connection is not None and not connection.connection.closed:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [UPKEEP_LOCK])


def _require_mail_server() -> None:
    """End the process where people may ask for mail and this process, which sends it, cannot.

    Here and not with the other variables: the processes that answer people need no mail server, and must not know its
    password.
    """
    if settings.PASSWORD_RESET_URL and not settings.MAIL_ENABLED:
        problem = "EMAIL_URL is missing although DJANGO_PASSWORD_RESET_URL is set. Accepted:"
        remedy = "put it into secrets/email_url, or remove DJANGO_PASSWORD_RESET_URL"
        print(ConfigurationError([f"{problem} {Environment.EMAIL_URL.accepts}; {remedy}."]), file=sys.stderr)
        raise SystemExit(EX_CONFIG)


def _seconds(raw: str) -> int:
    try:
        return whole(1, 86_400)(raw)
    except InvalidError as error:
        raise ArgumentTypeError(f"{error}; accepted: 1 to 86400") from None
