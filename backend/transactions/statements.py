"""The three operations that most requests are, each one prepared statement: read one, read the first page, record one.

Everything else goes through the ORM, which builds its SQL anew for every request: that, and a ModelSerializer, took two
thirds of the time of these three (docs/decisions/0048). Rows come as they go out: names, order and format are those of
``TransactionSerializer``. tests/backend/transactions/test_statements.py compares them with it and the ORM, on random
data.
"""

from decimal import Decimal
from typing import Any, NamedTuple

from config.postgresql import prepared_cursor

NAMES = ("id", "user", "amount", "description", "timestamp")

ROW = """id, user_id, amount::text, description,
    to_char(timestamp AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""

READ_ONE = f"""
    SELECT version, {ROW} FROM transactions_transaction WHERE id = %(pk)s AND user_id = %(owner)s
"""  # noqa: S608 # columns
"""Index Scan using transactions_transaction_pkey (Index Cond: id; Filter: user_id): 4 buffers."""

READ_FIRST_PAGE = f"""
    SELECT (
        SELECT count(*) FROM (
            SELECT FROM transactions_transaction WHERE user_id = %(owner)s
            ORDER BY timestamp DESC, id DESC LIMIT %(counted)s
        ) AS counted
    ), {ROW}
    FROM transactions_transaction WHERE user_id = %(owner)s
    ORDER BY transactions_transaction.timestamp DESC, id DESC LIMIT %(size)s
"""  # noqa: S608 # columns
"""Both parts read transaction_newest_first from its newest entry on: the count an Index Only Scan of as many entries as
are counted, the page an Index Scan of ``size`` entries.
"""

RECORD = f"""
    INSERT INTO transactions_transaction (user_id, amount, description)
    VALUES (%(owner)s, %(amount)s, %(description)s) RETURNING version, {ROW}
"""  # noqa: S608 # columns
"""Time and version are the database's to set."""


class Row(NamedTuple):
    """A transaction: what its entity tag is made of, and what is sent of it."""

    pk: int
    version: int
    data: dict[str, Any]


def read_one(*, owner: int, pk: int) -> Row | None:
    """Return the transaction with this id, if ``owner`` has one."""
    with prepared_cursor() as cursor:
        cursor.execute(READ_ONE, {"owner": owner, "pk": pk})
        found = cursor.fetchone()
    return found and _row(*found)


def read_first_page(*, owner: int, size: int, counted: int) -> tuple[int, list[dict[str, Any]]]:
    """Return how many transactions ``owner`` has, as far as ``counted``, and the newest ``size`` of them."""
    with prepared_cursor() as cursor:
        cursor.execute(READ_FIRST_PAGE, {"owner": owner, "size": size, "counted": counted})
        found = cursor.fetchall()
    return (found[0][0] if found else 0), [_data(row[1:]) for row in found]


def record(*, owner: int, amount: Decimal, description: str) -> Row:
    """Record a transaction of ``owner`` and return it."""
    with prepared_cursor() as cursor:
        cursor.execute(RECORD, {"owner": owner, "amount": amount, "description": description})
        return _row(*cursor.fetchone())


def _row(version: int, *values: Any) -> Row:
    return Row(values[0], version, _data(values))


def _data(values: tuple[Any, ...]) -> dict[str, Any]:
    data = dict(zip(NAMES, values, strict=True))
    # A moment without a fraction is written without one.
    data["timestamp"] = data["timestamp"].replace(".000000Z", "Z")
    return data
