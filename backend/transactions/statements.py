"""What most requests are, each one prepared statement: read one, read the first page, search, record one.

Each also finds out whether the session of who asks is live, and raises ``AuthenticationFailed`` where it is not. Only a
search for what is rare has a second one, which comes after that and is not prepared.

Everything else goes through the ORM, which builds its SQL anew for every request: that, and a ModelSerializer, took two
thirds of the time of these (docs/decisions/0048). Rows come as they go out: names, order and format are those of
``TransactionSerializer``. tests/backend/transactions/test_statements.py and test_search.py compare them with it and the
ORM, on random data, and look at the plans.

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

from collections.abc import Sequence
from decimal import Decimal
from functools import cache
from typing import Any, NamedTuple

from django.db import connection
from rest_framework_simplejwt.tokens import Token

from accounts.authentication import ASKING, fetch_as
from transactions import counts
from transactions.counts import Count
from transactions.search import LookedAt, is_indexed

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


@cache
def look_statement(*, size: int, looked_at: int, words: int) -> str:
    """Return the statement that looks at the newest ``looked_at`` rows and returns the newest ``size`` with all words.

    It begins a search as ``Search.find`` does. For one word, a size of 10 and 2,001 looked at:

        Sort (actual time=1.259..1.261 rows=10.00 loops=1)
          Buffers: shared hit=107
          CTE looked_at
            ->  Limit (actual time=0.020..0.785 rows=2001.00 loops=1)
                  ->  Index Scan using transaction_newest_first on transactions_transaction
                        (actual time=0.019..0.689 rows=2001.00 loops=1)
                        Index Cond: (user_id = 4)
                        Buffers: shared hit=58
          ->  Nested Loop Left Join (actual time=1.234..1.253 rows=10.00 loops=1)
                ->  asking: 6 buffers
                ->  Nested Loop (actual time=0.063..0.076 rows=10.00 loops=1)
                      ->  Limit (actual time=0.022..0.047 rows=10.00 loops=1)
                            ->  CTE Scan on looked_at (actual time=0.021..0.046 rows=10.00 loops=1)
                                  Filter: is_hit
                      ->  Index Scan using transactions_transaction_pkey on transactions_transaction
                            (actual time=0.002..0.002 rows=1.00 loops=10)
                            Buffers: shared hit=40
        Execution Time: 1.295 ms

    The number that is looked at comes from a subquery: then PostgreSQL knows only that it is a part, and reads in
    order. From the number itself, and the rows that an account has on average, it would conclude that all of the
    account's are wanted, and read and sort three million.
    """
    is_hit = " AND ".join(f"UPPER(description::text) LIKE (SELECT UPPER(%(pattern_{n})s::text))" for n in range(words))
    return f"""{ASKING}, looked_at AS MATERIALIZED (
            SELECT id, timestamp, {is_hit} AS is_hit FROM transactions_transaction WHERE user_id = %(account)s
            ORDER BY timestamp DESC, id DESC LIMIT (SELECT {looked_at:d})
        )
        SELECT asking.to_be_noted, row.id, row.user_id, row.amount, row.description, row.written, row.version,
            (SELECT count(*) FROM looked_at), (SELECT count(*) FROM looked_at WHERE is_hit)
        FROM asking LEFT JOIN (
            SELECT {COLUMNS}, timestamp FROM transactions_transaction WHERE id IN (
                SELECT id FROM looked_at WHERE is_hit ORDER BY timestamp DESC, id DESC LIMIT {size:d}
            )
        ) AS row ON true
        ORDER BY row.timestamp DESC, row.id DESC
    """  # noqa: S608 # columns, whole numbers, and names of values


@cache
def rare_statement(*, size: int, counted: int, words: int) -> str:
    """Return the statement that finds rare words by transaction_search: the newest ``size`` rows, and how many in all.

    Not prepared: with the words in sight PostgreSQL expects next to nothing, without them half a hundredth of the
    table, for which it would start parallel workers. A word of 7 letters in 30 rows:

        Limit (actual time=5.485..5.488 rows=10.00 loops=1)
          Buffers: shared hit=294
          InitPlan 1
            ->  Aggregate (actual time=2.711..2.712 rows=1.00 loops=1)
                  ->  Bitmap Heap Scan on transactions_transaction (actual time=2.648..2.706 rows=30.00 loops=1)
                        ->  Bitmap Index Scan on transaction_search (actual time=2.633..2.633 rows=30.00 loops=1)
                              Buffers: shared hit=117
          ->  Sort (actual time=5.485..5.486 rows=10.00 loops=1)
                ->  the same Bitmap Heap Scan, 147 buffers
        Planning Time: 0.157 ms
        Execution Time: 5.513 ms

    Where there is none, nothing is counted: 18 buffers, and 0.048 ms.
    """
    found = "user_id = %(account)s AND " + " AND ".join(
        f"transaction_search_vector(user_id, description) @@ transaction_search_query(%(account)s, %(word_{n})s)"
        f" AND UPPER(description::text) LIKE UPPER(%(pattern_{n})s)"
        for n in range(words)
    )
    return f"""
        SELECT {COLUMNS}, (
            SELECT count(*) FROM (SELECT FROM transactions_transaction WHERE {found} LIMIT {counted:d}) AS counted
        ) FROM transactions_transaction WHERE {found} ORDER BY timestamp DESC, id DESC LIMIT {size:d}
    """  # noqa: S608 # columns, whole numbers, and names of values


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


def search_first_page(*, token: Token, words: Sequence[str], size: int) -> tuple[Count, list[dict[str, Any]]] | None:
    """Return how many transactions of the account of ``token`` hold all words, and the newest ``size`` of these.

    The same as ``Search.find`` finds; None where that would look at more rows.
    """
    patterns = (f"%{connection.ops.prep_for_like_query(word)}%" for word in words)
    values = {f"pattern_{n}": pattern for n, pattern in enumerate(patterns)}
    number = counts.COUNTED_ROWS
    statement = look_statement(size=size, looked_at=number + 1, words=len(words))
    rows = fetch_as(token, statement, **values)
    *_, seen, found = rows[0]
    looked_at = LookedAt(are_all=seen <= number, found=found)
    if looked_at.calls_for_more(indexed=is_indexed(words)):
        return None
    if looked_at.suffices():
        return looked_at.counted(), [_row(row[1:]).data for row in rows if row[1] is not None]
    values |= {f"word_{n}": word for n, word in enumerate(words)}
    with connection.cursor() as cursor:
        statement = rare_statement(size=size, counted=number + 1, words=len(words))
        cursor.execute(statement, {**values, "account": token["user_id"]})
        rows = cursor.fetchall()
    return Count.of(rows[0][-1] if rows else 0), [_row(row).data for row in rows]


def record(*, token: Token, amount: Decimal, description: str) -> Row:
    """Record a transaction of the account of ``token`` and return it."""
    ((_, *values),) = fetch_as(token, RECORD, amount=amount, description=description)
    return _row(values)


def _row(values: Any) -> Row:
    pk, user, amount, description, moment, version = values[:6]
    # A moment without a fraction is written without one.
    moment = moment.replace(".000000Z", "Z")
    return Row(pk, version, dict(zip(NAMES, (pk, user, amount, description, moment), strict=True)))
