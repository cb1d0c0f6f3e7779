"""Pages by number: what every list has unless it says otherwise."""

import re
from typing import Any

from rest_framework.exceptions import ValidationError
from rest_framework.pagination import PageNumberPagination
from rest_framework.request import Request
from rest_framework.views import APIView

BY_NUMBER = "page"
LARGEST_NUMBER = 2**31 - 1
"""Beyond it lies no row, and beyond 2**63 PostgreSQL's OFFSET itself."""


class NumberedPages(PageNumberPagination):
    """``?page=``: ten rows a page."""

    page_size = 10
    page_query_param = BY_NUMBER
    page_query_description = "A page of ten rows, from 1."

    def get_page_number(self, request: Request, paginator: Any) -> int:
        """Return the number of the page; raise ``ValidationError`` (400) where it is none."""
        number = request.query_params.get(self.page_query_param, "1")
        # The framework's own takes "last", and digits of every script and any length.
        if not re.fullmatch(r"[0-9]{1,10}", number) or not 1 <= int(number) <= LARGEST_NUMBER:
            raise ValidationError({self.page_query_param: [f"Give a whole number from 1 to {LARGEST_NUMBER}."]})
        return int(number)

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        """Describe the parameter with its bounds."""
        parameters: list[dict[str, Any]] = super().get_schema_operation_parameters(view)
        parameters[0]["schema"] = {"type": "integer", "minimum": 1, "maximum": LARGEST_NUMBER}
        return parameters
