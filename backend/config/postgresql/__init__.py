"""Django's PostgreSQL backend, with what this stack adds to a connection."""

from django.db import connection
from django.db.backends.utils import CursorWrapper


def prepared_cursor() -> CursorWrapper:
    """Return a cursor whose statements are parsed and planned once for each connection."""
    return connection.prepared_cursor()  # type: ignore[attr-defined,no-any-return] # of config.postgresql.base
