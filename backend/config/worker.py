"""Gunicorn's threaded worker, whose threads wait for requests themselves, and which ends without dropping one.

Gunicorn's own waits for requests in its main thread, which hands each to another thread and gets the connection back:
that is a tenth of what reading a transaction costs (docs/decisions/0048).

When it is told to end it stops to accept, but keeps the socket open for as long as it lives: whoever connects in
between waits in the queue of the socket, has sent a request by then, and is cut off at the end. nginx may repeat a
request that was never sent, not one that was: a POST would fail (docs/decisions/0034).
"""

import ctypes
import errno
import mmap
import select
import selectors
import socket
import struct
import threading
import time
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

READABLE_ONCE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT
"""One thread is told, and nobody again before it is asked for again."""

LOOK_SECONDS = 0.25
"""How often the main thread looks at the connections that wait for a thread or for a request."""

LINGER_SECONDS = 5
"""How long a worker that ends keeps a connection on which nothing comes. Longer than nginx does (keepalive_timeout in
nginx/snippets/upstream.conf): whoever ends a connection first may cut off a request that the other has just sent.
"""

KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
"""What accepted connections inherit: a client that vanishes within a request gives its thread back in half a minute."""

_close_sockets = sock.close_sockets


def close_sockets(listeners: list[Any], unlink: bool = True) -> None:
    """Close the sockets of the process above the workers, and let these know before it tells them to end."""
    _server_ends[0] = 1
    _close_sockets(listeners, unlink)


def peek(conn: Any) -> bytes | None:
    """Return the first bytes that have arrived on a connection: none if it has ended, ``None`` if nothing has."""
    try:
        start: bytes = conn.sock.recv(len(HEALTH) + 1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return None
    except OSError:
        return b""
    return start


def asks_for_health(start: bytes | None) -> bool:
    """Return whether a request that starts so is one for ``/healthz``."""
    return start in (HEALTH + b" ", HEALTH + b"?")


def has_left(conn: Any) -> bool:
    """Return whether the other side has ended the connection, whatever it had sent before."""
    poll = select.poll()
    try:
        poll.register(conn.sock, select.POLLRDHUP)
    except ValueError:
        return True  # a thread has just closed it
    return bool(poll.poll(0))


def read_ahead(conn: Any) -> bool:
    """Return whether the next request, or a part of it, was read together with the last one."""
    return bool(conn.parser.unreader.buf.getvalue())


class Worker(ThreadWorker):  # type: ignore[misc] # gunicorn has no types
    """Serves each request in the thread that was waiting for it, those for ``/healthz`` in one of their own.

    The main thread accepts connections and looks at what a new one asks for first. Now and then it looks at those that
    wait: a request for ``/healthz`` is not left to threads that are all busy, one that nobody waits for any more is not
    served at all, and a connection on which nothing comes ends.

    Told to end, it takes what waits in the queue, then closes it for all workers: from there on nginx is refused at
    once.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # The connections that no thread has, by file descriptor. Whoever takes one out has it to itself.
        self.kept: dict[int, Any] = {}
        # Those that end at the next look: by then hardly a thread is still on its way to one of them, to meet another
        # connection under its number.
        self.leaving: list[Any] = []
        self.next_look = 0.0
        super().__init__(*args, **kwargs)

    @property
    def max_keepalived(self) -> int:
        """How many idle connections there may be besides those in ``kept``; asked before one more is offered."""
        return int(self.cfg.worker_connections - self.cfg.threads - len(self.kept))

    @max_keepalived.setter
    def max_keepalived(self, _: int) -> None:
        """Ignore what Gunicorn's own worker sets."""

    def init_process(self) -> None:
        """Begin to serve; does not return before the worker ends."""
        for listener in self.sockets:
            for level, option, value in KEEPALIVE:
                listener.sock.setsockopt(level, option, value)
        self.requests = select.epoll()
        super().init_process()

    def init_signals(self) -> None:
        """Listen to signals, and begin to end if the server was told to before."""
        super().init_signals()
        # From the fork to here, signals went into a copy of the arbiter's queue, which nobody reads: a worker that was
        # told to end would serve until it is killed, when the grace period is over.
        if _server_ends[0]:
            self.alive = False

    def get_thread_pool(self) -> ThreadPoolExecutor:
        """Return whom Gunicorn's own worker hands requests to: here, the thread of ``/healthz``."""
        return ThreadPoolExecutor(1, "health")

    def run(self) -> None:
        """Serve until the worker is told to end."""
        for number in range(self.cfg.threads):
            threading.Thread(target=self.serve, name=f"requests-{number}", daemon=True).start()
        super().run()

    def serve(self) -> None:
        """Serve one request after the other, of whatever connection."""
        while True:
            for descriptor, events in self.requests.poll(maxevents=1):
                if (conn := self.kept.pop(descriptor, None)) is None:
                    continue  # the main thread has taken it
                left = bool(events & select.EPOLLRDHUP)
                if left and not has_left(conn):
                    # What was reported is another connection, closed meanwhile, that had the same number.
                    self.wait_again(descriptor, conn)
                # Of one that the client has ended nothing is served: nobody would learn what became of it.
                elif not left and self.answer(conn):
                    conn.set_timeout()
                    self.wait_again(descriptor, conn)
                else:
                    with suppress(OSError):
                        conn.close(graceful=True)
                    self.method_queue.defer(self.count_closed)

    def wait_again(self, descriptor: int, conn: Any) -> None:
        """Put a connection back among those that wait for a request."""
        self.kept[descriptor] = conn
        with suppress(OSError):  # the main thread has taken it meanwhile
            self.requests.modify(descriptor, READABLE_ONCE)

    def answer(self, conn: Any) -> bool:
        """Answer what was asked on a connection; return whether it is kept for more."""
        try:
            keeps = self.handle(conn)
            while keeps and read_ahead(conn):
                keeps = self.handle(conn)
        except BaseException:  # SystemExit, too: this thread goes on
            self.log.exception("A request ended its thread")
            return False
        return bool(keeps)

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        # Gunicorn looks twice for what an application has left of a body, each time within a bound on the socket that
        # it sets and takes back. Of a body whose length was given, and that was read, nothing is left.
        body = conn.parser.mesg.body
        if keepalive and not body.failed and getattr(body.reader, "length", None) == 0:
            conn.parser.mesg = None
            return True
        return bool(super()._keepalive_after(conn, keepalive))

    def take(self, descriptor: int) -> bool:
        """Take a connection from the threads; return whether none of them was faster."""
        if self.kept.pop(descriptor, None) is None:
            return False
        self.requests.unregister(descriptor)
        return True

    def count_closed(self) -> None:
        """Note that a connection is closed. Only the main thread counts them."""
        self.nr_conns -= 1

    def murder_keepalived(self, force: bool = False) -> None:
        """End connections on which no request came in time, and look at those that wait for a thread."""
        super().murder_keepalived(force)
        now = time.monotonic()
        if now < self.next_look:
            return
        self.next_look = now + LOOK_SECONDS
        leaving, self.leaving = self.leaving, []
        for conn in leaving:
            if peek(conn) and not has_left(conn):
                self.enqueue_req(conn)  # a request has come after all
            else:
                self.count_closed()
                conn.close()
        for descriptor, conn in self.kept.copy().items():
            if self.kept.get(descriptor) != conn:
                continue  # a thread has it by now, and to look at it could mean to wait with it
            if not self.alive:
                # Here and not where it is kept: a thread that was just about to has not seen yet that the worker ends.
                conn.timeout = min(conn.timeout, now + LINGER_SECONDS)
            start = peek(conn)
            if asks_for_health(start) and self.take(descriptor):
                self.enqueue_req(conn)
            elif (conn.timeout <= now if start is None else has_left(conn)) and self.take(descriptor):
                self.leaving.append(conn)

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Do what the main thread has to, for ``timeout`` seconds or until it is time to look at what waits."""
        super().wait_for_and_dispatch_events(min(timeout, LOOK_SECONDS))

    def _cap_keepalive(self, deadline: float) -> None:
        deadline = time.monotonic() + LINGER_SECONDS
        super()._cap_keepalive(deadline)
        for conn in self.pending_conns:  # on which nothing was sent yet
            conn.timeout = min(conn.timeout, deadline)

    def enqueue_req(self, conn: Any) -> None:
        """Leave a connection to the threads as soon as the first bytes of its first request are there."""
        start = peek(conn)
        if start is None and self.alive and not (conn.initialized or conn.data_ready):
            # Threads may all be waiting for the database: nobody knows yet whether this request has to wait for them.
            self.wait_for_start(conn)
            return
        if asks_for_health(start) or (conn.initialized and read_ahead(conn)):
            super().enqueue_req(conn)
            return
        conn.sock.setblocking(True)
        conn.data_ready = True
        conn.set_timeout()
        descriptor = conn.sock.fileno()
        self.kept[descriptor] = conn
        self.requests.register(descriptor, READABLE_ONCE)

    def wait_for_start(self, conn: Any) -> None:
        """Come back to a new connection once something was sent on it, or close it."""
        conn.sock.setblocking(False)
        conn.set_timeout()
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_pending_socket_readable, conn))

    def set_accept_enabled(self, enabled: bool) -> None:
        """Begin or end to accept."""
        if enabled and _server_ends[0]:
            return  # another worker has closed the queue, or is about to
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
