"""Django's ``migrate``, by one process at a time."""

from typing import Any

from django.core.management.commands.migrate import Command as MigrateCommand
from django.db import connection

MIGRATE_LOCK = 7_262_001
"""The key of the advisory lock; any number that nothing else in this database uses."""


class Command(MigrateCommand):
    """Wait for the other migrators, then migrate.

    Several releases or hosts may start at once; without the lock all but one of them crash on tables that the
    first has just made. The lock belongs to the session: it ends with the process, however that ends.
    """

    help = MigrateCommand.help + " Holds a PostgreSQL advisory lock meanwhile."

    def handle(self, *args: Any, **options: Any) -> None:
        """Migrate under the lock."""
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", [MIGRATE_LOCK])
            if not cursor.fetchone()[0]:
                self.stderr.write("Another process is migrating this database; waiting for it to finish.")
                # For this one statement: the other migration may take longer than any timeout.
                cursor.execute("SET statement_timeout = 0; SET lock_timeout = 0")
                cursor.execute("SELECT pg_advisory_lock(%s)", [MIGRATE_LOCK])
                cursor.execute("RESET statement_timeout; RESET lock_timeout")
        try:
            super().handle(*args, **options)
        finally:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [MIGRATE_LOCK])
