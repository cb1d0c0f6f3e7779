"""The request id on every log line."""

import logging
from contextvars import ContextVar

request_id: ContextVar[str] = ContextVar("request_id", default="-")
"""The id of the request that this thread is answering; ``-`` outside a request."""


class RequestIdFilter(logging.Filter):
    """Put the request id on every log record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, with its id."""
        record.request_id = request_id.get()
        return True
