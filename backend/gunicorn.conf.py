"""How Gunicorn serves the application. What an operator may change is a variable in ``config.env``."""

import json
import socket
from http import HTTPStatus
from uuid import uuid4

from gunicorn import sock, util
from gunicorn.http import wsgi

from config import response, worker
from config.env import load

env = load()


def write_json_error(client: socket.socket, status: int, reason: str, message: str) -> None:
    """Answer a request that Gunicorn itself refuses as the rest of the API answers errors."""
    # A transfer coding that Gunicorn does not know is the client's fault; nginx/snippets/errors.conf answers the same.
    if status == HTTPStatus.NOT_IMPLEMENTED:
        status, reason = HTTPStatus.BAD_REQUEST, HTTPStatus.BAD_REQUEST.phrase
    body = json.dumps({"detail": f"{HTTPStatus(status).phrase}."})
    head = f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    # Of no line in the log; whoever counts on the header finds one.
    head += f"X-Request-ID: {uuid4().hex}\r\n"
    util.write_nonblock(client, f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode("latin-1"))


# Gunicorn's own is a page of HTML; of this and the next two no setting says which.
util.write_error = write_json_error
util.http_date = response.http_date
wsgi.Response = response.Response

wsgi_app = "config.wsgi:application"
bind = env.GUNICORN_BIND
workers = env.workers
# Threads, so that requests which wait for the database do not keep the others waiting.
worker_class = worker.Worker
# Gunicorn has no hook between being told to end and telling its workers.
sock.close_sockets = worker.close_sockets
threads = env.GUNICORN_THREADS
# The application is loaded before the workers fork: a broken release stops at once, and they share its memory.
# Nothing in it touches the database while it is loaded; sockets must not be shared across a fork.
preload_app = True

timeout = env.GUNICORN_TIMEOUT_SECONDS
graceful_timeout = env.GUNICORN_GRACEFUL_TIMEOUT_SECONDS
# Longer than nginx keeps idle connections to the backend (nginx/snippets/upstream.conf, keepalive_timeout), so
# that nginx, never Gunicorn, closes them: the other way round a request may meet a closing connection.
keepalive = 75

# The workers' heartbeat files: the root file system is read-only, and /dev/shm is memory.
worker_tmp_dir = "/dev/shm"  # noqa: S108
# On by default since 25.1; nothing here uses it, and it can stop the server.
control_socket_disable = True

# Gunicorn takes scheme and path of a request from no header: Django decides whom to believe (SECURE_PROXY_SSL_HEADER).
# By default it takes them from this host's own. `*` spares the comparison of each address, and is safe only because the
# other two name nothing: with either of them, or with http2_cleartext, it would trust everybody.
forwarded_allow_ips = "*"
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}

# nginx writes the access log; errors go to stderr.
accesslog = None
errorlog = "-"
loglevel = "info"
