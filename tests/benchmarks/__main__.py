"""The command behind ./scripts/bench, which says what its options are."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks import report
from tests.benchmarks.agreement import check_agreement
from tests.benchmarks.load import OPERATIONS, run_slice
from tests.benchmarks.processes import BenchError, Programs
from tests.benchmarks.setting import ROOT, Setting
from tests.benchmarks.variants import VARIANTS, Running

WARM_UP_SECONDS = 1


class Progress:
    """How far a run is: a bar where somebody looks at a terminal, a line now and then otherwise."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.done = 0
        self.started = time.monotonic()
        self.bar = sys.stderr.isatty()
        self.said = 0.0

    def say(self, text: str) -> None:
        """Tell what is done now."""
        now = time.monotonic()
        if self.bar:
            filled = round(30 * self.done / self.steps)
            print(f"\r\x1b[K[{'#' * filled}{' ' * (30 - filled)}] {text}", end="", file=sys.stderr, flush=True)
        elif now - self.said > 10:
            self.said = now
            print(f"bench: {self.done}/{self.steps}, {now - self.started:.0f} s: {text}", file=sys.stderr, flush=True)

    def step(self, text: str) -> None:
        """One step further."""
        self.done += 1
        self.say(text)

    def end(self) -> None:
        """Leave the line of the bar."""
        if self.bar:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    """Read what ./scripts/bench has checked and handed over."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--nginx", type=Path, required=True)
    parser.add_argument("--wrk", type=Path, required=True)
    parser.add_argument("--postgres", type=Path, required=True)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--operations", default=",".join(OPERATIONS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--output", type=Path)
    return parser.parse_args()


def measure(setting: Setting, options: argparse.Namespace) -> report.Results:
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
            able = [running for running in fleet if name in running.variant.operations]
            for running in able:
                progress.step(f"{name}: warming {running.variant.name} up")
                run_slice(setting, running, operation, seconds=WARM_UP_SECONDS)
            for number in range(options.rounds):
                # Every second round in reverse, so that nobody always comes after the same one.
                for running in able if number % 2 == 0 else reversed(able):
                    progress.step(f"{name}, round {number + 1} of {options.rounds}: {running.variant.name}")
                    programs.check()
                    found = run_slice(setting, running, operation, seconds=options.seconds)
                    results[name].setdefault(running.variant.name, []).append(found)
        progress.end()
        # In the order in which they were asked for.
        return {name: {v: found[v] for v in names if v in found} for name, found in results.items()}


def main() -> int:
    """Measure, print, and write down."""
    options = parse()
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    setting = Setting(
        work=options.work,
        nginx=options.nginx,
        wrk=options.wrk,
        peers_python=options.peers,
        postgres_data=options.postgres,
    )
    started = datetime.now(UTC)
    try:
        results = measure(setting, options)
    except BenchError as error:
        print(f"bench: error: {error}\n  next: read the logs in {options.work / 'log'}", file=sys.stderr)
        return 1
    summary = report.summarize(results)
    print(report.table(summary))
    output = options.output or ROOT / f"var/bench/{started:%Y-%m-%dT%H%M%SZ}.json"
    whole = {
        "started": started.isoformat(timespec="seconds"),
        "rounds": options.rounds,
        "seconds": options.seconds,
        "environment": report.environment(setting),
        "summary": summary,
        "slices": {
            operation: {name: [found.as_dict() for found in slices] for name, slices in by_variant.items()}
            for operation, by_variant in results.items()
        },
    }
    output.write_text(json.dumps(whole, indent=1) + "\n")
    print(f"bench: written to {output}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
