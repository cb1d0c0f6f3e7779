"""Programs that are measured: starting them, ending them, and the CPU time that they have used."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

TICKS = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 10
START_SECONDS = 60


class BenchError(Exception):
    """What went wrong, and what to do next; for people."""


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Raise ``BenchError`` in the main thread where what is done here takes longer; what was started is ended then."""

    def too_long(_number: int, _frame: object) -> NoReturn:
        raise BenchError(f"it has not ended within {seconds / 60:.0f} minutes")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(
    command: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path, stdin: str = "", seconds: float = 300
) -> str:
    """Run a program to its end and return what it prints; raise ``BenchError`` where it fails or does not end."""
    words = [str(word) for word in command]
    name = " ".join(words[:2])
    try:
        done = subprocess.run(
            words, env=dict(env), cwd=cwd, input=stdin, capture_output=True, text=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{name} has not ended within {seconds:g} s") from None
    if done.returncode:
        raise BenchError(f"{name} failed:\n{done.stderr[-3000:]}")
    return done.stdout


class Programs:
    """The programs that one run has started; leaving the context ends them all."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.running: list[tuple[str, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> Programs:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, name: str, command: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path) -> int:
        """Start a program in a session of its own, its output in a log of its own; return its process id."""
        self.logs.mkdir(parents=True, exist_ok=True)
        with (self.logs / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(word) for word in command],
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.running.append((name, process))
        return process.pid

    def check(self) -> None:
        """Raise ``BenchError`` if one of them has ended."""
        for name, process in self.running:
            if process.poll() is not None:
                tail = (self.logs / f"{name}.log").read_text(errors="replace")[-2000:]
                raise BenchError(f"{name} has ended with status {process.returncode}:\n{tail}")

    def stop(self) -> None:
        """End the programs, the last first, and everything that they have started."""
        for _, process in reversed(self.running):
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for _, process in reversed(self.running):
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self.running.clear()


def wait_for(url: str, programs: Programs, *, token: str = "") -> None:
    """Wait until ``url`` answers with any status below 500."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS
    while True:
        programs.check()
        try:
            opener.open(urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"}), timeout=5).close()
            return
        except urllib.error.HTTPError as error:
            if error.code < 500:
                return
            reason = str(error)
        except OSError as error:
            reason = str(error)
        if time.monotonic() > deadline:
            raise BenchError(f"{url} did not answer within {START_SECONDS} s: {reason}")
        time.sleep(0.1)


def wait_for_file(path: Path, programs: Programs) -> str:
    """Wait until a program has written to ``path``; return what."""
    deadline = time.monotonic() + START_SECONDS
    while not (path.is_file() and (text := path.read_text())):
        programs.check()
        if time.monotonic() > deadline:
            raise BenchError(f"nobody wrote {path.name} within {START_SECONDS} s")
        time.sleep(0.1)
    return text


def _stat(pid: str) -> tuple[int, int] | None:
    """Return the parent of a process and its CPU time in ticks, that of its ended children included."""
    try:
        text = Path("/proc", pid, "stat").read_text()
    except OSError:
        return None
    # After the name, which is in brackets and may hold anything; proc_pid_stat(5): fields 4 and 14 to 17.
    fields = text.rpartition(")")[2].split()
    return int(fields[1]), sum(int(field) for field in fields[11:15])


def cpu_microseconds(roots: Iterable[int]) -> float:
    """Return the CPU time, user and system, that these processes and all their descendants have used so far.

    A child that has ended counts with its parent, which has waited for it; so the sum loses nothing between two calls
    as long as the roots live. In steps of a clock tick (10 ms) for each process.
    """
    wanted = set(roots)
    stats = {pid: found for pid in filter(str.isdigit, os.listdir("/proc")) if (found := _stat(pid))}
    parents = {int(pid): parent for pid, (parent, _) in stats.items()}
    total = 0
    for pid, (_, ticks) in stats.items():
        ancestor = int(pid)
        while ancestor and ancestor not in wanted:
            ancestor = parents.get(ancestor, 0)
        if ancestor:
            total += ticks
    return total * 1_000_000 / TICKS


def busy_microseconds() -> float:
    """Return the CPU time that everybody has used so far on all processors, other guests of the host included."""
    # proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal; what guests of this one use is in user.
    user, nice, system, _idle, _iowait, *rest = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + sum(rest)) * 1_000_000 / TICKS


def settle(roots: Sequence[int], *, seconds: float = 10.0) -> None:
    """Wait until these processes have finished what they were doing: no CPU time for 0.4 s."""
    deadline = time.monotonic() + seconds
    before, quiet = cpu_microseconds(roots), 0
    while quiet < 8 and time.monotonic() < deadline:
        time.sleep(0.05)
        now = cpu_microseconds(roots)
        quiet = quiet + 1 if now == before else 0
        before = now
