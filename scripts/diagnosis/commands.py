"""Other programs, none of which may keep the doctor waiting."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass

from scripts.diagnosis.findings import NotSeen

SECONDS = 15
"""How long a program may take, unless the caller knows better."""


@dataclass(frozen=True)
class Result:
    """How a program ended."""

    status: int
    stdout: str
    stderr: str

    def last_line(self) -> str:
        """Return the last line that it complained with."""
        lines = [line for line in (self.stderr or self.stdout).splitlines() if line.strip()]
        return lines[-1].strip() if lines else f"exit status {self.status}"


def run_bytes(*command: str, text: str = "", seconds: float = SECONDS) -> tuple[int, bytes, bytes]:
    """Run ``command`` to its end; raise ``NotSeen`` where it is not installed or does not end in time."""
    try:
        # In a session of its own: no terminal to ask at, and one signal ends whatever it has started, too.
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise NotSeen(f"{command[0]} cannot be run: {error.strerror}") from None
    try:
        stdout, stderr = process.communicate(text.encode(), timeout=seconds)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        # What it started in a session of its own may hold the pipes still.
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=1)
        raise NotSeen(f"`{' '.join(command[:3])}` did not end within {seconds:.0f} s") from None
    return process.returncode, stdout, stderr


def run(*command: str, text: str = "", seconds: float = SECONDS) -> Result:
    """Run ``command`` to its end and return what it printed; as ``run_bytes``."""
    status, stdout, stderr = run_bytes(*command, text=text, seconds=seconds)
    return Result(status, stdout.decode(errors="replace"), stderr.decode(errors="replace"))
