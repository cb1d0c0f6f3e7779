"""Django's ``migrate``, by one process at a time."""

import time
from typing import Any

from django.core.management import CommandError
from django.core.management.commands.migrate import Command as MigrateCommand
from django.db import connection
from django.db.backends.utils import CursorWrapper

from config.locks import require_session

MIGRATE_LOCK = 7_262_001
"""The key of the advisory lock; any number that nothing else in this database uses."""

POLL_SECONDS = 0.5

LOCK_SECONDS = 120
"""How long to wait for it: less than ./scripts/up waits for the services, so that the reason is seen."""

# A key of 64 bits is shown in two halves: https://www.postgresql.org/docs/18/view-pg-locks.html
# Of the session of another role only the process and the role are shown.
HOLDER = """
    SELECT pid, usename, client_addr, extract(epoch FROM now() - backend_start)::int, state
    FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND classid = 0 AND objid = %s
        AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


class Command(MigrateCommand):
    """Wait for the other migrators, then migrate.

    Several releases or hosts may start at once; without the lock all but one of them crash on tables that the
    first has just made. The lock belongs to the session: it ends with the process, however that ends.
    """

    help = MigrateCommand.help + " Holds a PostgreSQL advisory lock meanwhile."

    def handle(self, *args: Any, **options: Any) -> None:
        """Migrate under the lock."""
        require_session()
        with connection.cursor() as cursor:
            told, deadline = False, time.monotonic() + LOCK_SECONDS
            # Asked again and again: a statement that waits for the lock has a snapshot, and CREATE INDEX CONCURRENTLY
            # in the other process waits for snapshots. PostgreSQL would call that a deadlock.
            while not _take_lock(cursor):
                if not told:
                    self.stderr.write("Another process is migrating this database; waiting for it to finish.")
                    told = True
                if time.monotonic() > deadline and (holder := _holder(cursor)):
                    raise CommandError(holder)
                time.sleep(POLL_SECONDS)
        try:
            super().handle(*args, **options)
        finally:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [MIGRATE_LOCK])


def _take_lock(cursor: CursorWrapper) -> bool:
    cursor.execute("SELECT pg_try_advisory_lock(%s)", [MIGRATE_LOCK])
    return bool(cursor.fetchone()[0])


def _holder(cursor: CursorWrapper) -> str:
    """Say who has the lock; nothing if nobody has it any more."""
    cursor.execute(HOLDER, [MIGRATE_LOCK])
    row = cursor.fetchone()
    if row is None:
        return ""
    pid, role, address, seconds, state = row
    return (
        f"Nothing was migrated: for {LOCK_SECONDS} s another process holds the lock of migrations."
        f" It is process {pid} of the database server, for the role {role} at {address or 'an address not shown'},"
        f" connected for {'?' if seconds is None else seconds} s, {state or 'in a state not shown'}.\n"
        f"If it migrates, wait until it has ended and do this again. If nobody does:"
        f" SELECT pg_terminate_backend({pid})"
    )
