"""Pages of the list: by number, by limit and offset, or by cursor, on the same endpoint."""

import re
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

from django.db.models import F, QuerySet
from django.db.models.fields.tuple_lookups import TupleGreaterThan, TupleLessThan
from rest_framework.exceptions import ValidationError
from rest_framework.pagination import BasePagination, LimitOffsetPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param
from rest_framework.views import APIView

from config.pagination import BY_NUMBER, LARGEST_NUMBER, NumberedPages

BY_CURSOR = "cursor"
BY_OFFSET = ("limit", "offset")
LARGEST_ID = 2**63 - 1
"""What PostgreSQL can compare with a bigint."""


class OffsetPages(LimitOffsetPagination):
    """``?limit=&offset=``: five rows when only the offset is given, at most twenty."""

    default_limit = 5
    max_limit = 20
    limit_query_description = (
        "How many rows; 20 at most, however large the number. 5 when only `offset` is given, 10 when only `cursor` is."
    )
    offset_query_description = "How many rows to leave out first."


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


class CursorPages:
    """``?cursor=``: each page begins where the last one ended, so that any page costs as much as the first.

    The position is a row's sort key and id, compared as a pair, which the index of the ordering answers. Rows that
    are added or removed meanwhile move nothing: what is there all the time is seen exactly once. Rows are not counted.
    """

    page_size = 10
    query_description = (
        "Read on from a position: empty for the first page, afterwards as `next` and `previous` have it. Costs the"
        " same at any depth. Belongs to the `ordering` it was made with. `count` is null."
    )

    def paginate_queryset(self, queryset: QuerySet[Any], request: Request) -> list[Any]:
        """Return one page; raise ``ValidationError`` (400) for a cursor that is malformed or of another ordering."""
        limit = request.query_params.get("limit")
        size = self.page_size if limit is None else min(int(limit), OffsetPages.max_limit)
        self.url = request.build_absolute_uri()
        self.ordering = str((queryset.query.order_by or queryset.model._meta.ordering)[0])
        self.field = self.ordering.removeprefix("-")
        cursor = self._cursor(request.query_params[BY_CURSOR])
        backwards = cursor is not None and cursor.backwards
        if cursor is not None:
            # Backwards in a rising order and forwards in a falling one both go to lesser rows.
            lookup = TupleLessThan if backwards != self.ordering.startswith("-") else TupleGreaterThan
            queryset = queryset.filter(lookup((F(self.field), F("id")), (cursor.value, cursor.pk)))
        # One more than is shown tells whether there is another page.
        rows = list((queryset.reverse() if backwards else queryset)[: size + 1])
        more = len(rows) > size
        rows = rows[:size]
        if backwards:
            rows.reverse()
        self.next = self.previous = None
        if more or backwards:
            self.next = self._link(rows[-1] if rows else cursor, backwards=False)
        if more if backwards else cursor is not None:
            self.previous = self._link(rows[0] if rows else cursor, backwards=True)
        return rows

    def get_paginated_response(self, data: Any) -> Response:
        """Return the page in the envelope of the others."""
        return Response({"count": None, "next": self.next, "previous": self.previous, "results": data})

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
            cursor = Cursor(self.ordering, backwards, getattr(place, self.field), place.pk)
        return str(replace_query_param(self.url, BY_CURSOR, str(cursor)))


class TransactionPagination(BasePagination):
    """Choose between the three by the parameters of the request; all answer with the same envelope."""

    chosen: NumberedPages | OffsetPages | CursorPages

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
        if by_cursor and isinstance(queryset, QuerySet):
            self.chosen = CursorPages()
            return self.chosen.paginate_queryset(queryset, request)
        self.chosen = OffsetPages() if by_offset else NumberedPages()
        return self.chosen.paginate_queryset(queryset, request, view)

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
        envelope = NumberedPages().get_paginated_response_schema(schema)
        link = "http://localhost:8080/api/transactions/?page="
        envelope["properties"]["count"]["description"] = "Rows in all pages together; null with `cursor`."
        envelope["properties"]["count"]["nullable"] = True
        envelope["properties"]["next"]["example"] = f"{link}3"
        envelope["properties"]["previous"]["example"] = f"{link}1"
        return envelope

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        """Describe the parameters of all, with their bounds."""
        parameters = [
            *NumberedPages().get_schema_operation_parameters(view),
            *OffsetPages().get_schema_operation_parameters(view),
        ]
        bounds = {"page": (1, LARGEST_NUMBER), "limit": (1, LARGEST_NUMBER), "offset": (0, LARGEST_NUMBER)}
        for parameter in parameters:
            minimum, maximum = bounds[str(parameter["name"])]
            parameter["schema"] = {"type": "integer", "minimum": minimum, "maximum": maximum}
        cursor = {
            "name": BY_CURSOR,
            "in": "query",
            "required": False,
            "description": CursorPages.query_description,
            "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]*$", "maxLength": LONGEST_CURSOR},
            # Without it an empty parameter, the start of a walk, is left out by some clients.
            "allowEmptyValue": True,
        }
        return [*parameters, cursor]
