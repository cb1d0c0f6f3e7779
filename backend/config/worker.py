"""Gunicorn's threaded worker, which ends without dropping a connection.

Gunicorn's own stops to accept when it is told to end, but keeps the socket open for as long as it lives: whoever
connects in between waits in the queue of the socket, has sent a request by then, and is cut off at the end. nginx may
repeat a request that was never sent, not one that was: a POST would fail (docs/decisions/0034).
"""

import errno
import mmap
import socket
from typing import Any

from gunicorn import sock
from gunicorn.workers.gthread import ThreadWorker

_server_ends = mmap.mmap(-1, 1)
"""One byte that the workers share with the process that has forked them."""

_close_sockets = sock.close_sockets


def close_sockets(listeners: list[Any], unlink: bool = True) -> None:
    """Close the sockets of the process above the workers, and let these know before it tells them to end."""
    _server_ends[0] = 1
    _close_sockets(listeners, unlink)


class DrainingWorker(ThreadWorker):  # type: ignore[misc] # gunicorn has no types
    """Takes what waits in the queue, then closes it for all workers: from there on nginx is refused at once."""

    def set_accept_enabled(self, enabled: bool) -> None:
        """Begin or end to accept."""
        super().set_accept_enabled(enabled)
        # One worker that ends alone leaves the queue to the others.
        if not enabled and not self.alive and _server_ends[0]:
            for listener in self.sockets:
                self.drain(listener)

    def drain(self, listener: Any) -> None:
        """Take every connection that was made, and let no more be made."""
        before = -1
        while before != self.nr_conns:
            before = self.nr_conns
            self.accept(listener)
        try:
            # It is shared: to close this worker's own would change nothing.
            listener.sock.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.EINVAL):  # another worker was first
                raise

    def accept(self, listener: Any) -> None:
        """Accept one connection, if there is one and no other worker has closed the queue."""
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            # This worker is about to be told to end, too. Until then the socket would be reported again and again.
            super().set_accept_enabled(False)
