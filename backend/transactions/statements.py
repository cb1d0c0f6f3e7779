"""The three operations that most requests are, each one prepared statement: read one, read the first page, record one.

Each also finds out whether the session of who asks is live, and raises ``AuthenticationFailed`` where it is not.
Everything else goes through the ORM, which builds its SQL anew for every request: that, and a ModelSerializer, took two
thirds of the time of these three (docs/decisions/0048). Rows come as they go out: names, order and format are those of
``TransactionSerializer``. tests/backend/transactions/test_statements.py compares them with it and the ORM, on random
data, and looks at the plans.

The plans below are what EXPLAIN (ANALYZE, BUFFERS) says, shortened, where the account has 3 million rows among 6.1
million, with 20,000 sessions and accounts, everything in memory. Each begins with who asks, which is ``asking``:

    Nested Loop (actual time=0.022..0.023 rows=1.00 loops=1)
      Buffers: shared hit=6
      ->  Index Scan using accounts_session_pkey on accounts_session session
            Index Cond: (id = '34f74595-...'::uuid)
            Filter: ((ended_at IS NULL) AND (expires_at > '2026-...') AND (user_id = 4))
      ->  Index Scan using accounts_user_pkey on accounts_user account
            Index Cond: (id = 4)
            Filter: is_active
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
"""One row, by its id:

    Nested Loop Left Join (actual time=0.034..0.036 rows=1.00 loops=1)
      Buffers: shared hit=10
      ->  asking: 6 buffers
      ->  Index Scan using transactions_transaction_pkey on transactions_transaction
            (actual time=0.006..0.006 rows=1.00 loops=1)
            Index Cond: (id = 3050496)
            Filter: (user_id = 4)
            Buffers: shared hit=4
    Planning Time: 0.142 ms
    Execution Time: 0.055 ms
"""

RECORD = f"""{ASKING}, row AS (
        INSERT INTO transactions_transaction (user_id, amount, description)
        SELECT asking.account, %(amount)s, %(description)s FROM asking RETURNING {COLUMNS}
    )
    SELECT asking.to_be_noted, row.* FROM asking, row
"""  # noqa: S608 # columns
"""Time and version are the database's to set. Nothing is read but who asks, and the row is written with its indexes:

    Nested Loop (actual time=0.091..0.093 rows=1.00 loops=1)
      Buffers: shared hit=18
      CTE asking: 6 buffers
      CTE row
        ->  Insert on transactions_transaction (actual time=0.076..0.077 rows=1.00 loops=1)
              Buffers: shared hit=12
              ->  CTE Scan on asking asking_1 (actual time=0.004..0.005 rows=1.00 loops=1)
      ->  CTE Scan on asking (actual time=0.013..0.014 rows=1.00 loops=1)
      ->  CTE Scan on "row" (actual time=0.076..0.078 rows=1.00 loops=1)
    Planning Time: 0.112 ms
    Execution Time: 0.115 ms
"""


@cache
def first_page_statement(*, size: int, counted: int) -> str:
    """Return the statement that counts as far as ``counted`` and returns the newest ``size`` rows.

    Both parts read transaction_newest_first from its newest entry on, the count as many entries as are counted, the
    page ``size`` of them; the sort is of that page. With a size of 10 and 2,001 counted:

        Sort (actual time=0.365..0.366 rows=10.00 loops=1)
          Buffers: shared hit=24
          InitPlan 1
            ->  Aggregate (actual time=0.309..0.309 rows=1.00 loops=1)
                  ->  Limit (actual time=0.008..0.240 rows=2001.00 loops=1)
                        ->  Index Only Scan using transaction_newest_first on transactions_transaction
                              (actual time=0.008..0.144 rows=2001.00 loops=1)
                              Index Cond: (user_id = 4)
                              Heap Fetches: 0
                              Buffers: shared hit=14
          ->  Nested Loop Left Join (actual time=0.350..0.359 rows=10.00 loops=1)
                ->  asking: 6 buffers
                ->  Limit (actual time=0.019..0.026 rows=10.00 loops=1)
                      ->  Index Scan using transaction_newest_first on transactions_transaction
                            Index Cond: (user_id = 4)
                            Buffers: shared hit=4
        Planning Time: 0.314 ms
        Execution Time: 0.398 ms

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
