"""Pages of the list: by number, or by limit and offset, on the same endpoint."""

import re
from collections.abc import Sequence
from typing import Any

from django.db.models import QuerySet
from rest_framework.exceptions import ValidationError
from rest_framework.pagination import BasePagination, LimitOffsetPagination
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from config.pagination import BY_NUMBER, NumberedPages

BY_OFFSET = ("limit", "offset")
LARGEST_NUMBER = 2**31 - 1
"""Beyond it lies no row, and beyond 2**63 PostgreSQL's OFFSET itself."""


class OffsetPages(LimitOffsetPagination):
    """``?limit=&offset=``: five rows when only the offset is given, at most twenty."""

    default_limit = 5
    max_limit = 20
    limit_query_description = "How many rows, 1 to 20; 5 when only `offset` is given."
    offset_query_description = "How many rows to leave out first."


class TransactionPagination(BasePagination):
    """Choose between the two by the parameters of the request; both answer with the same envelope."""

    chosen: NumberedPages | OffsetPages

    def paginate_queryset(
        self, queryset: QuerySet[Any] | Sequence[Any], request: Request, view: APIView | None = None
    ) -> list[Any] | None:
        """Return one page of ``queryset``; raise ``ValidationError`` (400) for a parameter that is no number."""
        given = request.query_params
        by_offset = any(name in given for name in BY_OFFSET)
        if by_offset and BY_NUMBER in given:
            raise ValidationError({BY_NUMBER: ["Give either page, or limit and offset."]})
        for name, least in ((BY_NUMBER, 1), ("limit", 1), ("offset", 0)):
            self._check(name, given.get(name), least)
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
        """Describe the envelope, which both have in common."""
        envelope = NumberedPages().get_paginated_response_schema(schema)
        link = "http://localhost:8080/api/transactions/?page="
        envelope["properties"]["count"]["description"] = "Rows in all pages together."
        envelope["properties"]["next"]["example"] = f"{link}3"
        envelope["properties"]["previous"]["example"] = f"{link}1"
        return envelope

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        """Describe the parameters of both, with their bounds."""
        parameters = [
            *NumberedPages().get_schema_operation_parameters(view),
            *OffsetPages().get_schema_operation_parameters(view),
        ]
        bounds = {"page": (1, LARGEST_NUMBER), "limit": (1, LARGEST_NUMBER), "offset": (0, LARGEST_NUMBER)}
        for parameter in parameters:
            minimum, maximum = bounds[str(parameter["name"])]
            parameter["schema"] = {"type": "integer", "minimum": minimum, "maximum": maximum}
        return parameters
