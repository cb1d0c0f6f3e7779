"""How Gunicorn sends an answer, with two things done once that it does again and again (docs/decisions/0048).

gunicorn.conf.py puts them in the places of its own.
"""

import time
from functools import lru_cache
from typing import Any

from gunicorn import util
from gunicorn.http import wsgi

_write_date = lru_cache(maxsize=1)(util.http_date)


def http_date(timestamp: float | None = None) -> str:
    """Return a time, or the present one, as the header ``Date`` has it: each second of it is written once."""
    return str(_write_date(int(time.time() if timestamp is None else timestamp)))


class Held(list[bytes]):
    """What is sent to it, as long as it is not to go out yet."""

    sendall = list.append


class Response(wsgi.Response):  # type: ignore[misc] # gunicorn has no types
    """Sends the head of an answer together with what comes first of its body.

    Gunicorn sends them one after the other: two packets, which nginx may read one by one, and one more moment at which
    a thread lets go of the interpreter and has to wait for it again.
    """

    sock: Any
    headers_sent: bool

    def write(self, arg: bytes) -> None:
        """Send what comes next of the body, after the head where that was not sent yet."""
        if self.headers_sent:
            super().write(arg)
            return
        sock, held = self.sock, Held()
        self.sock = held
        try:
            super().write(arg)
        except BaseException:
            self.headers_sent = False  # an answer that says so can still be sent
            raise
        finally:
            self.sock = sock
        sock.sendall(b"".join(held))
