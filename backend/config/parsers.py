"""How a request body becomes data."""

import codecs
import json
from collections.abc import Mapping
from decimal import Decimal
from typing import IO, Any

from django.conf import settings
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
        encoding = (parser_context or {}).get("encoding", settings.DEFAULT_CHARSET)
        try:
            return json.load(
                codecs.getreader(encoding)(stream),
                parse_float=Decimal,
                parse_constant=_refuse_constant,
                object_pairs_hook=_unique_names,
            )
        except ValueError as error:
            raise ParseError(f"JSON parse error - {error}") from None
        except LookupError:
            raise ParseError("JSON parse error - unknown character encoding.") from None
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
