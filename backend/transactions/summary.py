"""What transactions amount to."""

from datetime import UTC
from decimal import Decimal
from typing import Any

from django.db.models import Count, QuerySet, Sum
from django.db.models.functions import TruncMonth

from transactions.models import Transaction


def summarize(rows: QuerySet[Transaction]) -> dict[str, Any]:
    """Return number and sum of ``rows``, in all and for every month (UTC) that has any, oldest first.

    One statement, so that the parts and the whole are of one moment; decimals are added exactly.
    """
    months = (
        rows.order_by()
        .annotate(month=TruncMonth("timestamp", tzinfo=UTC))
        .values("month")
        .annotate(count=Count("pk"), sum=Sum("amount"))
        .order_by("month")
    )
    by_month = [{**month, "month": month["month"].date().isoformat()[:7]} for month in months]
    return {
        "count": sum(month["count"] for month in by_month),
        "sum": sum((month["sum"] for month in by_month), Decimal()),
        "by_month": by_month,
    }
