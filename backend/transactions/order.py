"""The order of a list of transactions, and positions in it."""

from datetime import timedelta
from typing import Any

from django.db.models import DateTimeField, DecimalField, ExpressionWrapper, F, QuerySet, Value
from django.db.models.fields.tuple_lookups import TupleGreaterThan, TupleLessThan


def ordering_of(rows: QuerySet[Any]) -> str:
    """Return the field that the rows are ordered by, with a minus sign where they fall."""
    ordering = str((rows.query.order_by or rows.model._meta.ordering)[0])
    if rows.query.standard_ordering:
        return ordering
    return ordering[1:] if ordering.startswith("-") else f"-{ordering}"


def key_of(field: str) -> "ExpressionWrapper[Any]":
    """Return the value of a field as an expression that no index has, so that PostgreSQL takes no index for it."""
    if field == "timestamp":
        return ExpressionWrapper(F(field) + Value(timedelta()), output_field=DateTimeField())
    return ExpressionWrapper(F(field) + Value(0), output_field=DecimalField(max_digits=10, decimal_places=2))


def behind(rows: QuerySet[Any], value: Any, pk: int, *, off_index: bool = False) -> QuerySet[Any]:
    """Return the rows that come after the one with this sort key and id, whether or not it is there.

    Both are compared as one pair, which the index of the ordering answers; not if ``off_index`` is set, for few rows
    among many.
    """
    ordering = ordering_of(rows)
    field = ordering.removeprefix("-")
    lookup = TupleLessThan if ordering.startswith("-") else TupleGreaterThan
    return rows.filter(lookup((key_of(field) if off_index else F(field), F("id")), (value, pk)))


def sort(rows: QuerySet[Any]) -> QuerySet[Any]:
    """Return the same rows in the same order, made so that PostgreSQL sorts them and does not read them in order.

    For few rows among many: in their order it would read all the others, in the hope to meet them early.
    """
    ordering = ordering_of(rows)
    key = key_of(ordering.removeprefix("-"))
    if not rows.query.standard_ordering:
        rows = rows.reverse()
    return rows.order_by(key.desc(), "-id") if ordering.startswith("-") else rows.order_by(key, "id")
