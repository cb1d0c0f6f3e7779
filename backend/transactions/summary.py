"""What transactions amount to."""

from datetime import UTC
from decimal import Decimal
from typing import Any

from django.db import OperationalError
from django.db.models import Count, QuerySet, Sum
from django.db.models.functions import TruncMonth
from psycopg.errors import QueryCanceled
from rest_framework.exceptions import ParseError

from transactions.models import Transaction

TOO_MANY = "Too many transactions to sum up at once. Narrow them with timestamp_after and timestamp_before."


def summarize(rows: QuerySet[Transaction]) -> dict[str, Any]:
    """Return number and sum of ``rows``, in all and for every month (UTC) that has any, oldest first.

    One statement, so that the parts and the whole are of one moment; decimals are added exactly. Raises ``ParseError``
    (400) where there are too many to be added within ``statement_timeout``: to try again, which a 503 asks for, would
    end in the same way.
    """
    months = (
        rows.order_by()
        .annotate(month=TruncMonth("timestamp", tzinfo=UTC))
        .values("month")
        .annotate(count=Count("pk"), sum=Sum("amount"))
        .order_by("month")
    )
    try:
        by_month = [{**month, "month": month["month"].date().isoformat()[:7]} for month in months]
    except OperationalError as error:
        if isinstance(error.__cause__, QueryCanceled):
            raise ParseError(TOO_MANY) from None
        raise
    return {
        "count": sum(month["count"] for month in by_month),
        "sum": sum((month["sum"] for month in by_month), Decimal()),
        "by_month": by_month,
    }
