"""What PostgreSQL does for a request."""

from typing import Any

from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from rest_framework.test import APIClient

from accounts.models import User


def register(number: int) -> None:
    """Make so many accounts, whose names are numbers."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO accounts_user (username, password, email, first_name, last_name, is_superuser, is_staff,"
            " is_active, date_joined)"
            " SELECT n, '', '', '', '', false, false, true, now() FROM generate_series(1, %s) AS n",
            [number],
        )


def fill(owners: list[User], rows: int, description: str = "x") -> None:
    """Give each of the owners that many rows, n minutes old for n from 1, and let PostgreSQL look at the table.

    Rows of different owners lie among each other, as where all of them record at the same time.
    ``description`` is an SQL expression of n, or a word.
    """
    text = description if "n" in description else f"'{description}'"
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL statement_timeout = 0")  # however busy the machine is
        cursor.execute(
            "INSERT INTO transactions_transaction (user_id, amount, description, timestamp)"  # noqa: S608 # our own words
            f" SELECT owner, n * 7919 %% 503, {text}, now() - n * interval '1 minute'"
            " FROM generate_series(1, %s) AS n, unnest(%s) AS owner ORDER BY n, owner",
            [rows, [owner.pk for owner in owners]],
        )
        cursor.execute("ANALYZE transactions_transaction")


def plans_of(client: APIClient, url: str) -> tuple[Any, list[dict[str, Any]]]:
    """Return what a request is answered, and the part of each statement's plan that reads the ledger."""
    with CaptureQueriesContext(connection) as captured:
        answer = client.get(url)
    statements = [query["sql"] for query in captured if 'FROM "transactions_transaction"' in query["sql"]]
    return answer.json(), [explain(statement) for statement in statements]


def analyze(statement: str) -> dict[str, Any]:
    """Run a statement as it was sent and return the uppermost node of its plan."""
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}")
        [found] = cursor.fetchone()[0]
    plan: dict[str, Any] = found["Plan"]
    return plan


def explain(statement: str) -> dict[str, Any]:
    """Run a statement and return the node of its plan that reads the ledger, with what is below it."""
    node = analyze(statement)
    while "Relation Name" not in node:
        [node] = node["Plans"]
    assert node["Relation Name"] == "transactions_transaction"
    return node


def nodes_of(statement: str) -> list[dict[str, Any]]:
    """Run a statement and return all nodes of its plan."""
    nodes = [analyze(statement)]
    for node in nodes:  # which grows meanwhile
        nodes += node.get("Plans", [])
    return nodes


def plan_of(statement: str, **given_values: Any) -> str:
    """Return the plan of a statement of our own, a line for each node and each of its conditions."""
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (COSTS OFF) {statement}", given_values)
        return "\n".join(line for (line,) in cursor.fetchall())


def rows_read(node: dict[str, Any]) -> int:
    """Return how many rows a node of a plan looked at."""
    return int(
        node["Actual Rows"] + node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    )
