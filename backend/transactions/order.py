"""The order of a list of transactions, and positions in it."""

from typing import Any

from django.db.models import F, QuerySet
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
