"""Django's ``migrate``, by one process at a time."""

import time
from typing import Any

from django.core.management.commands.migrate import Command as MigrateCommand
from django.db import connection
from django.db.backends.utils import CursorWrapper

from config.locks import require_session

MIGRATE_LOCK = 7_262_001
"""The key of the advisory lock; any number that nothing else in this database uses."""


POLL_SECONDS = 0.5


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
            told = False
            # Asked again and again: a statement that waits for the lock has a snapshot, and CREATE INDEX CONCURRENTLY
            # in the other process waits for snapshots. PostgreSQL would call that a deadlock.
            while not _take_lock(cursor):
                if not told:
                    self.stderr.write("Another process is migrating this database; waiting for it to finish.")
                    told = True
                time.sleep(POLL_SECONDS)
        try:
            super().handle(*args, **options)
        finally:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [MIGRATE_LOCK])


def _take_lock(cursor: CursorWrapper) -> bool:
    cursor.execute("SELECT pg_try_advisory_lock(%s)", [MIGRATE_LOCK])
    return bool(cursor.fetchone()[0])
