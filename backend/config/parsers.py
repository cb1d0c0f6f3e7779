"""How a request body becomes data."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import IO, Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import JSONParser

MAX_DEPTH = 32
"""Arrays and objects inside one another; the API itself needs two.

Python 3.14 reads some 90 000 of them before its stack is full. Whatever shows such a value afterwards, be it the
framework that looks whether a field is blank, takes time by the square of the depth: half a second for 50 000.
"""

MAX_DIGITS = 1000
"""Of a whole number. Python has a bound of its own, since reading one takes time by the square of its length, and tells
the client how to raise it.
"""

TOO_DEEP = "JSON parse error - nested too deeply."


class StrictJSONParser(JSONParser):
    """JSON as RFC 8259 writes it, with one meaning: no duplicate names, no NaN, no bottomless nesting.

    Numbers with a fraction arrive as ``Decimal``: an amount must not pass through a binary float.
    """

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the parsed body; raise ``ParseError`` (400) for anything else."""
        try:
            value = json.loads(
                # Whatever `charset` says, which has no meaning for JSON (RFC 8259, section 11): Python's codecs are
                # more than characters, `charset=bz2` would unpack a body of any size.
                stream.read().decode("utf-8"),
                parse_float=Decimal,
                parse_int=_whole_number,
                parse_constant=_refuse_constant,
                object_pairs_hook=_unique_names,
            )
        except ValueError as error:
            raise ParseError(f"JSON parse error - {error}") from None
        except RecursionError:
            raise ParseError(TOO_DEEP) from None
        if _depth_exceeds(MAX_DEPTH, value):
            raise ParseError(TOO_DEEP)
        return value


def _depth_exceeds(limit: int, value: Any) -> bool:
    level = [value]
    for _ in range(limit + 1):
        containers = [item for item in level if isinstance(item, dict | list)]
        if not containers:
            return False
        level = [child for item in containers for child in (item.values() if isinstance(item, dict) else item)]
    return True


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # With "last one wins" a proxy or a log may see another value than the one that is stored.
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("an object has the same name twice.")
    return value


def _whole_number(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has more than {MAX_DIGITS} digits.")
    return int(digits)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON.")
