"""Searching a ledger of any length at a bounded cost (docs/decisions/0046), for words or within bounds (0047).

A word that many rows hold is found soonest by reading the list; one that few hold, by the index of all three letters in
a row. Which of the two a word is depends on the account, so PostgreSQL is not left to guess: the first rows of the list
are looked at, and they tell. What is found is decided by the same condition on either way,
``UPPER(description) LIKE UPPER('%word%')``.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from django.contrib.postgres.aggregates import ArrayAgg
from django.db import models
from django.db.models import F, Func, Q, QuerySet, Value
from django.db.models.lookups import GreaterThanOrEqual, LessThanOrEqual

from transactions import counts
from transactions.counts import Count, count_rows
from transactions.order import key_of, ordering_of

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


def is_indexed(words: Sequence[str]) -> bool:
    """Return whether the index leads to rows with all of these words."""
    return any(len(word) >= INDEXED_LETTERS for word in words)


class Found(NamedTuple):
    """What a search found: all rows of ``rows``, or those of them whose ids are ``hits``, in the same order."""

    rows: QuerySet[Any]
    known: Count | None = None
    hits: Sequence[int] | None = None
    stopped_at: Any = None
    """The row behind which nothing was looked for: short words, or rows within the bounds, are rare here."""

    def counted(self) -> Count:
        """Count them; those from the index in any order, since it has none."""
        return self.known or count_rows(self.rows.order_by())

    def read(self, start: int, size: int) -> tuple[list[Any], bool]:
        """Return ``size`` rows from the ``start``-th on, and whether there are more behind them."""
        stop = start + size
        if self.hits is None:
            rows = list(self.rows[start : stop + 1])
            return rows[:size], len(rows) > size
        # By their ids: from a condition PostgreSQL could expect that reading the whole table is less.
        return list(self.rows.filter(pk__in=self.hits[start:stop])), len(self.hits) > stop


class LookedAt(NamedTuple):
    """The first rows of a list: whether they are all of it, and what they hold."""

    are_all: bool
    found: int
    """How many hold the words and are within the bounds."""
    held: int = 0
    """How many hold the words, within the bounds or not; only ``Search.find`` asks."""
    hits: Sequence[int] = ()
    """The ids of those that were found, in their order; only ``Search.find`` asks."""

    def suffices(self, enough: int = ENOUGH) -> bool:
        """Return whether nothing else need be looked at."""
        return self.are_all or self.found >= enough

    def calls_for_more(self, *, enough: int = ENOUGH, indexed: bool) -> bool:
        """Return whether more rows should be looked at, rather than the index asked."""
        return not self.suffices(enough) and (self.found * FARTHER >= enough or not indexed)

    def counted(self) -> Count:
        """Return how many were found; where these are not all rows there may be more."""
        count = Count.of(self.found)
        return count if self.are_all else count._replace(is_exact=False)


class Bound(NamedTuple):
    """One end of what a field may be."""

    field: str
    lookup: str
    """``gte`` or ``lte``."""
    value: Any

    def by_index(self) -> Q:
        """Return the condition in a form that the index of the field answers."""
        return Q((f"{self.field}__{self.lookup}", self.value))

    def off_index(self) -> Q:
        """Return the condition in a form for rows that are read in another order anyway."""
        lookup = GreaterThanOrEqual if self.lookup == "gte" else LessThanOrEqual
        return Q(lookup(key_of(self.field), self.value))


class Search:
    """What is looked for among ``all_rows``, which are those of one owner in their order: words, and bounds.

    ``own`` are bounds for the field that the rows are ordered by, whose index leads to what is within them; ``across``
    are those for the other one.
    """

    def __init__(
        self,
        all_rows: QuerySet[Any],
        *,
        own: Sequence[Bound] = (),
        across: Sequence[Bound] = (),
        words: Sequence[str] = (),
        owner: Any = None,
    ) -> None:
        self.all_rows, self.own, self.across, self.words = all_rows, own, across, words
        self.rows = all_rows.filter(*(bound.by_index() for bound in own)) if own else all_rows
        self._owner = owner
        self._held = Q(*(Q(description__icontains=word) for word in words))
        self._found = Q(self._held, *(bound.off_index() for bound in across)) if across else self._held

    def also_for(self, words: Sequence[str], *, owner: Any) -> "Search":
        """Return the search for the same, and for words in the descriptions."""
        return Search(self.all_rows, own=self.own, across=self.across, words=words, owner=owner)

    def everything(self) -> QuerySet[Any]:
        """Return the rows within the bounds that hold every word, wherever they are, at the cost of reading all."""
        return self.rows.filter(self._held, *(bound.by_index() for bound in self.across))

    def count_across(self) -> Count | None:
        """Count the rows within the bounds for the other field, which its index leads to; return None without any.

        Where that is exact, ``few`` are all there are.
        """
        if not self.across:
            return None
        return count_rows(self._across().order_by(self.across[0].field, "id"))

    def few(self) -> QuerySet[Any]:
        """Return everything, for where few rows are within the bounds for the other field: read by its index."""
        return self._across().filter(self._held, *(bound.off_index() for bound in self.own))

    def _across(self) -> QuerySet[Any]:
        return self.all_rows.filter(*(bound.by_index() for bound in self.across))

    def find(self, rows: QuerySet[Any], *, enough: int = ENOUGH) -> Found:
        """Return those of ``rows``, which may begin anywhere in the list, at a bounded cost: at least ``enough``.

        Fewer only where there are no more, or where it stopped. What it returns holds for one snapshot of the database.
        """
        indexed = is_indexed(self.words)
        number = counts.COUNTED_ROWS
        looked_at = self._look_at(rows, number)
        if self.across and looked_at.held * FARTHER >= enough:
            indexed = False  # the words are frequent here, and what is rare is within the bounds
        if looked_at.calls_for_more(enough=enough, indexed=indexed):
            number *= FARTHER
            looked_at = self._look_at(rows, number)
        met = Found(rows, looked_at.counted(), looked_at.hits)
        if looked_at.suffices(enough):
            return met
        if indexed:
            return Found(self._by_index(rows))
        return met._replace(stopped_at=rows[number : number + 1].first())

    def _look_at(self, rows: QuerySet[Any], number: int) -> LookedAt:
        looked_at = rows.annotate(hit=models.Case(models.When(self._found, then="pk")))
        held = models.Count("hit")
        if self.words and self.across:
            looked_at = looked_at.annotate(holds=models.Case(models.When(self._held, then="pk")))
            held = models.Count("holds")
        ordering = ordering_of(rows)
        order = [ordering, "-pk" if ordering.startswith("-") else "pk"]
        told = looked_at[: number + 1].aggregate(
            rows=models.Count("pk"),
            held=held,
            hits=ArrayAgg("hit", filter=Q(hit__isnull=False), order_by=order, default=[]),
        )
        return LookedAt(told["rows"] <= number, len(told["hits"]), told["held"], told["hits"])

    def _by_index(self, rows: QuerySet[Any]) -> QuerySet[Any]:
        for word in self.words:
            query = Func(Value(self._owner), Value(word), function="transaction_search_query")
            holds = Func(
                VECTOR, query, template="%(expressions)s", arg_joiner=" @@ ", output_field=models.BooleanField()
            )
            rows = rows.filter(holds)
        return rows.filter(self._found)
