"""Connect with the first password that the database takes.

A role of PostgreSQL has one password at a time. While ``./scripts/init --rotate postgres`` changes it, every process
knows the old and the new one, and none needs to know the moment at which the one stops and the other begins to count.
"""

from typing import Any

from django.db.backends.postgresql import base
from psycopg import OperationalError
from psycopg.errors import InvalidAuthorizationSpecification, InvalidPassword

REFUSED_PASSWORD = "password authentication failed"  # noqa: S105
"""What libpq says; an error while connecting has no SQLSTATE (https://github.com/psycopg/psycopg/issues/1061)."""


def refused(error: OperationalError) -> bool:
    """Whether the server did not take the password, rather than being away or full."""
    return isinstance(error, InvalidPassword | InvalidAuthorizationSpecification) or REFUSED_PASSWORD in str(error)


class DatabaseWrapper(base.DatabaseWrapper):
    """A connection that knows more than one password."""

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect with each password in turn until one is taken; the last one's failure is the failure."""
        for password in self.settings_dict.get("OTHER_PASSWORDS", []):
            try:
                return super().get_new_connection(conn_params)
            except OperationalError as error:
                if not refused(error):
                    raise
                conn_params = {**conn_params, "password": password}
        return super().get_new_connection(conn_params)
