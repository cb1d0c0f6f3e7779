"""How OpenAPI describes an amount."""

from typing import Any

from drf_spectacular.extensions import OpenApiSerializerFieldExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.utils import Direction

from transactions.models import AMOUNT_PATTERN, LARGEST_AMOUNT


class AmountFieldExtension(OpenApiSerializerFieldExtension):  # type: ignore[no-untyped-call] # registers itself
    """A string in answers, a string or a number in requests; the library's own pattern also allows "" and ".5"."""

    target_class = "transactions.serializers.AmountField"

    def map_serializer_field(self, auto_schema: AutoSchema, direction: Direction) -> dict[str, Any]:
        """Return the schema of the field."""
        if direction == "response":
            return {"type": "string", "format": "decimal", "pattern": r"^-?[0-9]{1,8}\.[0-9]{2}$"}
        largest = float(LARGEST_AMOUNT)
        return {
            "oneOf": [
                {"type": "string", "format": "decimal", "pattern": f"^{AMOUNT_PATTERN}$"},
                {"type": "number", "multipleOf": 0.01, "minimum": -largest, "maximum": largest},
            ]
        }
