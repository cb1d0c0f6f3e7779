"""How many instructions the application needs for a request, counted by valgrind: a figure that no clock goes into.

The application answers in one process, called as Gunicorn calls it; nginx, Gunicorn and PostgreSQL are not in it. Nor
is most of what the baseline needs to connect for each request: the key of its password is derived in one step, not in
4096. valgrind's processor has no instructions for SHA-256, so that would be four fifths of what is counted.
What is compared with the committed figures is the ratio to the baseline of the same run: another Python, processor or
machine changes both sides. Where the very same Python is at work as for the committed figures, the number is compared
as well: what a newer Django, say, adds to both sides hides from the ratio.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import sql

from tests.benchmarks import data
from tests.benchmarks.load import OPERATIONS, Operation
from tests.benchmarks.processes import BenchError, Programs
from tests.benchmarks.setting import HERE, ROOT, Setting
from tests.benchmarks.variants import Baseline, Shipped, Tokens, Variant

COMMITTED = HERE / "instructions.json"
MARGIN = 0.10
"""How far a figure may move, to either side: two runs on one machine differ by less than a hundredth."""

COUNTED = ("list", "detail", "search", "create", "refresh", "login")
WARM_UP, REQUESTS = 4, 8
SECONDS = 100
"""How long a batch may take: some four seconds, on an idle machine."""


@dataclass(frozen=True)
class Count:
    """What one request took."""

    instructions: float
    statements: int


class Guest:
    """A variant that answers under valgrind."""

    def __init__(self, setting: Setting, variant: Shipped | Baseline, valgrind: Path) -> None:
        shipped = isinstance(variant, Shipped)
        self.variant = variant
        self.folder = setting.work / variant.name / "counts"
        self.folder.mkdir(parents=True)
        self.vgdb = valgrind.parent / "vgdb"
        code = ROOT / "backend" if shipped else Baseline.folder
        env = variant.environment(PYTHONPATH=str(code), PYTHONHASHSEED="0", PYTHONDONTWRITEBYTECODE="1")
        self.log = self.folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [
                    str(valgrind), "--tool=callgrind", "--instr-atstart=no", f"--vgdb-prefix={self.folder}/vgdb-pipe",
                    f"--callgrind-out-file={self.folder}/counts",
                    str(setting.python), str(HERE / "answering.py"),
                    "config.wsgi.application" if shipped else "project.wsgi.application", data.PASSWORD,
                ],
                env=env, cwd=code, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip

    def answer(self, operation: Operation, tokens: list[Tokens], *, statements: bool = False) -> dict[str, Any]:
        """Let it answer one batch; return what it says of it."""
        requests = operation.requests(tokens)[: len(tokens)]
        batch = {
            "requests": requests,
            "expected": operation.expected.value,
            "chained": operation.chained,
            "statements": statements,
        }
        stdin, stdout = self.process.stdin, self.process.stdout
        if stdin is None or stdout is None:
            raise BenchError("no pipe to valgrind")
        # One that hangs is ended, and so is the wait for its answer.
        watch = threading.Timer(SECONDS, self.process.kill)
        watch.start()
        try:
            stdin.write(json.dumps(batch) + "\n")
            stdin.flush()
            done: dict[str, Any] = json.loads(stdout.readline())
        except (BrokenPipeError, ValueError):
            self.process.wait(10)
            tail = self.log.read_text(errors="replace")[-2000:]
            raise BenchError(f"{self.variant.name}, {operation.name}: no answer under valgrind:\n{tail}") from None
        finally:
            watch.cancel()
        return done

    def tell(self, *words: str) -> None:
        """Let valgrind do something; the application waits for its next batch meanwhile."""
        command = [str(self.vgdb), f"--vgdb-prefix={self.folder}/vgdb-pipe", f"--pid={self.process.pid}", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        if done.returncode:
            raise BenchError(f"valgrind cannot be told {' '.join(words)}: {done.stderr or done.stdout}")

    def count(self, operation: Operation, tokens: list[Tokens]) -> Count:
        """Count what this many requests take, one after another."""
        # The first ones fill caches, and are translated by valgrind.
        warm = self.answer(operation, tokens[:WARM_UP], statements=True)
        if operation.chained:
            tokens = [token._replace(refresh=warm["refresh"]) for token in tokens]
        self.tell("dump", "before")
        self.answer(operation, tokens[:REQUESTS])
        self.tell("dump", operation.name)
        newest = max(self.folder.glob("counts.*"), key=lambda path: int(path.suffix[1:]))
        total = re.search(r"^totals: ([0-9]+)$", newest.read_text(), re.MULTILINE)
        if total is None or not int(total[1]):
            raise BenchError(f"{self.variant.name}, {operation.name}: valgrind has counted nothing")
        return Count(int(total[1]) / REQUESTS, warm["statements"] // WARM_UP)

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                # What it has not read any more cannot be sent.
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def count_instructions(setting: Setting, valgrind: Path, say: Callable[[str], None]) -> dict[str, dict[str, Count]]:
    """Return what each operation takes, by operation and variant."""
    with Programs(setting.work / "log") as programs:
        variants: list[Variant] = [Shipped(setting, programs), Baseline(setting, programs)]
        for variant in variants:
            say(f"{variant.name}: its database")
            variant.prepare()
        with setting.connect("postgres") as connection:
            connection.execute("SET scram_iterations = 1")
            password = sql.Literal(setting.superuser_password())
            connection.execute(sql.SQL("ALTER ROLE postgres PASSWORD {}").format(password))
        say("counting")
        with ThreadPoolExecutor(len(variants)) as pool:
            found = list(pool.map(lambda variant: _count(setting, variant, valgrind), variants))
    return {name: {v.name: counts[name] for v, counts in zip(variants, found, strict=True)} for name in COUNTED}


def _count(setting: Setting, variant: Any, valgrind: Path) -> dict[str, Count]:
    tokens = variant.tokens(range(1, max(WARM_UP, REQUESTS) + 1))
    guest = Guest(setting, variant, valgrind)
    try:
        # Until the first answer it is imported, uncounted and a good deal faster.
        guest.answer(OPERATIONS["list"], tokens[:1])
        guest.tell("instrumentation", "on")
        return {name: guest.count(OPERATIONS[name], tokens) for name in COUNTED}
    finally:
        guest.stop()


def as_dict(counts: dict[str, dict[str, Count]]) -> dict[str, dict[str, float]]:
    """Return the figures as they are committed."""
    return {
        name: {
            "ratio": round(by_variant["baseline"].instructions / by_variant["shipped"].instructions, 3),
            "shipped": round(by_variant["shipped"].instructions),
            "baseline": round(by_variant["baseline"].instructions),
            "statements": by_variant["shipped"].statements,
        }
        for name, by_variant in counts.items()
    }


def write(figures: dict[str, dict[str, float]]) -> None:
    """Commit the figures, and to which Python they belong."""
    COMMITTED.write_text(json.dumps({"python": sys.version, "operations": figures}, indent=2) + "\n")


def compare(figures: dict[str, dict[str, float]], *, python: str = sys.version) -> list[str]:
    """Return what is no longer as the committed figures say.

    Also what got better: it is committed, or it would be slack for what gets worse later.
    """
    committed = json.loads(COMMITTED.read_text())
    found = []
    for name, now in figures.items():
        then = committed["operations"][name]
        if abs(now["ratio"] / then["ratio"] - 1) > MARGIN:
            found.append(
                f"{name}: {now['ratio']:.3f} times fewer instructions than the baseline, committed are"
                f" {then['ratio']:.3f} (margin {MARGIN:.0%})"
            )
        elif python == committed["python"] and abs(now["shipped"] / then["shipped"] - 1) > MARGIN:
            found.append(
                f"{name}: {now['shipped']:,.0f} instructions, committed are {then['shipped']:,.0f}, as many times fewer"
                f" than the baseline (margin {MARGIN:.0%})"
            )
        if now["statements"] != then["statements"]:
            found.append(f"{name}: {now['statements']} SQL statements, committed are {then['statements']}")
    return found


def table(figures: dict[str, dict[str, float]]) -> str:
    """Return the figures as text."""
    lines = [f"  {'':<10}{'this stack':>12}{'baseline':>12}{'ratio':>8}{'statements':>12}"]
    lines += [
        f"  {name:<10}{row['shipped']:>12,.0f}{row['baseline']:>12,.0f}{row['ratio']:>8.3f}{row['statements']:>12}"
        for name, row in figures.items()
    ]
    return "\n".join(["instructions of the application for a request", *lines])
