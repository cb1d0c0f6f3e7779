"""Bytes on a socket, for requests that no HTTP client would send."""

import re
import socket
import time
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Conversation:
    """What the server said, and whether it hung up."""

    received: bytes
    closed: bool

    @property
    def statuses(self) -> list[int]:
        """The status of each answer, in order."""
        return [int(status) for status in re.findall(rb"HTTP/1\.[01] ([0-9]{3}) ", self.received)]


def connect(base_url: str, timeout: float = 5) -> socket.socket:
    """Open a connection to the server."""
    address = urlsplit(base_url)
    return socket.create_connection((address.hostname or "", address.port or 80), timeout=timeout)


def converse(base_url: str, *pieces: bytes, patience: float = 5) -> Conversation:
    """Send ``pieces`` one after another, then listen until the server hangs up or ``patience`` seconds have passed."""
    received = b""
    with connect(base_url) as connection:
        for piece in pieces:
            connection.sendall(piece)
            if len(pieces) > 1:
                time.sleep(0.05)  # so that they arrive apart
        deadline = time.monotonic() + patience
        while (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            try:
                chunk = connection.recv(65536)
            except TimeoutError:
                break
            except ConnectionResetError:
                return Conversation(received, closed=True)
            if not chunk:
                return Conversation(received, closed=True)
            received += chunk
    return Conversation(received, closed=False)
