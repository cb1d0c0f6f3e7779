"""The command behind ./scripts/bench, which says what its options are and brings the programs and the database."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.benchmarks import data, document, growth, instructions, report, stack
from tests.benchmarks.agreement import check_agreement
from tests.benchmarks.load import OPERATIONS, run_slice
from tests.benchmarks.processes import BenchError, Programs, bounded
from tests.benchmarks.setting import ROOT, Setting
from tests.benchmarks.variants import VARIANTS, Running

WARM_UP_SECONDS = 1


class Progress:
    """How far a run is: a bar where somebody looks at a terminal, a line now and then otherwise."""

    def __init__(self, steps: int, *, every: float = 10) -> None:
        self.steps = steps
        self.every = every
        self.done = 0
        self.started = time.monotonic()
        self.bar = sys.stderr.isatty()
        self.said = 0.0

    def step(self, text: str) -> None:
        """One step further; say what is done now."""
        self.done += 1
        now = time.monotonic()
        if self.bar:
            filled = round(30 * min(1, self.done / self.steps))
            print(f"\r\x1b[K[{'#' * filled}{' ' * (30 - filled)}] {text}", end="", file=sys.stderr, flush=True)
        elif now - self.said > self.every:
            self.said = now
            print(f"bench: {self.done}/{self.steps}, {now - self.started:.0f} s: {text}", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line of the bar."""
        if self.bar:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read what ./scripts/bench has checked and handed over."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("mode", choices=["all", "load", "growth", "stack", "instructions", "compare", "document"])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--nginx", type=Path, default=Path())
    parser.add_argument("--wrk", type=Path, default=Path())
    parser.add_argument("--postgres", type=Path, default=Path())
    parser.add_argument("--peers", type=Path, default=Path())
    parser.add_argument("--valgrind", type=Path, default=Path())
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--engine", action="store_true")
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--operations", default=",".join(OPERATIONS))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=int)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--then", choices=["check", "write"])
    parser.add_argument("--files", type=Path, nargs="+", default=[])
    return parser.parse_args(arguments)


def measure_load(setting: Setting, options: argparse.Namespace) -> report.Results:
    """Start everything, compare the answers, then measure in rounds."""
    names, operations = options.variants.split(","), options.operations.split(",")
    progress = Progress(2 * len(names) + 1 + len(operations) * len(names) * (options.rounds + 1))
    with Programs(setting.work / "log") as programs:
        variants = [VARIANTS[name](setting, programs) for name in names]
        for variant in variants:
            progress.step(f"{variant.name}: its database")
            variant.prepare()
        fleet: list[Running] = []
        for variant in variants:
            progress.step(f"{variant.name}: its processes")
            fleet.append(variant.serve())
        progress.step("comparing the answers")
        check_agreement(fleet, operations)

        results: report.Results = {name: {} for name in operations}
        for name in operations:
            operation = OPERATIONS[name]
            for running in fleet:
                progress.step(f"{name}: warming {running.variant.name} up")
                run_slice(setting, running, operation, seconds=WARM_UP_SECONDS)
                # Prepared statements were planned for the tables as they were, some of them empty.
                data.vacuum(setting, running.variant.database)
            for number in range(options.rounds):
                # Every second round in reverse, so that nobody always comes after the same one.
                for running in fleet if number % 2 == 0 else reversed(fleet):
                    progress.step(f"{name}, round {number + 1} of {options.rounds}: {running.variant.name}")
                    programs.check()
                    found = run_slice(setting, running, operation, seconds=options.seconds)
                    results[name].setdefault(running.variant.name, []).append(found)
        progress.end()
        # In the order in which they were asked for.
        return {name: {v: found[v] for v in names if v in found} for name, found in results.items()}


def run_load(setting: Setting, options: argparse.Namespace) -> dict[str, Any]:
    """Measure under load and print the figures."""
    wanted = asked(options, "load")
    options.rounds, options.seconds = wanted["rounds"], wanted["seconds"]
    results = measure_load(setting, options)
    summary = report.summarize(results)
    print(report.table(summary))
    if found := report.warning(summary):
        print(f"bench: warning: {found}", file=sys.stderr)
    return {
        "rounds": options.rounds,
        "seconds": options.seconds,
        "summary": summary,
        "slices": {
            operation: {name: [found.as_dict() for found in slices] for name, slices in by_variant.items()}
            for operation, by_variant in results.items()
        },
    }


def run_growth(setting: Setting, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one account of four sizes."""
    progress = Progress(24, every=0)
    figures = growth.measure_growth(setting, progress.step, quick=options.quick)
    progress.end()
    print(growth.table(figures))
    return {"growth": figures}


def run_stack(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the stack in containers."""
    progress = Progress(4, every=0)
    figures = stack.measure_stack(options.work, progress.step)
    progress.end()
    print(stack.lines(figures))
    return {"stack": figures}


def run_instructions(setting: Setting, options: argparse.Namespace) -> int:
    """Count instructions, print them, and compare them with the committed ones or commit them."""
    progress = Progress(3, every=0)
    figures = instructions.as_dict(instructions.count_instructions(setting, options.valgrind, progress.step))
    progress.end()
    print(instructions.table(figures))
    if options.then == "write":
        instructions.write(figures)
    if options.then != "check":
        return 0
    moved = instructions.compare(figures)
    for line in moved:
        print(f"bench: {line}", file=sys.stderr)
    if moved:
        print(
            "  next: what got worse, make cheaper; for what got better, or has to be so, ./scripts/bench --instructions"
            " write, and say why",
            file=sys.stderr,
        )
    return 1 if moved else 0


def asked(options: argparse.Namespace, mode: str) -> dict[str, Any]:
    """Return what makes a run of that mode shorter or longer than another; defaults are spelled out."""
    if mode != "load":
        return {"quick": options.quick}
    return {
        "quick": options.quick,
        "rounds": options.rounds or (2 if options.quick else 5),
        "seconds": options.seconds or (1 if options.quick else 2),
    }


def write_down(options: argparse.Namespace, started: datetime, figures: dict[str, Any]) -> None:
    """Keep the figures of a run as JSON."""
    output: Path = options.output or ROOT / f"var/bench/{options.mode}-{started:%Y-%m-%dT%H%M%SZ}.json"
    whole = {
        "mode": options.mode,
        "started": started.isoformat(timespec="seconds"),
        "asked": asked(options, options.mode),
        **figures,
    }
    unfinished = output.with_name(f"{output.name}.unfinished")
    unfinished.write_text(json.dumps(whole, indent=1) + "\n")
    unfinished.replace(output)
    print(f"bench: written to {output}", file=sys.stderr)


def read(path: Path) -> dict[str, Any]:
    """Return what a run has written down; raise ``BenchError`` where that is no such file."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BenchError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict) or not {"mode", "asked", "environment"} <= set(found):
        raise BenchError(f"{path} was not written by this ./scripts/bench")
    return found


PARTS = (("load", "load"), ("growth", "growth"), ("stack", "stack"), ("again", "load"))
"""What the document is made of: a name, and the mode that measures it. The second run under load comes last: what it is
to show is that an hour makes no difference.
"""


def run_all(options: argparse.Namespace) -> int:
    """Measure everything, each part by a command of its own, and write the document; return 1 where a target is missed.

    A part that fails does not keep the others from being measured: ``--resume`` measures what is missing.
    """
    commit, folder = report.commit(), options.work
    if commit.endswith("+") and not options.quick:
        raise BenchError("files differ from the last commit, and docs/performance.md names what was measured: commit")
    if not options.resume:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    files, failed = [], []
    for name, mode in PARTS:
        output = folder / f"{name}.json"
        if can_stay(output, commit, asked(options, mode)):
            print(f"bench: {name}: measured before, at this commit: {output}", file=sys.stderr)
        elif mode == "stack" and not options.engine:
            print("bench: NOT RUN: the stack in containers: no container engine answers", file=sys.stderr)
            continue
        else:
            output.unlink(missing_ok=True)
            print(f"bench: {name}", file=sys.stderr)
            part(mode, output, options)
        if output.exists():
            files.append(read(output))
        else:
            failed.append(name)
    if failed:
        raise BenchError(f"not measured: {', '.join(failed)}; once that is mended, --resume measures what is missing")
    return write_document(files, folder if options.quick else document.FOLDER)


def can_stay(output: Path, commit: str, wanted: dict[str, Any]) -> bool:
    """Whether a part was measured already, by the same code and as long."""
    try:
        found = read(output)
    except BenchError:
        return False
    known = commit != "unknown" and not commit.endswith("+")
    return known and bool(found["environment"]["commit"] == commit) and found["asked"] == wanted


def part(mode: str, output: Path, options: argparse.Namespace) -> None:
    """Run one part; whoever ends this ends it too."""
    command = [str(ROOT / "scripts/bench"), f"--{mode}", "--output", str(output)]
    command += ["--quick"] if options.quick else []
    if mode == "load":
        wanted = asked(options, mode)
        command += ["--rounds", str(wanted["rounds"]), "--seconds", str(wanted["seconds"])]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        process.wait()
    finally:
        process.terminate()
        process.wait()


def write_document(files: list[dict[str, Any]], folder: Path) -> int:
    """Write the document; say what was missed and return 1, unless all of it holds or it was a quick run."""
    verdicts = document.write(files, folder)
    print(f"bench: written to {folder / document.TEXT}", file=sys.stderr)
    missed = [verdict for verdict in verdicts if not verdict.holds]
    for verdict in missed:
        print(f"bench: missed: {verdict}", file=sys.stderr)
    return 1 if missed and folder == document.FOLDER else 0


def longest(options: argparse.Namespace) -> float:
    """Return how many seconds a run may take; on an idle machine it takes half of that."""
    if options.mode != "load":
        return {"growth": 1500, "stack": 1200, "instructions": 300}[str(options.mode)]
    wanted = asked(options, "load")
    slices = len(options.variants.split(",")) * len(options.operations.split(",")) * (wanted["rounds"] + 1)
    return 400 + slices * (2 * int(wanted["seconds"]) + 4)


def run(options: argparse.Namespace) -> int:
    """Do what was asked for."""
    if options.mode == "all":
        return run_all(options)
    files = [read(path) for path in options.files]
    if options.mode == "compare":
        if any(found["mode"] != "load" for found in files):
            raise BenchError("--compare takes two runs under load")
        return report.compare(*files)
    if options.mode == "document":
        return write_document(files, document.FOLDER)
    with bounded(longest(options)):
        return measure(options)


def measure(options: argparse.Namespace) -> int:
    """Measure what was asked for and write it down."""
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    # At the start: what is measured is what is here now, whatever is committed meanwhile.
    started, commit = datetime.now(UTC), {"commit": report.commit()}
    if options.mode == "stack":
        write_down(options, started, {**run_stack(options), "environment": report.host() | commit})
        return 0
    setting = Setting(
        work=options.work,
        nginx=options.nginx,
        wrk=options.wrk,
        peers_python=options.peers,
        postgres_data=options.postgres,
    )
    if options.mode == "instructions":
        return run_instructions(setting, options)
    figures = (run_growth if options.mode == "growth" else run_load)(setting, options)
    write_down(options, started, {**figures, "environment": report.environment(setting) | commit})
    return 0


def end(number: int, _frame: object) -> None:
    """End once, whatever else comes: what was started is stopped on the way out."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    raise SystemExit(128 + number)


def main() -> int:
    """Run; say what went wrong in words."""
    options = parse()
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, end)
    try:
        return run(options)
    except BenchError as error:
        logs = "" if options.files or options.mode == "all" else f"read what is in {options.work / 'log'}, then "
        print(f"\nbench: error: {error}\n  next: {logs}start again", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
