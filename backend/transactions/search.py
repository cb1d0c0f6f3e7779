"""Searching a ledger of any length at a bounded cost (docs/decisions/0046), for words or within bounds (0047).

A word that many rows hold is found soonest by reading the list; one that few hold, by the index of all three letters in
a row. Which of the two a word is depends on the account, so PostgreSQL is not left to guess: the first rows of the list
are looked at, and they tell. What is found is decided by the same condition on either way,
``UPPER(description) LIKE UPPER('%word%')``.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from django.db import models
from django.db.models import F, Func, Q, QuerySet, Value

from transactions import counts
from transactions.counts import Count, count_rows
from transactions.order import ordering_of, up_to

ENOUGH = 21
"""As many rows as the longest page shows, and one that tells whether there is another page."""

INDEXED_LETTERS = 3
"""The least that a word needs for the index."""

FARTHER = 10
"""How many times as many rows are looked at a second time, in some 10 ms: where the first look found a few, or where
the words are too short for the index.
"""

VECTOR = Func(F("user_id"), F("description"), function="transaction_search_vector")
"""What is indexed: the owner, and every three letters in a row of the description."""


class Found(NamedTuple):
    """The rows that a search found, in their order: all, or the first of them."""

    rows: QuerySet[Any]
    known: Count | None = None
    stopped_at: Any = None
    """The row behind which nothing was looked for: short words, or rows within the bounds, are rare here."""

    def counted(self) -> Count:
        """Count them; those from the index in any order, since it has none."""
        return self.known or count_rows(self.rows.order_by())


class LookedAt(NamedTuple):
    """The first rows of a list: whether they are all of it, how many hold the words, and the last one's sort key."""

    are_all: bool
    found: int
    edge: Any


class Search:
    """What is looked for among ``rows``, which are those of one owner: words in their descriptions, and bounds.

    ``within`` are the bounds that the order of the rows does not lead to; those that it does, ``rows`` has already.
    """

    def __init__(self, rows: QuerySet[Any], *, within: Q, owner: Any = None, words: Sequence[str] = ()) -> None:
        self.rows = rows
        self.within = within
        self.words = words
        self._owner = owner
        self._found = within & Q(*(Q(description__icontains=word) for word in words))

    def everything(self) -> QuerySet[Any]:
        """Return the rows within the bounds that hold every word, wherever they are, at the cost of reading all."""
        return self.rows.filter(self._found)

    def within_bounds(self) -> QuerySet[Any]:
        """Return the rows within the bounds, whatever words they hold."""
        return self.rows.filter(self.within)

    def find(self, rows: QuerySet[Any], *, enough: int = ENOUGH) -> Found:
        """Return those of ``rows``, which may begin anywhere in the list, at a bounded cost: at least ``enough``.

        Fewer only where there are no more, or where it stopped.
        """
        indexed = any(len(word) >= INDEXED_LETTERS for word in self.words)
        number = counts.COUNTED_ROWS
        looked_at = self._look_at(rows, number)
        suffices = looked_at.found >= enough
        if not (looked_at.are_all or suffices) and (looked_at.found * FARTHER >= enough or not indexed):
            number *= FARTHER
            looked_at = self._look_at(rows, number)
            suffices = looked_at.found >= enough
        if looked_at.are_all:
            return Found(rows.filter(self._found), Count.of(looked_at.found))
        count = Count(min(looked_at.found, counts.COUNTED_ROWS), is_exact=False)
        if suffices:
            # The edge keeps PostgreSQL to the rows that were looked at, and thereby to the index of their order.
            field = ordering_of(rows)
            edge = {f"{field[1:]}__gte" if field.startswith("-") else f"{field}__lte": looked_at.edge}
            return Found(rows.filter(self._found, **edge), count)
        if indexed:
            return Found(self._by_index(rows))
        last = rows[number - 1 : number].first()
        if last is None:  # rows have gone meanwhile, and those that are left are few
            return Found(rows.filter(self._found))
        return Found(up_to(rows, last).filter(self._found), count, stopped_at=last)

    def _look_at(self, rows: QuerySet[Any], number: int) -> LookedAt:
        field = ordering_of(rows)
        last = models.Min(field[1:]) if field.startswith("-") else models.Max(field)
        hit = models.Case(models.When(self._found, then="pk"))
        looked_at = rows.annotate(hit=hit)[: number + 1].aggregate(
            rows=models.Count("pk"), found=models.Count("hit"), edge=last
        )
        return LookedAt(looked_at["rows"] <= number, looked_at["found"], looked_at["edge"])

    def _by_index(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        for word in self.words:
            query = Func(Value(self._owner), Value(word), function="transaction_search_query")
            holds = Func(
                VECTOR, query, template="%(expressions)s", arg_joiner=" @@ ", output_field=models.BooleanField()
            )
            rows = rows.filter(holds)
        return rows.filter(self._found)
