"""What was measured, as a table for people and as JSON."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from tests.benchmarks.load import Slice
from tests.benchmarks.processes import BenchError
from tests.benchmarks.setting import ROOT, Setting

Results = dict[str, dict[str, list[Slice]]]
"""By operation and variant: the slices of all rounds."""

LEAST = {"list": 6.0, "detail": 8.0, "create": 6.0, "refresh": 6.0, "login": 6.0}
AIM = {"list": 8.0, "detail": 10.0, "create": 8.0, "refresh": 9.0}
"""How many times cheaper than the baseline this stack is to be."""

SAME = 0.15
"""By how much the ratios of two runs may differ."""

LEVEL = 0.95
"""Where this stack is no dearer than a peer, but for what a complete run leaves open."""

AGAINST = (("list", "django-ninja", 2.0), ("list", "fastapi-sqlalchemy", 2.0), ("list", "fastapi-asyncpg", LEVEL))
"""How many times cheaper than a peer."""


class Verdict(NamedTuple):
    """A target, and what was found of it."""

    what: str
    wanted: str
    found: str
    holds: bool

    def __str__(self) -> str:
        return f"{self.what}: {self.found} (wanted: {self.wanted}): {self.word}"

    @property
    def word(self) -> str:
        """Say whether it holds."""
        return "yes" if self.holds else "NO"


def medians(slices: list[Slice]) -> dict[str, float]:
    """Return the median of each figure."""
    rows = [found.as_dict() for found in slices]
    return {name: median(row[name] for row in rows) for name in rows[0]} | {
        "requests": sum(row["requests"] for row in rows)
    }


def summarize(results: Results) -> dict[str, Any]:
    """Return the medians by operation and variant, each with its ratio to the baseline where that was measured."""
    summary: dict[str, Any] = {}
    for operation, by_variant in results.items():
        figures = {name: medians(slices) for name, slices in by_variant.items() if slices}
        if "baseline" in figures:
            for row in figures.values():
                row["ratio"] = figures["baseline"]["cpu"] / row["cpu"]
        summary[operation] = figures
    return summary


def beside(figures: Mapping[str, Any], other: str) -> float | None:
    """Return how many times cheaper than ``other`` this stack is; None where not both were measured."""
    if {"shipped", other} <= set(figures):
        return float(figures[other]["cpu"] / figures["shipped"]["cpu"])
    return None


def verdicts(summary: Mapping[str, Any]) -> list[Verdict]:
    """Return every target for which there are figures."""
    targets = [(operation, "baseline", least) for operation, least in LEAST.items()]
    found = []
    for operation, other, least in (*targets, *AGAINST):
        times = beside(summary.get(operation, {}), other)
        if times is not None:
            wanted = f"at least {least:g} times cheaper" if least > 1 else f"level, which is at least {least:g}"
            judged = Verdict(f"{operation}, beside {other}", wanted, f"{times:.2f} times cheaper", times >= least)
            found.append(judged)
    return found


def host() -> dict[str, str]:
    """Return on what it was measured."""
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "Linux": ".".join(platform.release().split(".")[:2]),
        "Python": platform.python_version(),
    }


def environment(setting: Setting) -> dict[str, str]:
    """Return on what and with what it was measured."""
    with setting.connect("postgres") as connection:
        row = connection.execute("SHOW server_version").fetchone()
    nginx = subprocess.run([setting.nginx, "-v"], capture_output=True, text=True, check=False).stderr
    wrk = subprocess.run([setting.wrk, "-v"], capture_output=True, text=True, check=False).stdout
    found = {
        **host(),
        "PostgreSQL": row[0].partition(" ")[0] if row else "",
        "nginx": nginx.strip().rpartition("/")[2],
        "wrk": wrk.removeprefix("wrk ").partition(" ")[0],
        **{name: version(name) for name in ("django", "djangorestframework", "gunicorn", "psycopg")},
    }
    if setting.peers_python.exists():
        names = ("django-ninja", "fastapi", "uvicorn", "sqlalchemy", "asyncpg")
        code = f"from importlib.metadata import version; print(*map(version, {names!r}))"
        printed = subprocess.run([setting.peers_python, "-c", code], capture_output=True, text=True, check=False).stdout
        found |= dict(zip(names, printed.split(), strict=False))
    return found


WRITTEN = ("docs/performance.md", "docs/performance.svg")
"""What a run writes itself."""


def commit() -> str:
    """Return what of this repository is measured, with a plus sign where files differ from it."""
    names = [f":(exclude){name}" for name in WRITTEN]
    found = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", *names)
    return f"{found}+" if changed else found or "unknown"


def _git(*words: str) -> str:
    try:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


QUIET = 0.10
"""The share of the processors that others may use: beyond it caches are shared, and what they lose is counted."""


def disturbance(summary: Mapping[str, Any]) -> float:
    """Return what share of the processors others used, the median over operations and variants."""
    return median(row["others"] for figures in summary.values() for row in figures.values())


def warning(summary: Mapping[str, Any]) -> str:
    """Return what is to be said of a run that others have disturbed; nothing of another."""
    share = disturbance(summary)
    if share <= QUIET:
        return ""
    return (
        f"Others used {share:.0%} of the processors meanwhile: measure again on an idle machine before you quote this."
    )


def table(summary: Mapping[str, Any]) -> str:
    """Return the figures as text."""
    lines = []
    for operation, figures in summary.items():
        least, aim = LEAST.get(operation), AIM.get(operation)
        target = f", this stack at least {least:g} times cheaper" if least else ""
        target += f" (aim: {aim:g})" if aim else ""
        lines.append(f"{operation}: CPU microseconds a request{target}")
        lines.append(
            f"  {'':<14}{'total':>9}{'app':>9}{'nginx':>8}{'PostgreSQL':>11}{'ratio':>8}{'rps':>8}"
            f"{'p50 ms':>9}{'p99 ms':>9}{'requests':>10}"
        )
        for name, row in figures.items():
            ratio = f"{row['ratio']:.2f}" if "ratio" in row else "-"
            lines.append(
                f"  {name:<14}{row['cpu']:>9.0f}{row['application']:>9.0f}{row['proxy']:>8.0f}{row['database']:>11.0f}"
                f"{ratio:>8}{row['per_second']:>8.0f}{row['p50']:>9.1f}{row['p99']:>9.1f}{row['requests']:>10.0f}"
            )
        lines += [f"  {verdict}" for verdict in verdicts({operation: figures})]
        lines.append("")
    return "\n".join(lines)


class Difference(NamedTuple):
    """One ratio in two runs."""

    what: str
    first: float
    second: float

    @property
    def share(self) -> float:
        """Return by what share of the first the second is larger."""
        return self.second / self.first - 1

    @property
    def mark(self) -> str:
        """Return a word for one that is too large."""
        return "more than they may" if abs(self.share) > SAME else ""


def ratios(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return every ratio that anything is said of: everybody to the baseline, and this stack to its peers."""
    found = {
        f"{operation}: {name} to baseline": float(row["ratio"])
        for operation, figures in summary.items()
        for name, row in figures.items()
        if name != "baseline" and "ratio" in row
    }
    for operation, other, _ in AGAINST:
        times = beside(summary.get(operation, {}), other)
        if times is not None:
            found[f"{operation}: shipped to {other}"] = times
    return found


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[Difference]:
    """Return every ratio of two runs; raise ``BenchError`` where they have not measured the same."""
    one, two = ratios(first["summary"]), ratios(second["summary"])
    if not one:
        raise BenchError("there is no ratio to compare: a run without the baseline has none")
    if one.keys() != two.keys():
        raise BenchError(
            f"the two runs have not measured the same; one of them alone has: {sorted(set(one) ^ set(two))}"
        )
    return [Difference(what, ratio, two[what]) for what, ratio in one.items()]


def agreement(found: list[Difference]) -> Verdict:
    """Return whether two runs agree."""
    worst = max(abs(difference.share) for difference in found)
    wanted = f"at most {SAME:.0%} apart"
    return Verdict("every ratio in a second run", wanted, f"{worst:.1%} at the most", worst <= SAME)


def compare(first: dict[str, Any], second: dict[str, Any]) -> int:
    """Print by how much the ratios of two runs differ; return 1 where one differs by more than ``SAME``."""
    found = differences(first, second)
    for run in (first, second):
        print(warning(run["summary"]), end="\n" if warning(run["summary"]) else "")
    print(f"{'':<34}{'first':>9}{'second':>9}{'differ by':>12}")
    for row in found:
        print(f"{row.what:<34}{row.first:>9.2f}{row.second:>9.2f}{row.share:>+12.1%}  {row.mark}".rstrip())
    verdict = agreement(found)
    print(f"\n{verdict}")
    return 0 if verdict.holds else 1
