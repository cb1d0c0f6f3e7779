"""Entity tags: which state of a transaction a client has, and what it asks on condition of it."""

import re
from http import HTTPStatus

from rest_framework.exceptions import APIException, ValidationError
from rest_framework.request import Request

from config.clients import header
from transactions.models import Transaction
from transactions.statements import Row

IF_MATCH = "If-Match"
IF_NONE_MATCH = "If-None-Match"

TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
TAGS_PATTERN = rf"\*|{TAG}(?:[ \t]*,[ \t]*{TAG})*"
"""RFC 9110, section 8.8.3: one star, or tags between commas."""

ACCEPTED = rf"\*|(?:,[ \t]*)*{TAG}(?:[ \t]*,(?:[ \t]*{TAG})?)*"
"""The same with empty elements, which nobody may send and everybody has to ignore (section 5.6.1.2)."""


class PreconditionFailed(APIException):
    """412: the row is not in the state that the client has seen."""

    status_code = HTTPStatus.PRECONDITION_FAILED
    default_detail = "The transaction has changed since you read it. Read it again, then repeat the change."
    default_code = "precondition_failed"


def etag_of(row: Transaction | Row) -> str:
    """Return the entity tag of a row: strong, since every change counts the version up."""
    return f'"{row.pk}-{row.version}"'


def check_if_match(request: Request, row: Transaction) -> None:
    """Raise ``PreconditionFailed`` where ``If-Match`` names other states; the caller holds the row's lock.

    Compared strongly, as RFC 9110 asks: a weak tag never matches. Raises ``ValidationError`` (400) for no tag at all.
    """
    tags = _tags(request, IF_MATCH)
    if tags is not None and "*" not in tags and etag_of(row) not in tags:
        raise PreconditionFailed


def is_unchanged(request: Request, row: Row) -> bool:
    """Return whether ``If-None-Match`` names this state, so that the client need not get it again.

    Compared weakly, as RFC 9110 asks: a proxy that compresses makes tags weak. Raises ``ValidationError`` (400) for
    no tag at all.
    """
    tags = _tags(request, IF_NONE_MATCH) or []
    return "*" in tags or etag_of(row) in (tag.removeprefix("W/") for tag in tags)


def _tags(request: Request, name: str) -> list[str] | None:
    given = header(request, name)
    if given is None:
        return None
    if not re.fullmatch(ACCEPTED, given):
        raise ValidationError({name: ['Give * or entity tags in double quotes, separated by commas: "1-1".']})
    return re.findall(rf"\*|{TAG}", given) if given != "*" else ["*"]
