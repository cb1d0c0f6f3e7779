"""Gunicorn's threaded worker, which ends without dropping a connection and says that it lives however busy it is.

Gunicorn's own stops to accept when it is told to end, but keeps the socket open for as long as it lives: whoever
connects in between waits in the queue of the socket, has sent a request by then, and is cut off at the end. nginx may
repeat a request that was never sent, not one that was: a POST would fail (docs/decisions/0034).
"""

import ctypes
import errno
import mmap
import selectors
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

from gunicorn import sock
from gunicorn.workers.gthread import ThreadWorker

_server_ends = mmap.mmap(-1, 1)
"""One byte that the workers share with the process that has forked them."""

HEALTH = b"GET /healthz"

# What the socket module has no names for: https://docs.kernel.org/networking/filter.html
SO_ATTACH_FILTER = 26
BPF_RETURN = 0x06  # here: nothing of what has arrived

_close_sockets = sock.close_sockets


def close_sockets(listeners: list[Any], unlink: bool = True) -> None:
    """Close the sockets of the process above the workers, and let these know before it tells them to end."""
    _server_ends[0] = 1
    _close_sockets(listeners, unlink)


class Worker(ThreadWorker):  # type: ignore[misc] # gunicorn has no types
    """Serves each request in a thread, those for ``/healthz`` in one of their own.

    Told to end, it takes what waits in the queue, then closes it for all workers: from there on nginx
    is refused at once.
    """

    def init_process(self) -> None:
        """Begin to serve; does not return before the worker ends."""
        self.health_thread = ThreadPoolExecutor(1, "health")
        super().init_process()

    def enqueue_req(self, conn: Any) -> None:
        """Hand a request to a thread as soon as its first bytes are there."""
        try:
            start = conn.sock.recv(len(HEALTH) + 1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:
            start = b""
            # Threads may all be waiting for the database: nobody knows yet whether this request has to wait for them.
            if self.alive and not (conn.initialized or conn.data_ready):
                self.wait_for_start(conn)
                return
        asks_for_health = start.startswith(HEALTH) and start[len(HEALTH) :] in (b" ", b"?")
        pool = self.health_thread if asks_for_health else self.tpool
        future = pool.submit(self.handle, conn)
        future.add_done_callback(lambda done: self.method_queue.defer(self.finish_request, conn, done))

    def wait_for_start(self, conn: Any) -> None:
        """Come back to a new connection once something was sent on it, or close it."""
        conn.sock.setblocking(False)
        conn.set_timeout()
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def set_accept_enabled(self, enabled: bool) -> None:
        """Begin or end to accept."""
        super().set_accept_enabled(enabled)
        # One worker that ends alone leaves the queue to the others.
        if not enabled and not self.alive and _server_ends[0]:
            for listener in self.sockets:
                self.drain(listener)

    def drain(self, listener: Any) -> None:
        """Take every connection that was made, and let no more be made."""
        # Whoever connected between the last look into the queue and its end would be cut off, and other processes may
        # come in between. So nobody connects from here on: the kernel asks again after a second, and is refused.
        code = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RETURN, 0, 0, 0))
        with suppress(OSError):
            listener.sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(code)))
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
