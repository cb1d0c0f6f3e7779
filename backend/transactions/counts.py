"""How many rows there are, as far as they are counted."""

from typing import Any, NamedTuple

from django.db.models import QuerySet

COUNTED_ROWS = 2_000
"""How far rows are counted, and so how far pages by number and by offset reach (docs/decisions/0045)."""


class Count(NamedTuple):
    """How many rows there are; where it is not exact, there are more."""

    rows: int
    is_exact: bool

    @classmethod
    def of(cls, rows: int) -> "Count":
        """Return the count of so many rows; whoever counted looked at one more than are counted."""
        return cls(min(rows, COUNTED_ROWS), is_exact=rows <= COUNTED_ROWS)


def count_rows(queryset: QuerySet[Any]) -> Count:
    """Count the rows, as far as they are counted: PostgreSQL stops at the first one beyond.

    In their order: the index of it is then the only way that needs no sort, whatever PostgreSQL thinks of the table.
    """
    return Count.of(queryset[: COUNTED_ROWS + 1].count())
