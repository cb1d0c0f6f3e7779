"""Which rows, and in which order: searching in descriptions, bounds for amount and time, ordering."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, cast

from django import forms
from django.core.exceptions import ValidationError as InvalidValueError
from django.db.models import QuerySet
from django_filters import Filter, FilterSet
from drf_spectacular.utils import extend_schema_field
from rest_framework.exceptions import ValidationError
from rest_framework.filters import SearchFilter
from rest_framework.request import Request
from rest_framework.views import APIView

from config.fields import NO_NUL
from transactions.models import AMOUNT_PATTERN, Transaction, TransactionQuerySet
from transactions.order import ordering_of
from transactions.search import Bound, Search

MAX_TERMS = 10
MAX_LENGTH = 200


class DescriptionSearchFilter(SearchFilter):
    """``?search=``: rows whose description holds every word, in any case; ``%`` and ``_`` mean themselves.

    Words in double quotes are searched as one. Each word is looked for in every row, so their number is bounded. Comes
    after the other filters, whose rows it searches.
    """

    search_title = "Search"
    search_description = (
        f"Rows whose description contains every one of these words, in any case. At most {MAX_TERMS} words and"
        f" {MAX_LENGTH} characters; put a phrase in double quotes. One or two letters, rare among more than 20,000"
        " rows, are found by `cursor` only: the answer is 400 otherwise."
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

    def filter_queryset(self, request: Request, queryset: QuerySet[Any], view: APIView) -> QuerySet[Any]:
        """Return the rows that hold every word; that they were searched, pages may make use of."""
        words = self.get_search_terms(request)
        return cast(TransactionQuerySet, queryset).search_for(words, owner=request.user) if words else queryset

    def get_schema_operation_parameters(self, view: APIView) -> list[dict[str, Any]]:
        """Describe the parameter with its bounds."""
        parameters: list[dict[str, Any]] = super().get_schema_operation_parameters(view)
        parameters[0]["schema"] |= {"maxLength": MAX_LENGTH, "pattern": NO_NUL}
        return parameters


class AmountField(forms.Field):
    """An amount as it is written in a body; Django's own field also takes ``1e3`` and the digits of every script."""

    def to_python(self, value: Any) -> Decimal | None:
        """Return the amount; raise ``ValidationError`` for every other spelling."""
        if value is None:
            return None
        if not re.fullmatch(AMOUNT_PATTERN, value):
            raise InvalidValueError("Give an amount with up to 8 digits and 2 decimal places, for example -12.50.")
        return Decimal(value)


class MomentField(forms.Field):
    """A moment in ISO 8601: a date (its first moment) or a date and a time; without an offset it is UTC."""

    PATTERN: Final = (
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?([Zz]|[+ -][0-9]{2}:[0-9]{2})?)?"
    )

    def to_python(self, value: Any) -> datetime | None:
        """Return the moment; raise ``ValidationError`` for anything else."""
        if value is None:
            return None
        try:
            if not re.fullmatch(self.PATTERN, value):
                raise ValueError
            # A plus sign that was not encoded arrives as a blank.
            moment = datetime.fromisoformat(value.upper().replace(" ", "+"))
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        except (ValueError, OverflowError):
            raise InvalidValueError("Give an ISO 8601 date or moment, for example 2026-01-31T09:30:00Z.") from None


class OrderingField(forms.Field):
    """One of the names of ``ORDERINGS``."""

    def to_python(self, value: Any) -> tuple[str, str] | None:
        """Return the fields to order by; raise ``ValidationError`` for another name."""
        if value is None:
            return None
        if value not in ORDERINGS:
            raise InvalidValueError(f"Give one of {', '.join(ORDERINGS)}.")
        return ORDERINGS[value]


ORDERINGS: Final = {
    # The id settles ties, in the direction of the field: so one index serves both directions, and a position between
    # two rows is a pair that can be compared (pagination.CursorPages).
    "timestamp": ("timestamp", "id"),
    "-timestamp": ("-timestamp", "-id"),
    "amount": ("amount", "id"),
    "-amount": ("-amount", "-id"),
}


class DescribedFilter(Filter):  # type: ignore[misc] # django-filter ships no types
    """A filter that says itself what the schema says of it."""

    def __init__(self, *, field_class: type[forms.Field], schema: Mapping[str, Any], **options: Any) -> None:
        self.field_class = field_class
        super().__init__(**options)
        extend_schema_field(dict(schema))(self)


class OrderingFilter(DescribedFilter):
    """Order the rows by the fields that the client chose."""

    def filter(self, qs: QuerySet[Any], value: tuple[str, str] | None) -> QuerySet[Any]:
        """Return the rows in that order, or as they are."""
        return qs if value is None else qs.order_by(*value)


def amount_filter(lookup: str, description: str) -> DescribedFilter:
    """Return a bound for the amount."""
    schema = {"type": "string", "format": "decimal", "pattern": f"^{AMOUNT_PATTERN}$", "description": description}
    return DescribedFilter(field_name="amount", lookup_expr=lookup, field_class=AmountField, schema=schema)


def moment_filter(lookup: str, description: str) -> DescribedFilter:
    """Return a bound for the time."""
    description += " ISO 8601; a date alone is its first moment, and without an offset it is UTC."
    either = [{"type": "string", "format": name} for name in ("date-time", "date")]
    schema = {"anyOf": either, "description": description}
    return DescribedFilter(field_name="timestamp", lookup_expr=lookup, field_class=MomentField, schema=schema)


class TransactionFilters(FilterSet):  # type: ignore[misc]
    """Bounds for amount and time; all of them hold. Bounds that cross leave no row, which is no error."""

    amount_min = amount_filter("gte", "Rows of this amount or more.")
    amount_max = amount_filter("lte", "Rows of this amount or less.")
    timestamp_after = moment_filter("gte", "Rows recorded then or later.")
    timestamp_before = moment_filter("lte", "Rows recorded then or earlier.")

    class Meta:
        model = Transaction
        fields: list[str] = []

    def filter_queryset(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows within the bounds, with what pages make of bounds that their order does not lead to."""
        rows = cast(TransactionQuerySet, super().filter_queryset(queryset))
        given = {name: value for name, value in self.form.cleaned_data.items() if value is not None}
        if ordering := given.pop("ordering", None):
            queryset = self.filters["ordering"].filter(queryset, ordering)
        filters = ((self.filters[name], value) for name, value in given.items())
        bounds = [Bound(bound.field_name, bound.lookup_expr, value) for bound, value in filters]
        ordered_by = ordering_of(queryset).removeprefix("-")
        if across := [bound for bound in bounds if bound.field != ordered_by]:
            rows.search = Search(queryset, own=[bound for bound in bounds if bound.field == ordered_by], across=across)
        return rows


class OrderedTransactionFilters(TransactionFilters):
    """The same, for answers that have an order."""

    ordering = OrderingFilter(
        field_class=OrderingField,
        schema={
            "type": "string",
            "enum": list(ORDERINGS),
            "default": "-timestamp",
            "description": "By time or amount, falling with a minus sign; the id settles ties, in the same direction.",
        },
    )
