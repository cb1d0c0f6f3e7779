"""Pages of the list: by number, by limit and offset, or by cursor, on the same endpoint.

Pages by number and by offset count the rows and skip those before the page, which costs more the more there are. Both
end at ``COUNTED_ROWS``; the last page leads on to the cursor, which reaches every row at the same cost
(docs/decisions/0045).
"""

import re
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple, cast

from django.db import connection, transaction
from django.db.models import QuerySet
from rest_framework.exceptions import APIException, NotFound, ValidationError
from rest_framework.pagination import BasePagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import remove_query_param, replace_query_param
from rest_framework.views import APIView

from config.pagination import BY_NUMBER, LARGEST_NUMBER, NumberedPages
from transactions import counts
from transactions.counts import COUNTED_ROWS, Count, count_rows
from transactions.models import TransactionQuerySet
from transactions.order import behind, ordering_of, sort
from transactions.search import ENOUGH, Found

BY_CURSOR = "cursor"
BY_OFFSET = ("limit", "offset")
ROWS_A_PAGE = 10
LARGEST_LIMIT = 20
LARGEST_ID = 2**63 - 1
"""What PostgreSQL can compare with a bigint."""
TOO_SHORT = "Give a word of three letters or more: shorter ones are rare here. Or read all rows by cursor."


# The lock is the one that every SELECT takes, here before the snapshot: whoever takes a snapshot and then waits for a
# migration that rewrites the table finds it empty.
ONE_SNAPSHOT = """
    SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY;
    LOCK TABLE transactions_transaction IN ACCESS SHARE MODE
"""


@contextmanager
def snapshot() -> Iterator[None]:
    """Let the statements of a page see nothing of what changes between them.

    Whoever has begun a transaction before has decided what it sees.
    """
    if connection.in_atomic_block:
        yield
        return
    refused = None
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute(ONE_SNAPSHOT)
        try:
            yield
        except APIException as exception:
            refused = exception  # no failure: a rollback would cost the connection its prepared statements
    if refused:
        raise refused


def envelope(count: Count | None, following: str | None, preceding: str | None, results: Any) -> Response:
    """Return a page in the form that all have in common."""
    return Response(
        {
            "count": None if count is None else count.rows,
            "count_is_exact": count is not None and count.is_exact,
            "next": following,
            "previous": preceding,
            "results": results,
        }
    )


CURSOR_PATTERN = re.compile(
    r"(?P<ordering>-?(?:timestamp|amount)) (?P<way>[<>]) (?P<pk>[0-9]{1,19}) (?:"
    r"(?P<timestamp>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{6})?\+00:00)"
    r"|(?P<amount>-?[0-9]{1,8}\.[0-9]{2}))"
)
LONGEST_CURSOR = 120


class Cursor(NamedTuple):
    """A position between two rows of one ordering, and which way to read from there."""

    ordering: str
    backwards: bool
    value: datetime | Decimal
    pk: int

    @classmethod
    def beside(cls, row: Any, ordering: str, *, backwards: bool) -> "Cursor":
        """Return the position right behind ``row``, or, backwards, right before it."""
        return cls(ordering, backwards, getattr(row, ordering.removeprefix("-")), row.pk)

    @classmethod
    def read(cls, text: str) -> "Cursor":
        """Return the cursor that ``text`` is; raise ``ValueError`` where it is none."""
        if not re.fullmatch(f"[A-Za-z0-9_-]{{1,{LONGEST_CURSOR}}}", text):
            raise ValueError
        found = CURSOR_PATTERN.fullmatch(b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode("ascii"))
        if found is None or int(found["pk"]) > LARGEST_ID or not found[found["ordering"].removeprefix("-")]:
            raise ValueError
        value = datetime.fromisoformat(found["timestamp"]) if found["timestamp"] else Decimal(found["amount"])
        return cls(found["ordering"], found["way"] == "<", value, int(found["pk"]))

    def __str__(self) -> str:
        value = self.value.isoformat() if isinstance(self.value, datetime) else f"{self.value:.2f}"
        text = f"{self.ordering} {'<' if self.backwards else '>'} {self.pk} {value}"
        return urlsafe_b64encode(text.encode()).decode().rstrip("=")


class CountedPages:
    """``?page=``, or ``?limit=`` and ``?offset=``: rows by how many lie before them, as far as they are counted.

    Where the count is not exact, such a page lies wholly among the rows that were met; ``next`` of the last one is a
    cursor behind its last row, so that who follows it sees every row. Short is only the first, where rows within bounds
    of another field than the order's are rare: ``next`` goes on where it stopped.
    """

    page_query_description = (
        f"A page of ten rows, from 1. The first {COUNTED_ROWS} rows have pages; `next` of the last one leads on by"
        " `cursor`."
    )
    limit_query_description = (
        f"How many rows; {LARGEST_LIMIT} at most, however large the number. 5 when only `offset` is given, 10 when only"
        " `cursor` is."
    )
    offset_query_description = (
        f"How many rows to leave out first, of the first {COUNTED_ROWS}; `next` of the last such page leads on by"
        " `cursor`."
    )

    def paginate_queryset(self, queryset: TransactionQuerySet, request: Request) -> list[Any]:
        """Return one page; raise ``NotFound`` where there is none, ``ValidationError`` (400) where it is too far."""
        given = request.query_params
        self.by_offset = any(name in given for name in BY_OFFSET)
        if self.by_offset:
            self.size = min(int(given.get("limit", 5)), LARGEST_LIMIT)
            before = int(given.get("offset", 0))
        else:
            self.size = ROWS_A_PAGE
            before = (int(given.get(BY_NUMBER, 1)) - 1) * ROWS_A_PAGE
        found = self._look(queryset, before)
        if before and before + self.size > self.reach and not self.count.is_exact:
            raise self._too_far()
        if before and before >= self.count.rows and not self.by_offset:
            raise NotFound("Invalid page.")
        page, more = found.read(before, self.size) if before < self.count.rows else ([], False)
        self.url = request.build_absolute_uri()
        self.next = self.previous = None
        following = before + self.size
        if following + (0 if self.count.is_exact else self.size - 1) < self.reach:
            self.next = self._link(following)
        elif not self.count.is_exact:
            last = page[-1] if page and (more or found.stopped_at is None) else found.stopped_at
            self.next = None if last is None else self._link_behind(last, ordering_of(queryset))
        if before:
            self.previous = self._link(before - self.size)
        return page

    def get_paginated_response(self, data: Any) -> Response:
        """Return the page in its envelope."""
        return envelope(self.count, self.next, self.previous, data)

    def _look(self, queryset: TransactionQuerySet, before: int) -> Found:
        """Return the rows, as far as the page needs them, and count them.

        ``reach`` is how many of the rows that are counted were met: what lies beyond has no number.
        """
        search, told = queryset.search, None
        if search is None:
            found = Found(queryset, count_rows(queryset))
        else:
            across = search.count_across()
            # Of bounds for the other field alone, its index has told all.
            told = None if search.words or search.own else across
            if across and across.is_exact:
                rows = sort(search.few())
                found = Found(rows, told or count_rows(rows))
            else:
                # Those of words are what they are; among rows within bounds a page may lie deeper than the first look.
                enough = ENOUGH if search.words else max(ENOUGH, min(before + self.size, counts.COUNTED_ROWS))
                found = search.find(search.rows, enough=enough)
                if found.stopped_at is not None and not search.across:
                    raise ValidationError({"search": [TOO_SHORT]})
        counted = found.counted()
        self.reach, self.count = counted.rows, told or counted
        return found

    def _too_far(self) -> ValidationError:
        name, largest = BY_NUMBER, max(self.reach // self.size, 1)
        if self.by_offset:
            name, largest = "offset", max(self.reach - self.size, 0)
        return ValidationError(
            {name: [f"Give at most {largest}. Rows beyond are reached by cursor: follow next of that page."]}
        )

    def _link(self, before: int) -> str:
        url, name, value = self.url, BY_NUMBER, before // self.size + 1
        if self.by_offset:
            url, name, value = str(replace_query_param(url, "limit", self.size)), "offset", before
        return str(replace_query_param(url, name, value) if before > 0 else remove_query_param(url, name))

    def _link_behind(self, row: Any, ordering: str) -> str:
        url = remove_query_param(remove_query_param(self.url, BY_NUMBER), "offset")
        if self.by_offset:
            url = replace_query_param(url, "limit", self.size)
        return str(replace_query_param(url, BY_CURSOR, str(Cursor.beside(row, ordering, backwards=False))))


class CursorPages:
    """``?cursor=``: each page begins where the last one ended, so that any page costs as much as the first.

    The position is a row's sort key and id. Rows that are added or removed meanwhile move nothing: what is there all
    the time is seen exactly once. Rows are not counted. Where a search stops before the page is full, the page is short
    and the next one goes on from there.
    """

    query_description = (
        "Read on from a position: empty for the first page, afterwards as `next` and `previous` have it. Costs the"
        " same at any depth. Belongs to the `ordering` it was made with. `count` is null. A search for one or two"
        " letters, and bounds for another field than that of `ordering`, may have pages with few rows or none, where"
        " such rows are rare: go on while there is a `next`."
    )

    def paginate_queryset(self, queryset: TransactionQuerySet, request: Request) -> list[Any]:
        """Return one page; raise ``ValidationError`` (400) for a cursor that is malformed or of another ordering."""
        limit = request.query_params.get("limit")
        size = ROWS_A_PAGE if limit is None else min(int(limit), LARGEST_LIMIT)
        self.url = request.build_absolute_uri()
        search, rows, are_few = queryset.search, cast(QuerySet[Any], queryset), False
        if search is not None:
            rows = search.rows
            if (across := search.count_across()) and across.is_exact:
                rows, search, are_few = search.few(), None, True
        self.ordering = ordering_of(rows)
        cursor = self._cursor(request.query_params[BY_CURSOR])
        backwards = cursor is not None and cursor.backwards
        if backwards:
            rows = rows.reverse()
        if cursor is not None:
            rows = behind(rows, cursor.value, cursor.pk, off_index=are_few)
        if are_few:
            rows = sort(rows)
        found = Found(rows) if search is None else search.find(rows)
        page, more = found.read(0, size)
        last = page[-1] if more else found.stopped_at
        onward = None if last is None else self._link(last, backwards=backwards)
        back = None if cursor is None else self._link(page[0] if page else cursor, backwards=not backwards)
        self.next, self.previous = (back, onward) if backwards else (onward, back)
        return page[::-1] if backwards else page

    def get_paginated_response(self, data: Any) -> Response:
        """Return the page in the envelope of the others."""
        return envelope(None, self.next, self.previous, data)

    def _cursor(self, text: str) -> Cursor | None:
        if not text:
            return None
        try:
            cursor = Cursor.read(text)
        except ValueError:
            raise ValidationError({BY_CURSOR: ["Give the cursor of a link, or none to start."]}) from None
        if cursor.ordering != self.ordering:
            raise ValidationError({BY_CURSOR: [f"This cursor is of ordering={cursor.ordering}; keep to it."]})
        return cursor

    def _link(self, place: Any, *, backwards: bool) -> str:
        if isinstance(place, Cursor):
            # A page whose rows have all gone meanwhile: turning round includes the row that this cursor is made of.
            beyond = place.pk + (-1 if backwards == self.ordering.startswith("-") else 1)
            cursor = place._replace(backwards=backwards, pk=min(max(beyond, 0), LARGEST_ID))
        else:
            cursor = Cursor.beside(place, self.ordering, backwards=backwards)
        return str(replace_query_param(self.url, BY_CURSOR, str(cursor)))


class TransactionPagination(BasePagination):
    """Choose between the two by the parameters of the request; both answer with the same envelope."""

    chosen: CountedPages | CursorPages

    def paginate_queryset(
        self, queryset: QuerySet[Any] | Sequence[Any], request: Request, view: APIView | None = None
    ) -> list[Any] | None:
        """Return one page of ``queryset``; raise ``ValidationError`` (400) for a parameter that is no number."""
        given = request.query_params
        by_cursor = BY_CURSOR in given
        by_offset = any(name in given for name in BY_OFFSET)
        if by_cursor and (BY_NUMBER in given or "offset" in given):
            raise ValidationError({BY_CURSOR: ["Give either cursor, or page, or offset."]})
        if by_offset and BY_NUMBER in given:
            raise ValidationError({BY_NUMBER: ["Give either page, or limit and offset."]})
        for name, least in ((BY_NUMBER, 1), ("limit", 1), ("offset", 0)):
            self._check(name, given.get(name), least)
        self.chosen = CursorPages() if by_cursor else CountedPages()
        rows = cast(TransactionQuerySet, queryset)
        if rows.search is None:
            return self.chosen.paginate_queryset(rows, request)
        with snapshot():
            return self.chosen.paginate_queryset(rows, request)

    @staticmethod
    def _check(name: str, value: str | None, least: int) -> None:
        # The framework's paginators fall back to a default, or take digits of every script and any length.
        if value is None:
            return
        if not re.fullmatch(r"[0-9]{1,10}", value) or not least <= int(value) <= LARGEST_NUMBER:
            raise ValidationError({name: [f"Give a whole number from {least} to {LARGEST_NUMBER}."]})

    def get_paginated_response(self, data: Any) -> Response:
        """Return the page in its envelope."""
        return self.chosen.get_paginated_response(data)

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        """Describe the envelope, which all have in common."""
        page: dict[str, Any] = NumberedPages().get_paginated_response_schema(schema)
        link = "http://localhost:8080/api/transactions/?page="
        count, following, preceding, results = page["properties"].values()
        count["description"] = f"How many rows there are, of at most {COUNTED_ROWS}; null with `cursor`."
        count["nullable"] = True
        is_exact = {
            "type": "boolean",
            "example": True,
            "description": (
                "Whether `count` is the number of all rows. Where it is false there are more, which `next` leads to; it"
                " is false with `cursor`."
            ),
        }
        following["example"] = f"{link}3"
        preceding["example"] = f"{link}1"
        page["required"] = ["count", "count_is_exact", "results"]
        page["properties"] = {
            "count": count,
            "count_is_exact": is_exact,
            "next": following,
            "previous": preceding,
            "results": results,
        }
        return page

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        """Describe the parameters of both, with their bounds."""
        numbers = [
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": description,
                "schema": {"type": "integer", "minimum": least, "maximum": LARGEST_NUMBER},
            }
            for name, least, description in (
                (BY_NUMBER, 1, CountedPages.page_query_description),
                ("limit", 1, CountedPages.limit_query_description),
                ("offset", 0, CountedPages.offset_query_description),
            )
        ]
        cursor = {
            "name": BY_CURSOR,
            "in": "query",
            "required": False,
            "description": CursorPages.query_description,
            "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]*$", "maxLength": LONGEST_CURSOR},
            # Without it an empty parameter, the start of a walk, is left out by some clients.
            "allowEmptyValue": True,
        }
        return [*numbers, cursor]
