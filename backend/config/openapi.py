"""What the OpenAPI descriptions of several apps share."""

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import Direction, OpenApiExample, OpenApiResponse
from rest_framework import serializers


class ErrorSerializer(serializers.Serializer[Any]):
    """An error that concerns the whole request."""

    detail = serializers.CharField(help_text="What is wrong, for a person to read.")
    code = serializers.CharField(
        required=False, help_text="What is wrong, for a program; given where credentials or a token are refused."
    )


UNAUTHORIZED = OpenApiResponse(
    ErrorSerializer,
    "The credentials are missing, wrong, expired or spent.",
    examples=[
        OpenApiExample("No token", {"detail": "Authentication credentials were not provided."}),
        OpenApiExample(
            "A bad token", {"detail": "Given token not valid for any token type", "code": "token_not_valid"}
        ),
    ],
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


class OperationSchema(AutoSchema):
    """drf-spectacular's description of an operation, with the body of a DELETE where ``extend_schema`` names one."""

    def get_request_serializer(self) -> Any:
        """Return what the body is made of; the library would ask the view, which also answers for DELETE."""
        return None if self.method == "DELETE" else super().get_request_serializer()

    def _get_request_body(self, direction: Direction = "request") -> Any:
        if self.method != "DELETE":
            return super()._get_request_body(direction)  # type: ignore[no-untyped-call]
        if self.get_request_serializer() is None:
            return None
        self.method = "POST"  # the library describes no body for a method that seldom has one
        try:
            return super()._get_request_body(direction)  # type: ignore[no-untyped-call]
        finally:
            self.method = "DELETE"


class TextFieldExtension(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call] # registers itself
    """Say of a field of text which characters it takes."""

    target_class = "config.fields.TextField"
    match_subclasses = True

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:
        """Return the schema of the field."""
        schema: dict[str, Any] = auto_schema._map_serializer_field(  # type: ignore[no-untyped-call]
            self.target, direction, bypass_extensions=True
        )
        if direction == "request" and self.target.pattern:
            schema["pattern"] = self.target.pattern
        return schema


ANY_REQUEST = {
    "406": "The client accepts no JSON.",
    "414": "The URL is too long.",
    "429": "Too many requests; try again after `Retry-After` seconds.",
}
ANY_BODY = {
    "413": "The body is too large.",
    "415": "The body does not call itself JSON.",
}
"""What an operation may answer besides what its view says, most of it before the view is asked."""

HEADERS = {
    "X-Request-ID": {
        "description": "Names this request in the server's logs.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    },
    "Retry-After": {
        "description": "Seconds to wait.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
}


def describe_every_answer(result: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Add what all operations have in common to the finished schema; drf-spectacular calls this hook last."""
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    result["components"]["headers"] = HEADERS
    for path in result["paths"].values():
        for operation in path.values():
            common = ANY_REQUEST | (ANY_BODY if "requestBody" in operation else {})
            for status, description in common.items():
                operation["responses"].setdefault(status, {"description": description, "content": error})
            for status, response in operation["responses"].items():
                names = ["X-Request-ID", *(["Retry-After"] if status in ("429", "503") else [])]
                for name in names:
                    response.setdefault("headers", {}).setdefault(name, {"$ref": f"#/components/headers/{name}"})
    return result
