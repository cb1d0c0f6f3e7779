"""Searching in descriptions."""

import re
from typing import Any

from django.db.models import QuerySet
from rest_framework.exceptions import ValidationError
from rest_framework.filters import SearchFilter
from rest_framework.request import Request
from rest_framework.views import APIView

from config.fields import NO_NUL

MAX_TERMS = 10
MAX_LENGTH = 200


class DescriptionSearchFilter(SearchFilter):
    """``?search=``: rows whose description holds every word, in any case; ``%`` and ``_`` mean themselves.

    Words in double quotes are searched as one. Each word costs a pass over the rows, so their number is bounded.
    """

    search_title = "Search"
    search_description = (
        f"Rows whose description contains every one of these words, in any case. At most {MAX_TERMS} words and"
        f" {MAX_LENGTH} characters; put a phrase in double quotes."
    )

    def get_search_terms(self, request: Request) -> list[str]:
        """Return the words to search for; raise ``ValidationError`` where there are too many."""
        given = request.query_params.get(self.search_param, "")
        if len(given) > MAX_LENGTH:
            raise ValidationError({self.search_param: [f"Search for at most {MAX_LENGTH} characters."]})
        if "\x00" in given:
            raise ValidationError({self.search_param: ["Null characters are not allowed."]})
        # Not the framework's splitter: to it a lone quote is an empty word, which every row contains.
        terms = [phrase or word for phrase, word in re.findall(r'"([^"]+)"|(\S+)', given)]
        if len(terms) > MAX_TERMS:
            raise ValidationError({self.search_param: [f"Search for at most {MAX_TERMS} words."]})
        return terms

    def get_search_fields(self, view: APIView, request: Request) -> list[str]:
        """Return what is searched."""
        return ["description"]

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        """Describe the parameter with its bounds."""
        parameters: list[dict[str, Any]] = super().get_schema_operation_parameters(view)
        parameters[0]["schema"] |= {"maxLength": MAX_LENGTH, "pattern": NO_NUL}
        return parameters

    def filter_queryset(self, request: Request, queryset: QuerySet[Any], view: APIView) -> QuerySet[Any]:
        """Return the rows that match."""
        return super().filter_queryset(request, queryset, view)
