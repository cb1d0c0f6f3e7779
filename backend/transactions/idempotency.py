"""Requests that may be sent again: one ``Idempotency-Key``, one effect, one answer."""

import hashlib
import json
import re
from collections.abc import Callable
from datetime import timedelta
from http import HTTPStatus

from django.db import transaction
from django.db.models.functions import Now
from django.http import HttpResponse
from rest_framework.exceptions import APIException, ParseError, ValidationError
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from accounts.models import User
from config.clients import header
from config.locks import try_lock
from config.upkeep import delete_in_batches
from transactions.models import IdempotencyRecord

HEADER = "Idempotency-Key"
KEY_PATTERN = r"[\x21-\x2b\x2d-\x7e]{1,255}"
"""No comma: two headers arrive as one, with a comma between them, and which of the two was meant nobody knows."""
KEPT_FOR = timedelta(hours=24)
KEPT_HEADERS = ("ETag", "Location")
"""The headers that are part of the answer; the others belong to the exchange."""


class RequestInProgress(APIException):
    """409: the same key is being worked on at this moment."""

    status_code = HTTPStatus.CONFLICT
    default_detail = f"A request with this {HEADER} is in progress. Try again in a moment."
    default_code = "request_in_progress"
    wait = 1  # Django REST framework sends it as Retry-After


class KeyReused(APIException):
    """422: the key has served for another body."""

    status_code = HTTPStatus.UNPROCESSABLE_ENTITY
    default_detail = f"This {HEADER} was used with another body. Use a new key for a new request."
    default_code = "idempotency_key_reused"


def key_of(request: Request) -> str | None:
    """Return the key of a request, or None; raise ``ValidationError`` (400) for one that is malformed."""
    key = header(request, HEADER)
    if key is not None and not re.fullmatch(KEY_PATTERN, key):
        raise ValidationError({HEADER: ["Give one key: 1 to 255 visible ASCII characters, without spaces and commas."]})
    return key


def answer_once(*, request: Request, owner: User, key: str, act: Callable[[], Response]) -> HttpResponse:
    """Return what ``act`` answers, or what it answered when ``owner`` used this key for the first time.

    Whatever ``act`` writes commits together with the record of its answer, or not at all, so a request that is sent
    again after a crash finds either both or neither. An error that ``act`` raises is not recorded: nothing happened,
    and the key is still unused. Raises ``RequestInProgress`` and ``KeyReused``.
    """
    wanted = _hash(request)
    with transaction.atomic():
        # Another key with the same 64 bits would cost one of the two a needless 409.
        if not try_lock("idempotency key", owner.pk, key):
            raise RequestInProgress
        record = IdempotencyRecord.objects.filter(user=owner, key=key, created_at__gt=Now() - KEPT_FOR).first()
        if record is None:
            return _answer(_record(owner, key, wanted, act()))
    if record.request_hash != wanted:
        raise KeyReused
    answer = _answer(record)
    answer["Idempotency-Replayed"] = "true"
    return answer


def remove_expired() -> dict[str, int]:
    """Remove the records that are too old to be replayed, and return how many rows of each kind."""
    expired = IdempotencyRecord.objects.filter(created_at__lte=Now() - KEPT_FOR)
    return {"idempotency records": delete_in_batches(expired)}


def _hash(request: Request) -> str:
    # Of the body as parsed, before it is validated: white space and the order of names do not matter, and a release
    # that validates differently still knows its predecessor's requests (docs/decisions/0011).
    try:
        # A Decimal, of a number with a fraction, is written as no amount is: 1.5 and "1.5" are two bodies.
        meaning = json.dumps(request.data, sort_keys=True, default=repr)
    except RecursionError:
        # It was shallow enough to be read.
        raise ParseError("JSON parse error - nested too deeply.") from None
    return hashlib.sha256(meaning.encode()).hexdigest()


def _record(owner: User, key: str, wanted: str, response: Response) -> IdempotencyRecord:
    record = IdempotencyRecord(
        user=owner,
        key=key,
        request_hash=wanted,
        status=response.status_code,
        headers={name: response[name] for name in KEPT_HEADERS if name in response},
        # Rendered here and not by the framework, so that the first answer and its repetitions have the same bytes.
        body=JSONRenderer().render(response.data).decode(),
    )
    # A record that has expired and is still there gives way.
    IdempotencyRecord.objects.bulk_create(
        [record],
        update_conflicts=True,
        unique_fields=["user", "key"],
        update_fields=["request_hash", "status", "headers", "body", "created_at"],
    )
    return record


def _answer(record: IdempotencyRecord) -> HttpResponse:
    return HttpResponse(record.body, status=record.status, headers=record.headers, content_type=JSONRenderer.media_type)
