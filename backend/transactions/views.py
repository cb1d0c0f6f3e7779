"""Transactions over HTTP."""

from http import HTTPStatus
from typing import Any, cast

from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse
from django_filters.rest_framework import DjangoFilterBackend
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework.authentication import BaseAuthentication
from rest_framework.decorators import action
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.generics import get_object_or_404
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils.urls import replace_query_param
from rest_framework.viewsets import ModelViewSet
from rest_framework_simplejwt.tokens import Token

from accounts.authentication import SessionAuthentication
from accounts.models import User
from config.errors import DATABASE_ERRORS, JsonErrors
from config.openapi import BAD_REQUEST, NOT_FOUND, UNAUTHORIZED, UNAVAILABLE, ErrorSerializer
from config.pagination import BY_NUMBER
from transactions import counts
from transactions.etags import IF_MATCH, IF_NONE_MATCH, TAGS_PATTERN, check_if_match, etag_of, is_unchanged
from transactions.export import CsvRenderer, Export, ExportNegotiation, ExportRenderer, JsonLinesRenderer
from transactions.filters import DescriptionSearchFilter, OrderedTransactionFilters, TransactionFilters
from transactions.idempotency import HEADER, KEY_PATTERN, answer_once, key_of
from transactions.models import Transaction
from transactions.pagination import ROWS_A_PAGE, TransactionPagination, envelope
from transactions.serializers import SummarySerializer, TransactionSerializer, check_transaction
from transactions.statements import read_first_page, read_one, record, search_first_page
from transactions.summary import summarize

COFFEE = {"amount": "-3.20", "description": "Coffee"}
RECORDED = {"id": 1, "user": 1, **COFFEE, "timestamp": "2026-01-31T09:30:00.000000Z"}
RECORDED_EXAMPLE = OpenApiExample("Coffee", RECORDED, response_only=True)
REQUEST_EXAMPLE = OpenApiExample("Coffee", COFFEE, request_only=True)
ALWAYS = {401: UNAUTHORIZED, 503: UNAVAILABLE}
BY_STATEMENT = ("list", "retrieve", "create")
ONE_ROW = {404: NOT_FOUND, **ALWAYS}


def header(name: str, description: str, *, pattern: str) -> OpenApiParameter:
    """Describe a header of a request."""
    return OpenApiParameter(
        name, {"type": "string", "pattern": f"^({pattern})$"}, OpenApiParameter.HEADER, description=description
    )


def response_header(name: str, description: str, *statuses: int) -> OpenApiParameter:
    """Describe a header of the answers with these statuses."""
    return OpenApiParameter(name, str, OpenApiParameter.HEADER, description=description, response=list(statuses))


def etag(*statuses: int) -> OpenApiParameter:
    """Describe the entity tag of the answers with these statuses."""
    return response_header("ETag", "The state of the transaction, for If-Match and If-None-Match.", *statuses)


IF_MATCH_PARAMETER = header(
    IF_MATCH,
    "Only if the transaction is still in one of these states (`ETag`, compared strongly); `*` is any.",
    pattern=TAGS_PATTERN,
)
IF_NONE_MATCH_PARAMETER = header(
    IF_NONE_MATCH,
    "Only if the transaction is in none of these states (`ETag`, compared weakly); `*` is any.",
    pattern=TAGS_PATTERN,
)
IDEMPOTENCY_KEY_PARAMETER = header(
    HEADER,
    "Makes it safe to send the request again: for 24 hours the same key and body get the first answer again and"
    " record nothing. A key belongs to one account. Use a random one, a UUID for example. Errors are not kept: after a"
    " 503, or no answer, send it again.",
    pattern=KEY_PATTERN,
)
RETRY_AFTER = response_header("Retry-After", "Seconds to wait before the next try.", 409)
REPLAYED = response_header("Idempotency-Replayed", "`true` where this is the first answer, again.", 201)
LOCATION = response_header("Location", "The path of the transaction.", 201)
PRECONDITION_FAILED = OpenApiResponse(
    ErrorSerializer,
    "The transaction has changed since: `If-Match` names another state.",
    examples=[OpenApiExample("Changed", {"detail": "The transaction has changed since you read it."})],
)
IN_PROGRESS = OpenApiResponse(
    ErrorSerializer,
    "A request with this `Idempotency-Key` is in progress; try again after `Retry-After` seconds.",
    examples=[OpenApiExample("In progress", {"detail": "A request with this Idempotency-Key is in progress."})],
)
KEY_REUSED = OpenApiResponse(
    ErrorSerializer,
    "This `Idempotency-Key` was used with another body.",
    examples=[OpenApiExample("Another body", {"detail": "This Idempotency-Key was used with another body."})],
)
EXPORTED_CSV = "id,user,amount,description,timestamp\r\n1,1,-3.20,Coffee,2026-01-31T09:30:00Z\r\n"
EXPORTED_JSONL = (
    '{"id": 1, "user": 1, "amount": "-3.20", "description": "Coffee", "timestamp": "2026-01-31T09:30:00Z"}\n'
)
SUMMARY = {
    "count": 2,
    "sum": "-6.60",
    "by_month": [
        {"month": "2026-01", "count": 1, "sum": "-3.20"},
        {"month": "2026-02", "count": 1, "sum": "-3.40"},
    ],
}


LOOKED_AT_LATER = SessionAuthentication(later=True)
"""One for all requests: it keeps nothing of any."""


@extend_schema_view(
    list=extend_schema(
        operation_id="list_transactions",
        summary="List your transactions",
        description=(
            "Newest first, unless `ordering` says otherwise. Ten a page with `page`; up to twenty with `limit` and"
            " `offset`; or with `cursor`, which costs the same at any depth: follow `next` from an empty one. A walk"
            " by cursor sees every row exactly once that is there all the time, whatever is added or deleted"
            " meanwhile."
        ),
        responses={200: TransactionSerializer(many=True), 400: BAD_REQUEST, 404: NOT_FOUND, **ALWAYS},
        examples=[RECORDED_EXAMPLE],
    ),
    create=extend_schema(
        operation_id="record_transaction",
        summary="Record a transaction",
        description="The owner is the account that asks, the time that of the server.",
        parameters=[IDEMPOTENCY_KEY_PARAMETER, etag(201), LOCATION, REPLAYED, RETRY_AFTER],
        responses={201: TransactionSerializer, 400: BAD_REQUEST, 409: IN_PROGRESS, 422: KEY_REUSED, **ALWAYS},
        examples=[REQUEST_EXAMPLE, RECORDED_EXAMPLE],
    ),
    retrieve=extend_schema(
        operation_id="get_transaction",
        summary="Read a transaction",
        parameters=[IF_NONE_MATCH_PARAMETER, etag(200, 304)],
        responses={
            200: TransactionSerializer,
            304: OpenApiResponse(description="The transaction is in a state that `If-None-Match` names."),
            400: BAD_REQUEST,
            **ONE_ROW,
        },
        examples=[RECORDED_EXAMPLE],
    ),
    update=extend_schema(
        operation_id="replace_transaction",
        summary="Replace a transaction",
        parameters=[IF_MATCH_PARAMETER, etag(200)],
        responses={200: TransactionSerializer, 400: BAD_REQUEST, 412: PRECONDITION_FAILED, **ONE_ROW},
        examples=[REQUEST_EXAMPLE, RECORDED_EXAMPLE],
    ),
    partial_update=extend_schema(
        operation_id="update_transaction",
        summary="Change a transaction",
        parameters=[IF_MATCH_PARAMETER, etag(200)],
        responses={200: TransactionSerializer, 400: BAD_REQUEST, 412: PRECONDITION_FAILED, **ONE_ROW},
        examples=[OpenApiExample("The amount", {"amount": "-3.40"}, request_only=True), RECORDED_EXAMPLE],
    ),
    destroy=extend_schema(
        operation_id="delete_transaction",
        summary="Delete a transaction",
        parameters=[IF_MATCH_PARAMETER],
        responses={
            204: OpenApiResponse(description="The transaction is deleted."),
            400: BAD_REQUEST,
            412: PRECONDITION_FAILED,
            **ONE_ROW,
        },
    ),
    summary=extend_schema(
        operation_id="summarize_transactions",
        summary="Sum up your transactions",
        description=(
            "Number and exact sum, in all and by month (UTC), of the rows that the filters leave. Where these are too"
            " many to sum up at once, some millions, the answer is 400: narrow them by time."
        ),
        filters=True,
        responses={200: SummarySerializer, 400: BAD_REQUEST, **ALWAYS},
        examples=[OpenApiExample("Two coffees", SUMMARY, response_only=True)],
    ),
    export=extend_schema(
        operation_id="export_transactions",
        summary="Download your transactions",
        description=(
            "Every row that the filters leave, of one moment, as CSV (RFC 4180, with a header line) or JSON Lines, by"
            " `format` or, without it, by `Accept`. In CSV what a spreadsheet would take for a formula has an"
            " apostrophe in front; JSON Lines has it as it is. An answer that breaks off without the end that"
            " HTTP announces is incomplete: ask again."
        ),
        filters=True,
        parameters=[
            OpenApiParameter("format", str, enum=["csv", "jsonl"], default="csv", description="Overrides `Accept`."),
            response_header("Content-Disposition", "A name for the file.", 200),
        ],
        responses={
            (200, CsvRenderer.media_type): OpenApiResponse(
                OpenApiTypes.STR,
                "The rows.",
                examples=[OpenApiExample("Coffee", EXPORTED_CSV, media_type=CsvRenderer.media_type)],
            ),
            (200, JsonLinesRenderer.media_type): OpenApiResponse(
                OpenApiTypes.STR,
                "The rows.",
                examples=[OpenApiExample("Coffee", EXPORTED_JSONL, media_type=JsonLinesRenderer.media_type)],
            ),
            (400, "application/json"): BAD_REQUEST,
            (401, "application/json"): UNAUTHORIZED,
            (404, "application/json"): OpenApiResponse(ErrorSerializer, "There is no such format."),
            (406, "application/json"): OpenApiResponse(ErrorSerializer, "`Accept` names neither type."),
            (503, "application/json"): UNAVAILABLE,
        },
    ),
)
@extend_schema(tags=["transactions"])
class TransactionViewSet(JsonErrors, ModelViewSet[Transaction]):
    """The transactions of the account that asks. Another account's row answers 404, as if it were not there."""

    queryset = Transaction.objects.none()  # for the schema; get_queryset decides
    serializer_class = TransactionSerializer
    pagination_class = TransactionPagination
    filter_backends = [DjangoFilterBackend, DescriptionSearchFilter]
    filterset_class: type[TransactionFilters] = OrderedTransactionFilters
    # ASCII digits that fit a bigint: anything else is no id, and answers 404 without a query.
    lookup_value_regex = "[0-9]{1,18}"

    def get_authenticators(self) -> list[BaseAuthentication]:
        """Leave it to the hot statements to look at the session, where one of them comes first."""
        action = self.action_map.get(str(self.request.method).lower()) if self.request else None
        return [LOOKED_AT_LATER] if action in BY_STATEMENT else super().get_authenticators()

    def handle_exception(self, exc: Exception) -> Response:
        """Answer an error; that the session is over comes before whatever else is wrong."""
        try:
            self.request.user.pk  # noqa: B018 # looks at the session, where nothing has yet
        except (AuthenticationFailed, *DATABASE_ERRORS) as first:
            exc = first
        return super().handle_exception(exc)

    def get_queryset(self) -> QuerySet[Transaction]:
        """Return the rows that the account owns."""
        return Transaction.objects.for_user(self.request.user)

    def filter_queryset(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Filter what comes in numbers; one row is named by its id alone."""
        return queryset if self.detail else super().filter_queryset(queryset)

    def options(self, request: Request, *args: Any, **kwargs: Any) -> Response:  # type: ignore[override]
        """Describe the endpoint, in JSON also where it answers in another format."""
        request.accepted_renderer = JSONRenderer()
        request.accepted_media_type = JSONRenderer.media_type
        return super().options(request, *args, **kwargs)

    def create(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:  # type: ignore[override]
        """Record a transaction; with an ``Idempotency-Key``, at most once."""
        key = key_of(request)
        if key is None:
            return self._record(request)
        return answer_once(request=request, owner=cast(User, request.user), key=key, act=lambda: self._record(request))

    def list(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return a page. The first one of all rows, or of a search, is what nearly everybody asks for."""
        given, token = request.query_params, cast(Token, request.auth)
        if not given:
            counted = counts.COUNTED_ROWS + 1
            number, rows = read_first_page(token=token, size=ROWS_A_PAGE, counted=counted)
            return self._first_page(counts.Count.of(number), rows)
        if given.keys() == {DescriptionSearchFilter.search_param}:
            words = DescriptionSearchFilter().get_search_terms(request)
            found = search_first_page(token=token, words=words, size=ROWS_A_PAGE) if words else None
            if found is not None:
                return self._first_page(*found)
        return super().list(request, *args, **kwargs)

    def retrieve(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return a transaction, or 304 where the client has it already."""
        row = read_one(token=cast(Token, request.auth), pk=int(kwargs["pk"]))
        if row is None:
            raise Http404("No Transaction matches the given query.")
        headers = {"ETag": etag_of(row)}
        if is_unchanged(request, row):
            return Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(row.data, headers=headers)

    def update(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Change a transaction, where ``If-Match`` allows it."""
        data = request.data  # read before the row is locked: a slow client keeps nobody waiting
        with transaction.atomic():
            row = self._lock_row(request)
            serializer = self.get_serializer(row, data=data, partial=kwargs.get("partial", False))
            serializer.is_valid(raise_exception=True)
            row = serializer.save()
        return Response(serializer.data, headers={"ETag": etag_of(row)})

    def destroy(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Delete a transaction, where ``If-Match`` allows it."""
        with transaction.atomic():
            self._lock_row(request).delete()
        return Response(status=HTTPStatus.NO_CONTENT)

    @action(detail=False, filterset_class=TransactionFilters)
    def summary(self, request: Request) -> Response:
        """Return number and sum of the rows."""
        rows = self.filter_queryset(self.get_queryset())
        return Response(SummarySerializer(summarize(rows)).data)

    @action(
        detail=False,
        renderer_classes=[CsvRenderer, JsonLinesRenderer],
        content_negotiation_class=ExportNegotiation,
    )
    def export(self, request: Request) -> HttpResponseBase:
        """Stream the rows."""
        rows = self.filter_queryset(self.get_queryset())
        renderer = cast(ExportRenderer, request.accepted_renderer)
        headers = {
            "Content-Disposition": f'attachment; filename="transactions.{renderer.format}"',
            # nginx passes it on as it comes, instead of filling its temporary files, which are memory.
            "X-Accel-Buffering": "no",
        }
        content_type = f"{renderer.media_type}; charset=utf-8"
        if request.method == "HEAD":
            return HttpResponse(headers=headers, content_type=content_type)
        blocks = Export(cast(User, request.user), rows, renderer)
        return StreamingHttpResponse(blocks, headers=headers, content_type=content_type)

    def _first_page(self, count: counts.Count, rows: Any) -> Response:
        # Where the count is not exact there is a second page all the same: a search ends with fewer only if it has all.
        following = None
        if count.rows > ROWS_A_PAGE:
            # The same for both, but without parameters there are none to be read and sorted.
            if self.request.query_params:
                following = replace_query_param(self.request.build_absolute_uri(), BY_NUMBER, 2)
            else:
                following = f"{self.request.build_absolute_uri(self.request.path)}?{BY_NUMBER}=2"
        return envelope(count, following, None, rows)

    def _record(self, request: Request) -> Response:
        row = record(token=cast(Token, request.auth), **check_transaction(request.data))
        headers = {"ETag": etag_of(row), "Location": reverse("transaction-detail", args=[row.pk])}
        return Response(row.data, status=HTTPStatus.CREATED, headers=headers)

    def _lock_row(self, request: Request) -> Transaction:
        # Whoever holds the lock decides alone: of any number of changes on one condition, one finds it true.
        row = get_object_or_404(self.get_queryset().select_for_update(), pk=self.kwargs["pk"])
        check_if_match(request, row)
        return row
