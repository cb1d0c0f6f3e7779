"""The three operations that most requests are, each one prepared statement: read one, read the first page, record one.

Each also finds out whether the session of who asks is live, and raises ``AuthenticationFailed`` where it is not.
Everything else goes through the ORM, which builds its SQL anew for every request: that, and a ModelSerializer, took two
thirds of the time of these three (docs/decisions/0048). Rows come as they go out: names, order and format are those of
``TransactionSerializer``. tests/backend/transactions/test_statements.py compares them with it and the ORM, on random
data.
"""

from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple

from rest_framework_simplejwt.tokens import Token

from accounts.authentication import ASKING, fetch_as

NAMES = ("id", "user", "amount", "description", "timestamp")

COLUMNS = """
    id, user_id, amount::text, description,
    to_char(timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') AS written, version
"""

READ_ONE = f"""{ASKING}
    SELECT asking.to_be_noted, row.* FROM asking LEFT JOIN (
        SELECT {COLUMNS} FROM transactions_transaction WHERE id = %(pk)s AND user_id = %(account)s
    ) AS row ON true
"""  # noqa: S608 # columns
"""Index Scan using transactions_transaction_pkey (Index Cond: id; Filter: user_id): 4 buffers."""

RECORD = f"""{ASKING}, row AS (
        INSERT INTO transactions_transaction (user_id, amount, description)
        SELECT asking.account, %(amount)s, %(description)s FROM asking RETURNING {COLUMNS}
    )
    SELECT asking.to_be_noted, row.* FROM asking, row
"""  # noqa: S608 # columns
"""Time and version are the database's to set."""


@cache
def first_page_statement(*, size: int, counted: int) -> str:
    """Return the statement that counts as far as ``counted`` and returns the newest ``size`` rows.

    Both parts read transaction_newest_first from its newest entry on: the count, once, an Index Only Scan of as many
    entries as are counted, the page an Index Scan of ``size`` entries.

    The numbers are written into it. With parameters, PostgreSQL found no plan for all numbers as good as one for these,
    and made a new one for every request, which took longer than to execute it.
    """
    return f"""{ASKING}
        SELECT asking.to_be_noted, row.id, row.user_id, row.amount, row.description, row.written, row.version, (
            SELECT count(*) FROM (
                SELECT FROM transactions_transaction WHERE user_id = %(account)s
                ORDER BY timestamp DESC, id DESC LIMIT {counted:d}
            ) AS counted
        ) FROM asking LEFT JOIN (
            SELECT {COLUMNS}, timestamp FROM transactions_transaction WHERE user_id = %(account)s
            ORDER BY timestamp DESC, id DESC LIMIT {size:d}
        ) AS row ON true
        ORDER BY row.timestamp DESC, row.id DESC
    """  # noqa: S608 # columns and whole numbers


class Row(NamedTuple):
    """A transaction: what its entity tag is made of, and what is sent of it."""

    pk: int
    version: int
    data: dict[str, Any]


def read_one(*, token: Token, pk: int) -> Row | None:
    """Return the transaction with this id, if the account of ``token`` has one."""
    ((_, *values),) = fetch_as(token, READ_ONE, pk=pk)
    return _row(values) if values[0] is not None else None


def read_first_page(*, token: Token, size: int, counted: int) -> tuple[int, list[dict[str, Any]]]:
    """Return how many transactions the account of ``token`` has, as far as ``counted``, and the newest ``size``."""
    rows = fetch_as(token, first_page_statement(size=size, counted=counted))
    return rows[0][-1], [_row(values[1:]).data for values in rows if values[1] is not None]


def record(*, token: Token, amount: Decimal, description: str) -> Row:
    """Record a transaction of the account of ``token`` and return it."""
    ((_, *values),) = fetch_as(token, RECORD, amount=amount, description=description)
    return _row(values)


def _row(values: Any) -> Row:
    pk, user, amount, description, moment, version = values[:6]
    # A moment without a fraction is written without one.
    moment = moment.replace(".000000Z", "Z")
    return Row(pk, version, dict(zip(NAMES, (pk, user, amount, description, moment), strict=True)))
