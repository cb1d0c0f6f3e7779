"""Answers requests in process, without a server: what instructions.py counts. Runs in the variant's own environment.

usage: python answering.py MODULE.ATTRIBUTE PASSWORD

Everybody gets that password, with a hash that costs nothing: the hash itself is the same in every login, and would be
all that is counted of one. valgrind's processor takes minutes for a real one.

Each line on stdin is a batch, as JSON; each line on stdout says that it is done. Between them nothing runs, so that
whoever counts can look.
"""

import gc
import importlib
import io
import json
import os
import sys
from contextlib import nullcontext
from typing import Any


class Statements:
    """Counts the SQL statements of a batch."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self, execute: Any, *arguments: Any) -> Any:
        self.number += 1
        return execute(*arguments)


def answer(application: Any, method: str, path: str, token: str, body: str, expected: int) -> bytes:
    """Return the body of the answer, as nginx would get it; end the process where the status is another."""
    path, _, query = path.partition("?")
    content = body.encode()
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SCRIPT_NAME": "",
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "localhost",
        "HTTP_ACCEPT": "application/json",
        "HTTP_X_FORWARDED_FOR": "127.0.0.1",
        "HTTP_X_FORWARDED_PROTO": "http",
        "HTTP_X_REQUEST_ID": "0123456789abcdef0123456789abcdef",
        "CONTENT_LENGTH": str(len(content)) if content else "",
        "CONTENT_TYPE": "application/json" if content else "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(content),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    if token:
        environ["HTTP_AUTHORIZATION"] = f"Bearer {token}"
    started: list[str] = []
    parts = application(environ, lambda status, headers, exc_info=None: started.append(status))
    try:
        found = b"".join(parts)
    finally:
        parts.close()
    if not started[0].startswith(str(expected)):
        raise SystemExit(f"{method} {path}: {started[0]}, not {expected}: {found[:500]!r}")
    return found


def set_cheap_passwords(password: str) -> None:
    """Give everybody this password, hashed as little as each algorithm allows."""
    from django.contrib.auth import get_user_model  # noqa: PLC0415 # the settings must be known first
    from django.contrib.auth.hashers import get_hasher, make_password  # noqa: PLC0415

    hasher = get_hasher()
    # PBKDF2, and argon2, in KiB.
    for name, least in {"iterations": 1, "time_cost": 1, "memory_cost": 8}.items():
        if hasattr(hasher, name):
            setattr(hasher, name, least)
    get_user_model().objects.update(password=make_password(password))


def main() -> None:
    """Answer until there are no more batches."""
    module, _, attribute = sys.argv[1].rpartition(".")
    application = getattr(importlib.import_module(module), attribute)
    from django.db import connection  # noqa: PLC0415 # the settings must be known first

    set_cheap_passwords(sys.argv[2])
    # When it runs depends on everything before; its cost is the same small part on either side.
    gc.disable()
    for line in sys.stdin:
        batch = json.loads(line)
        statements = Statements()
        chained = ""
        with connection.execute_wrapper(statements) if batch["statements"] else nullcontext():
            for method, path, token, body in batch["requests"]:
                sent = json.dumps({"refresh": chained}) if chained else body
                found = answer(application, method, path, token, sent, batch["expected"])
                if batch["chained"]:
                    chained = json.loads(found)["refresh"]
        done = {"statements": statements.number, "refresh": chained}
        os.write(1, f"{json.dumps(done)}\n".encode())


if __name__ == "__main__":
    main()
