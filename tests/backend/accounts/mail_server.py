"""A mail server as small as RFC 5321 allows: it takes mail, or refuses it as a test wants.

As a program, which tests/operations/test_mail.py runs in a container, it listens on port 2525 and prints each mail.
"""

from __future__ import annotations

import json
import socketserver
from collections.abc import Callable
from email import message_from_bytes
from email.message import Message
from email.policy import default
from threading import Lock, Thread
from typing import Any


class Conversation(socketserver.StreamRequestHandler):
    """One client."""

    server: MailServer

    def handle(self) -> None:
        """Answer each command."""
        self.say("220 test")
        recipients: list[str] = []
        while line := self.rfile.readline():
            command = line.decode("ascii", "replace").strip()
            verb = command.split(" ")[0].split(":")[0].upper()
            if verb == "QUIT":
                self.say("221 bye")
                return
            if verb == "RCPT":
                recipients.append(command.partition(":")[2].strip().strip("<>"))
                self.say(self.server.answer(recipients[-1]))
            elif verb == "DATA":
                self.say("354 go on")
                self.take(recipients)
                self.say("250 taken")
            else:
                self.say("250 ok")

    def say(self, text: str) -> None:
        """Send one line."""
        self.wfile.write(f"{text}\r\n".encode())

    def take(self, recipients: list[str]) -> None:
        """Read a message to its final dot."""
        lines = []
        while (line := self.rfile.readline()) not in {b".\r\n", b""}:
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        self.server.keep(recipients, message_from_bytes(b"".join(lines), policy=default))


class MailServer(socketserver.ThreadingTCPServer):
    """The server, until the end of a ``with``; unless told otherwise, on a free port of this host."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int] = ("127.0.0.1", 0)) -> None:
        super().__init__(address, Conversation)
        self.taken: list[tuple[list[str], Message]] = []
        self.answer: Callable[[str], str] = lambda recipient: "250 ok"
        self.lock = Lock()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    def keep(self, recipients: list[str], message: Message) -> None:
        """Keep a message."""
        with self.lock:
            self.taken.append((recipients, message))

    def __enter__(self) -> MailServer:
        self.thread = Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *args: Any) -> None:
        self.shutdown()
        self.thread.join()
        super().__exit__(*args)


class PrintingMailServer(MailServer):
    """Prints each mail as one line of JSON."""

    def keep(self, recipients: list[str], message: Message) -> None:
        """Print a message."""
        text = bytes(message.get_payload(decode=True)).decode()
        print(json.dumps({"to": recipients, "from": message["From"], "text": text}), flush=True)


if __name__ == "__main__":
    PrintingMailServer(("", 2525)).serve_forever()
