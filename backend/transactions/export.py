"""A whole ledger as one file, CSV or JSON Lines, in constant memory."""

import csv
import errno
import io
import json
import re
from collections.abc import Generator, Iterator
from contextlib import closing
from datetime import datetime
from http import HTTPStatus
from itertools import islice
from typing import Any

from django.db import Error, connection, transaction
from django.db.models import QuerySet
from rest_framework.exceptions import APIException
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from accounts.models import User
from config.errors import log_database_error
from config.locks import try_lock
from config.logs import request_id
from transactions.models import Transaction

COLUMNS = ("id", "user", "amount", "description", "timestamp")
"""The fields of the list, in its order."""

ROWS_AT_ONCE = 500
"""Some 50 kB."""

LONGEST_PAUSE_SECONDS = 60
"""How long a client may take for what the buffers on its way hold, up to some MB, before PostgreSQL gives up."""

STARTS = r"=+\-@\uff1d\uff0b\uff0d\uff20"
"""What makes a spreadsheet take a text for a formula; the last four are the wide forms of the first four."""

FORMULA = re.compile(rf'^(?=[{STARTS}\t\r\n])|(?<=[;,\t\r\n])(?="*[{STARTS}])')
"""Where a formula may begin: at the start, and after what some spreadsheet takes for the end of a cell. Where lists are
separated by semicolons it ignores the quotes round the description, and then those after the semicolon begin a cell.
"""

Row = tuple[Any, ...]


class ExportRenderer(BaseRenderer):
    """Turns rows into lines."""

    head = b""

    def lines(self, rows: list[Row]) -> bytes:
        """Return the lines of ``rows``."""
        raise NotImplementedError


class CsvRenderer(ExportRenderer):
    """CSV by RFC 4180, with a header line.

    What a spreadsheet would run gets an apostrophe in front, which marks it as text: at the start of a description, and
    where one that splits lines differently would begin a cell
    (https://owasp.org/www-community/attacks/CSV_Injection). Amounts stay numbers. JSON Lines has every text as it is.
    """

    media_type = "text/csv"
    format = "csv"
    head = (",".join(COLUMNS) + "\r\n").encode()

    def lines(self, rows: list[Row]) -> bytes:
        """Return the lines of ``rows``."""
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\r\n").writerows(
            (pk, user, amount, _as_text(description), _wire(timestamp))
            for pk, user, amount, description, timestamp in rows
        )
        return text.getvalue().encode()


class JsonLinesRenderer(ExportRenderer):
    """One JSON object a line, as the list has them; ASCII, since some readers end lines at other characters too."""

    media_type = "application/x-ndjson"
    format = "jsonl"

    def lines(self, rows: list[Row]) -> bytes:
        """Return the lines of ``rows``."""
        return b"".join(
            json.dumps(
                {
                    "id": pk,
                    "user": user,
                    "amount": str(amount),
                    "description": description,
                    "timestamp": _wire(timestamp),
                }
            ).encode()
            + b"\n"
            for pk, user, amount, description, timestamp in rows
        )


class ExportNegotiation(DefaultContentNegotiation):
    """``?format=`` decides, and ``Accept`` where it is absent; the framework's own wants both to agree."""

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """Return the renderer; raise ``Http404`` for an unknown format, ``NotAcceptable`` for an unknown type."""
        if wanted := request.query_params.get(self.settings.URL_FORMAT_OVERRIDE):
            renderer = self.filter_renderers(renderers, wanted)[0]
            return renderer, renderer.media_type
        accepted: tuple[BaseRenderer, str] = super().select_renderer(request, renderers, format_suffix)
        return accepted


class ExportInProgress(APIException):
    """429: an account has one export at a time; it keeps a thread and a connection as long as its client reads."""

    status_code = HTTPStatus.TOO_MANY_REQUESTS
    default_detail = "An export of this account is in progress. Try again when it has ended."
    default_code = "export_in_progress"
    wait = 5  # Django REST framework sends it as Retry-After


class Export:
    """The bytes of an export, made while they are sent.

    One statement reads all rows, so they are of one moment. PostgreSQL keeps its cursor for as long as the
    transaction that opened it, so the transaction is open until the last rows are read; outside of one, Django would
    ask for a cursor that survives the commit, for which the server copies the whole result first, under the statement
    timeout (docs/decisions/0012).

    The first rows are read at once: until then the answer can still be a 503. Afterwards all that is left to tell the
    client of a failure is to cut the connection, before the end that HTTP's chunks announce.
    """

    def __init__(self, owner: User, rows: QuerySet[Transaction], renderer: ExportRenderer) -> None:
        self._request_id = request_id.get()
        self._blocks = self._read(owner, rows, renderer)
        self._first = next(self._blocks)

    def __iter__(self) -> Iterator[bytes]:
        """Return the bytes, block by block; raise ``ConnectionResetError`` where the database fails."""
        try:
            yield self._first
            yield from self._blocks
        except Error as error:
            # The middleware has given the id back by now.
            token = request_id.set(self._request_id)
            log_database_error(error)
            request_id.reset(token)
            # Gunicorn takes it for a client that has gone, and closes the connection.
            raise ConnectionResetError(errno.ECONNRESET, "the export was cut off") from None
        finally:
            self.close()

    def close(self) -> None:
        """End the transaction, whether or not everything was read."""
        self._blocks.close()

    @staticmethod
    def _read(owner: User, rows: QuerySet[Transaction], renderer: ExportRenderer) -> Generator[bytes]:
        with transaction.atomic(), closing(_cursor(rows)) as cursor:
            if not try_lock("export", owner.pk):
                raise ExportInProgress
            _allow_pauses()
            block = list(islice(cursor, ROWS_AT_ONCE))
            lines = renderer.head + renderer.lines(block)
            while len(block) == ROWS_AT_ONCE:
                yield lines
                block = list(islice(cursor, ROWS_AT_ONCE))
                lines = renderer.lines(block)
        # The last rows, often all there are, are sent when the transaction is over.
        yield lines


def _allow_pauses() -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT set_config('idle_in_transaction_session_timeout', %s, true)", [f"{LONGEST_PAUSE_SECONDS}s"]
        )


def _cursor(rows: QuerySet[Transaction]) -> Generator[Row]:
    # A generator, whose end is the end of the server's cursor: it has to come before that of the transaction.
    yield from rows.values_list(*COLUMNS).iterator(chunk_size=ROWS_AT_ONCE)


def _as_text(description: str) -> str:
    return FORMULA.sub("'", description)


def _wire(moment: datetime) -> str:
    # As Django REST framework writes it in the list.
    return moment.isoformat().replace("+00:00", "Z")
