"""Transactions over HTTP."""

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework.serializers import BaseSerializer
from rest_framework.viewsets import ModelViewSet

from config.openapi import BAD_REQUEST, NOT_FOUND, UNAUTHORIZED, UNAVAILABLE
from transactions.filters import DescriptionSearchFilter
from transactions.models import Transaction
from transactions.pagination import TransactionPagination
from transactions.serializers import TransactionSerializer

COFFEE = {"amount": "-3.20", "description": "Coffee"}
RECORDED = {"id": 1, "user": 1, **COFFEE, "timestamp": "2026-01-31T09:30:00.000000Z"}
RECORDED_EXAMPLE = OpenApiExample("Coffee", RECORDED, response_only=True)
REQUEST_EXAMPLE = OpenApiExample("Coffee", COFFEE, request_only=True)
ALWAYS = {401: UNAUTHORIZED, 503: UNAVAILABLE}
ONE_ROW = {404: NOT_FOUND, **ALWAYS}


@extend_schema_view(
    list=extend_schema(
        operation_id="list_transactions",
        summary="List your transactions",
        description="Newest first. Ten a page with `page`, or up to twenty with `limit` and `offset`.",
        responses={200: TransactionSerializer(many=True), 400: BAD_REQUEST, 404: NOT_FOUND, **ALWAYS},
        examples=[RECORDED_EXAMPLE],
    ),
    create=extend_schema(
        operation_id="record_transaction",
        summary="Record a transaction",
        description="The owner is the account that asks, the time that of the server.",
        responses={201: TransactionSerializer, 400: BAD_REQUEST, **ALWAYS},
        examples=[REQUEST_EXAMPLE, RECORDED_EXAMPLE],
    ),
    retrieve=extend_schema(
        operation_id="get_transaction",
        summary="Read a transaction",
        responses={200: TransactionSerializer, **ONE_ROW},
        examples=[RECORDED_EXAMPLE],
    ),
    update=extend_schema(
        operation_id="replace_transaction",
        summary="Replace a transaction",
        responses={200: TransactionSerializer, 400: BAD_REQUEST, **ONE_ROW},
        examples=[REQUEST_EXAMPLE, RECORDED_EXAMPLE],
    ),
    partial_update=extend_schema(
        operation_id="update_transaction",
        summary="Change a transaction",
        responses={200: TransactionSerializer, 400: BAD_REQUEST, **ONE_ROW},
        examples=[OpenApiExample("The amount", {"amount": "-3.40"}, request_only=True), RECORDED_EXAMPLE],
    ),
    destroy=extend_schema(
        operation_id="delete_transaction",
        summary="Delete a transaction",
        responses={204: OpenApiResponse(description="The transaction is deleted."), **ONE_ROW},
    ),
)
@extend_schema(tags=["transactions"])
class TransactionViewSet(ModelViewSet[Transaction]):
    """The transactions of the account that asks. Another account's row answers 404, as if it were not there."""

    queryset = Transaction.objects.none()  # for the schema; get_queryset decides
    serializer_class = TransactionSerializer
    pagination_class = TransactionPagination
    filter_backends = [DescriptionSearchFilter]
    # ASCII digits that fit a bigint: anything else is no id, and answers 404 without a query.
    lookup_value_regex = "[0-9]{1,18}"

    def get_queryset(self) -> QuerySet[Transaction]:
        """Return the rows that the account owns."""
        return Transaction.objects.for_user(self.request.user)

    def perform_create(self, serializer: BaseSerializer[Transaction]) -> None:
        """Record the transaction for the account that asks."""
        serializer.save(user=self.request.user)
