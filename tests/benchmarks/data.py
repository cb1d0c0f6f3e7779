"""The rows: the same in every database."""

from __future__ import annotations

from psycopg import sql

from tests.benchmarks.setting import Setting

USERS = 100
ROWS = 1000
"""Of each user."""

EVERYBODY = range(1, USERS + 1)

PASSWORD = "correct horse battery staple"
WORD = "coffee"
"""In one description of fifty."""

# Newest first in the table, too: the baseline reads its page without an order, as the sample does, which is cheaper,
# and still answers the same rows. To the millisecond, which is what all of them write (django-ninja cuts the rest off).
# The users' rows lie between each other, as they do in a table that has grown.
LOAD = """
INSERT INTO transactions_transaction (user_id, amount, description, timestamp)
SELECT u, ((n * 37 + u * 11) %% 200000 - 100000)::numeric / 100,
    CASE WHEN (n + u) %% 50 = 0 THEN 'Coffee with ' || (ARRAY['Ada', 'Bob', 'Cem', 'Dora'])[1 + (n + u) / 50 %% 4]
    ELSE (ARRAY['Groceries', 'Rent', 'Bus ticket', 'Salary', 'Books', 'Electricity', 'Insurance'])[1 + (n + u) %% 7]
        || ' no. ' || n END,
    timestamptz '2026-01-01 12:00:00.123+00' - n * interval '1 hour' - u * interval '1 second'
FROM generate_series(1, %(rows)s::int) AS n, generate_series(%(first)s::int, %(last)s::int) AS u
ORDER BY n, u
"""


def load_rows(setting: Setting, database: str, *, rows: int = ROWS, first: int = 1, last: int = USERS) -> None:
    """Insert ``rows`` transactions for each of the users ``first`` to ``last``."""
    with setting.connect(database) as connection:
        connection.execute(LOAD, {"rows": rows, "first": first, "last": last})


def load_users(setting: Setting, database: str, *, table: str, password: str, last: int = USERS) -> None:
    """Insert users 1 to ``last``, who share one password."""
    with setting.connect(database) as connection:
        connection.execute(
            sql.SQL(
                "INSERT INTO {} (id, username, password, email, first_name, last_name, is_superuser, is_staff,"
                " is_active, date_joined) SELECT u, 'user' || u, %s, '', '', '', false, false, true, now()"
                " FROM generate_series(1, %s::int) AS u"
            ).format(sql.Identifier(table)),
            [password, last],
        )
        connection.execute("SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)", [table, last])


def vacuum(setting: Setting, database: str) -> None:
    """Bring the statistics and the visibility map up to date, which autovacuum would do sooner or later."""
    with setting.connect(database) as connection:
        connection.execute("VACUUM (ANALYZE)")
