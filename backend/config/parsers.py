"""How a request body becomes data."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import IO, Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser


class StrictJSONParser(JSONParser):
    """JSON as RFC 8259 writes it, with one meaning: no duplicate names, no NaN, no bottomless nesting.

    Numbers with a fraction arrive as ``Decimal``: an amount must not pass through a binary float.
    """

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the parsed body; raise ``ParseError`` (400) for anything else."""
        try:
            return json.loads(
                # Whatever `charset` says, which has no meaning for JSON (RFC 8259, section 11): Python's codecs are
                # more than characters, `charset=bz2` would unpack a body of any size.
                stream.read().decode("utf-8"),
                parse_float=Decimal,
                parse_constant=_refuse_constant,
                object_pairs_hook=_unique_names,
            )
        except ValueError as error:
            raise ParseError(f"JSON parse error - {error}") from None
        except RecursionError:
            raise ParseError("JSON parse error - nested too deeply.") from None


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # With "last one wins" a proxy or a log may see another value than the one that is stored.
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object has the same name twice.")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON.")
