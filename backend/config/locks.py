"""Locks by name, in PostgreSQL: they hold over every process and replica, and end with the transaction.

Those of `migrate` and `upkeep` last for longer: they end with the session, which must be theirs alone.
"""

import hashlib
import sys

from django.db import connection
from django.db.backends.base.base import BaseDatabaseWrapper

from config.env import EX_CONFIG, ConfigurationError


def try_lock(*name: object) -> bool:
    """Take the lock called ``name`` until the transaction ends; return whether nobody else has it.

    Its rows can be seen by the time it is given back. Two names with the same 64 bits share a lock.
    """
    digest = hashlib.sha256(" ".join(map(str, name)).encode()).digest()
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [int.from_bytes(digest[:8], signed=True)])
        return bool(cursor.fetchone()[0])


def require_session() -> None:
    """End the process where this connection has no session of its own in the server.

    A pooler that hands sessions on after each transaction gives this connection's to the next one that asks. A lock of
    the session would be left to somebody else, who never lets it go.
    """
    session = _session_of(connection)
    other = connection.copy()
    try:
        other.set_autocommit(False)  # a session that is in a transaction is handed to nobody
        shared = session == _session_of(other) or session != _session_of(connection)
    finally:
        other.close()
    if shared:
        problem = (
            "DATABASE_URL leads to a pooler that does not keep sessions. Accepted: the server itself, or a pooler that"
            " keeps a session for each connection (of PgBouncer: pool_mode = session), since migrations and upkeep hold"
            " locks in theirs."
        )
        print(ConfigurationError([problem]), file=sys.stderr)
        raise SystemExit(EX_CONFIG)


def _session_of(client: BaseDatabaseWrapper) -> int:
    with client.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])
