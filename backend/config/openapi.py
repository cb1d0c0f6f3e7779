"""What the OpenAPI descriptions of several apps share."""

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiResponse
from rest_framework import serializers


class ErrorSerializer(serializers.Serializer[Any]):
    """An error that concerns the whole request."""

    detail = serializers.CharField(help_text="What is wrong, for a person to read.")


UNAUTHORIZED = OpenApiResponse(
    ErrorSerializer,
    "The credentials are missing, wrong, expired or spent.",
    examples=[OpenApiExample("No token", {"detail": "Authentication credentials were not provided."})],
)
NOT_FOUND = OpenApiResponse(
    ErrorSerializer,
    "There is no such row, or it is not yours.",
    examples=[OpenApiExample("Not found", {"detail": "No Transaction matches the given query."})],
)
BAD_REQUEST = OpenApiResponse(
    OpenApiTypes.OBJECT,
    "Each bad field with what is wrong with it, or `detail` where the body cannot be read.",
    examples=[
        OpenApiExample("A bad field", {"amount": ["A valid amount has up to 8 digits and 2 decimal places."]}),
        OpenApiExample("Not JSON", {"detail": "JSON parse error - Expecting value: line 1 column 1 (char 0)"}),
    ],
)
TOO_MANY_REQUESTS = OpenApiResponse(
    ErrorSerializer,
    "Too many attempts, from this address or on this account; try again after `Retry-After` seconds.",
    examples=[OpenApiExample("Too many attempts", {"detail": "Too many failed attempts. Try again later."})],
)
UNAVAILABLE = OpenApiResponse(
    ErrorSerializer,
    "The service cannot answer right now; try again after `Retry-After` seconds.",
    examples=[
        OpenApiExample("Unavailable", {"detail": "The service is not available right now. Try again in a few seconds."})
    ],
)
