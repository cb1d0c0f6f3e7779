"""Whether this process can serve: the database answers, and its schema is the one this code expects."""

import logging
from functools import cache

from django.db import DatabaseError, connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder

from config.errors import kind_of_failure

logger = logging.getLogger(__name__)


@cache
def expected_migrations() -> frozenset[tuple[str, str]]:
    """Return the newest migration of every app, as this release's code has them."""
    return frozenset(MigrationLoader(None).graph.leaf_nodes())


def why_not_ready() -> str | None:
    """Return what keeps this process from serving, or None.

    A schema that is newer than the code is ready: during a deployment the old release serves on.
    """
    reason = None
    try:
        applied = MigrationRecorder(connection).applied_migrations()
    except DatabaseError as error:
        reason = f"the database is unavailable: {kind_of_failure(error)}"
    else:
        missing = expected_migrations() - applied.keys()
        if missing:
            reason = "migrations are not applied: " + ", ".join(sorted(f"{app}.{name}" for app, name in missing))
    if reason:
        logger.warning("not ready: %s", reason)
    return reason
