"""The order of a list of transactions, and positions in it."""

from datetime import timedelta
from typing import Any

from django.db.models import ExpressionWrapper, F, QuerySet, Value
from django.db.models.fields.tuple_lookups import (
    TupleGreaterThan,
    TupleGreaterThanOrEqual,
    TupleLessThan,
    TupleLessThanOrEqual,
)


def ordering_of(rows: QuerySet[Any]) -> str:
    """Return the field that the rows are ordered by, with a minus sign where they fall."""
    ordering = str((rows.query.order_by or rows.model._meta.ordering)[0])
    if rows.query.standard_ordering:
        return ordering
    return ordering[1:] if ordering.startswith("-") else f"-{ordering}"


def behind(rows: QuerySet[Any], value: Any, pk: int) -> QuerySet[Any]:
    """Return the rows that come after the one with this sort key and id, whether or not it is there.

    Both are compared as one pair, which the index of the ordering answers.
    """
    ordering = ordering_of(rows)
    lookup = TupleLessThan if ordering.startswith("-") else TupleGreaterThan
    return rows.filter(lookup((F(ordering.removeprefix("-")), F("id")), (value, pk)))


def up_to(rows: QuerySet[Any], last: Any) -> QuerySet[Any]:
    """Return the rows that come before ``last``, and it."""
    ordering = ordering_of(rows)
    field = ordering.removeprefix("-")
    lookup = TupleGreaterThanOrEqual if ordering.startswith("-") else TupleLessThanOrEqual
    return rows.filter(lookup((F(field), F("id")), (getattr(last, field), last.pk)))


def sort(rows: QuerySet[Any]) -> QuerySet[Any]:
    """Return the same rows in the same order, made so that PostgreSQL sorts them and does not read them in order.

    For few rows among many: in their order it would read all the others, in the hope to meet them early.
    """
    ordering = ordering_of(rows)
    field = ordering.removeprefix("-")
    # An expression, which no index is in the order of.
    nothing = Value(timedelta() if field == "timestamp" else 0)
    key = ExpressionWrapper(F(field) + nothing, output_field=rows.model._meta.get_field(field))
    if not rows.query.standard_ordering:
        rows = rows.reverse()
    return rows.order_by(key.desc(), "-id") if ordering.startswith("-") else rows.order_by(key, "id")
