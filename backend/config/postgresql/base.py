"""Django's own connection to PostgreSQL, with three things added.

It connects with the first password that the database takes: a role has one at a time, and while ``./scripts/init
--rotate postgres`` changes it, every process knows the old and the new one, and none needs to know the moment at which
the one stops and the other begins to count. It finds out without a question whether a connection still lives. And it
has a cursor whose statements the server parses and plans once (docs/decisions/0048).
"""

import select
import time
from typing import Any

from django.db.backends.postgresql import base, operations
from psycopg import Cursor, OperationalError
from psycopg.errors import InvalidAuthorizationSpecification, InvalidPassword
from psycopg.pq import TransactionStatus

REFUSED_PASSWORD = "password authentication failed"  # noqa: S105
"""What libpq says; an error while connecting has no SQLSTATE (https://github.com/psycopg/psycopg/issues/1061)."""

TRUSTED_SECONDS = 5
"""How long after its last use a connection is believed by the look of its socket. TCP's keepalives begin then
(``keepalives_idle`` in config.settings): a network in between may have forgotten an idle connection without a word.
"""

PREPARED = "prepared"
"""What ``create_cursor`` is asked for; Django's own names for cursors on the server begin with an underscore."""


class RefusedPasswordError(OperationalError):
    """The database takes no password that this process has. The text says which and what to do, without a value."""


def refused(error: OperationalError) -> bool:
    """Whether the server did not take the password, rather than being away or full."""
    return isinstance(error, InvalidPassword | InvalidAuthorizationSpecification) or REFUSED_PASSWORD in str(error)


class PreparingCursor(Cursor[Any]):
    """Has the server parse and plan a statement once for each connection, at its first use."""

    def execute(self, query: Any, params: Any = None, **options: Any) -> Any:
        """Execute a statement; prepared, unless ``prepare_threshold`` is None."""
        return super().execute(query, params, prepare=True, **options)


class DatabaseOperations(operations.DatabaseOperations):
    """What is said of a statement afterwards, of a prepared one too."""

    def last_executed_query(self, cursor: Any, sql: str, params: Any) -> str:
        """Return the statement with its values, for logs and tests."""
        return str(super().last_executed_query(cursor, sql, params) or self.compose_sql(sql, params))


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection that knows more than one password, lives or is replaced, and prepares statements."""

    ops_class = DatabaseOperations
    looked_at = 0.0

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect with each password in turn until one is taken; a failure of another kind ends the search."""
        for password in (conn_params["password"], *self.settings_dict["OTHER_PASSWORDS"]):
            try:
                return super().get_new_connection({**conn_params, "password": password})
            except OperationalError as error:
                if not refused(error):
                    raise
                refusal = error
        raise RefusedPasswordError(
            f"it refuses the password of the role {conn_params['user']}, {self.settings_dict['PASSWORD_ORIGIN']};"
            " put the one that it takes there, or give this one to the role"
            ' (docs/runbook.md, "The database refuses a password")'
        ) from refusal

    def is_usable(self) -> bool:
        """Return whether the connection lives; Django asks before it uses one again.

        Its own way is a ``SELECT 1`` before every request. A server that has ended, or has ended this session, has said
        so: there is something to be read from a socket on which nothing was asked.
        """
        before, self.looked_at = self.looked_at, time.monotonic()
        idle = self.connection.pgconn.transaction_status == TransactionStatus.IDLE
        recent = self.looked_at - before < TRUSTED_SECONDS
        if idle and recent and not self.errors_occurred and not self._has_something_to_read():
            return True
        return bool(super().is_usable())

    def prepared_cursor(self) -> Any:
        """Return a cursor whose statements are prepared: for those of the busiest endpoints and of logins."""
        return self._cursor(name=PREPARED)  # type: ignore[attr-defined] # Django's own; its stubs lack it

    def create_cursor(self, name: str | None = None) -> Any:
        """Return the cursor that Django wraps."""
        return PreparingCursor(self.connection) if name == PREPARED else super().create_cursor(name)

    def _has_something_to_read(self) -> bool:
        poll = select.poll()
        poll.register(self.connection.fileno(), select.POLLIN)
        return bool(poll.poll(0))
