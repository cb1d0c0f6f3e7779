"""docs/performance.md and the plot beside it, from what a run has written down."""

from __future__ import annotations

from typing import Any

from tests.benchmarks import growth, report, stack
from tests.benchmarks.processes import BenchError
from tests.benchmarks.setting import ROOT
from tests.benchmarks.variants import VARIANTS

DOCUMENT = ROOT / "docs/performance.md"
PLOT = ROOT / "docs/performance.svg"
MODES = ("load", "growth", "stack")

INTRODUCTION = """\
# What a request costs

Made by `./scripts/bench --document`; do not edit it by hand. How it is measured, and why so, is in
`docs/decisions/0040`, what it is compared with in `tests/benchmarks/`.

The figure that counts is **CPU microseconds a request**: user and system time of the application, nginx and PostgreSQL
together, because it holds still on a busy machine. Requests a second and latencies come from the same slices, in which
the load generator and the database had the same processors. Every ratio is the baseline's CPU by this one's, both from
one run with interleaved rounds; all figures are medians over the rounds.

![CPU microseconds a request, by operation and variant](performance.svg)
"""

REPRODUCE = """\
## Reproduce it

    ./scripts/bench --output var/bench/load.json
    ./scripts/bench --growth --output var/bench/growth.json
    ./scripts/bench --stack --output var/bench/stack.json
    ./scripts/bench --document var/bench/load.json var/bench/growth.json var/bench/stack.json

Use two idle processors. `./scripts/bench --compare A.json B.json` says by how much the ratios of two runs differ: at
most 15 % is expected. `./scripts/bench --quick` is for a first look and takes a third of the time.
"""


def write(files: list[dict[str, Any]]) -> None:
    """Write both files; sections without a run among ``files`` say how to fill them."""
    by_mode = {found["mode"]: found for found in files}
    if set(by_mode) - set(MODES):
        raise BenchError(f"--document takes the files of these modes: {', '.join(MODES)}")
    parts = [INTRODUCTION]
    parts.append(_load(by_mode["load"]) if "load" in by_mode else _missing("Ratios", "./scripts/bench"))
    parts.append(_growth(by_mode["growth"]) if "growth" in by_mode else _missing("Growth", "./scripts/bench --growth"))
    parts.append(_stack(by_mode["stack"]) if "stack" in by_mode else _missing("The stack", "./scripts/bench --stack"))
    parts.append(REPRODUCE)
    DOCUMENT.write_text("\n".join(parts))
    if "load" in by_mode:
        PLOT.write_text(plot(by_mode["load"]["summary"]))


def _missing(title: str, command: str) -> str:
    return f"## {title}\n\nNot measured yet: `{command} --output FILE`.\n"


def _markdown(rows: list[list[str]]) -> str:
    header, *body = rows
    rule = ["---", *(["---:"] * (len(header) - 1))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, rule, *body]) + "\n"


def _load(found: dict[str, Any]) -> str:
    parts = ["## Ratios\n", _ratios(found["summary"]), _versions(found), _served_by(found["summary"])]
    for operation, figures in found["summary"].items():
        rows = [["", "CPU us", "application", "nginx", "PostgreSQL", "ratio", "rps", "p50 ms", "p99 ms", "requests"]]
        for name, row in figures.items():
            cpu = [f"{row[part]:.0f}" for part in ("cpu", "application", "proxy", "database")]
            ratio = f"{row['ratio']:.2f}" if "ratio" in row else ""
            latency = [f"{row['per_second']:.0f}", f"{row['p50']:.1f}", f"{row['p99']:.1f}"]
            rows.append([name, *cpu, ratio, *latency, f"{row['requests']:.0f}"])
        parts.append(f"### {operation}\n\n{_markdown(rows)}")
    return "\n".join(parts)


def _ratios(summary: dict[str, Any]) -> str:
    """Return how many times cheaper than the baseline everybody is, and what this stack is held to."""
    names = [name for name in VARIANTS if any(name in figures for figures in summary.values())]
    rows = [["times cheaper than the baseline", *names, "this stack: at least", "aim"]]
    for operation, figures in summary.items():
        ratios = [f"{figures[name]['ratio']:.2f}" if "ratio" in figures.get(name, {}) else "" for name in names]
        targets = [f"{found[operation]:g}" if operation in found else "" for found in (report.LEAST, report.AIM)]
        rows.append([operation, *ratios, *targets])
    sentences = []
    for operation, other, least in report.AGAINST:
        figures = summary.get(operation, {})
        if "shipped" in figures and other in figures:
            times = figures[other]["cpu"] / figures["shipped"]["cpu"]
            sentences.append(f"- {operation}: {times:.2f} times cheaper than {other} (wanted: {least:g})\n")
    return f"{_markdown(rows)}\n{''.join(sentences)}"


def _versions(found: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in found["environment"].items())
    return (
        f"Measured on {found['started'][:10]}, {found['rounds']} rounds of {found['seconds']} s for each variant and"
        f" operation (logins: twice as long), {versions}. {report.warning(found['summary'])}\n"
    )


def _served_by(summary: dict[str, Any]) -> str:
    names = [name for name in VARIANTS if any(name in figures for figures in summary.values())]
    return "".join(f"- **{name}**: {VARIANTS[name].title}. {VARIANTS[name].served_by}.\n" for name in names)


def _growth(found: dict[str, Any]) -> str:
    figures = found["growth"]
    rows = [["p50 in ms, over HTTP", *(f"{size:,} rows" for size in figures["sizes"]), "ratio", "target"]]
    for name, answers in figures["answers"].items():
        ratio = f"{answers[-1]['p50'] / answers[0]['p50']:.2f}"
        rows.append([name, *(growth.cell(answer) for answer in answers), ratio, growth.verdict(name, answers)])
    indexes = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in figures["indexes"].items())
    return (
        "## Growth\n\n"
        f"One account of each size, among {figures['others']:,} others of {figures['rows_of_others']} rows each; one"
        " request at a time, the accounts in turn, so the figures hold the whole way: client, nginx, application,"
        " PostgreSQL. A figure with a status in brackets is an answer that is no success.\n\n"
        f"{_markdown(rows)}\n"
        f"Indexes: {indexes}. Measured on {found['started'][:10]}.\n"
    )


def _stack(found: dict[str, Any]) -> str:
    figures = found["stack"]
    targets = stack.TARGETS
    services = ", ".join(f"{name} {value:.0f}" for name, value in figures["memory_by_service"].items())
    rows = [
        ["", "measured", "target"],
        ["backend image on top of its base", f"{figures['image']:.0f} MB", f"at most {targets['image']:.0f} MB"],
        ["`./scripts/up`, images in the cache, empty volume", f"{figures['up']:.1f} s", f"under {targets['up']:.0f} s"],
        ["resident memory of the idle stack", f"{figures['memory']:.0f} MB", f"under {targets['memory']:.0f} MB"],
    ]
    return f"## The stack\n\n{_markdown(rows)}\nMemory is the proportional share of all processes, in MB: {services}.\n"


# The plot ---------------------------------------------------------------------------------------------------------

# Readable on white and on black: https://jfly.uni-koeln.de/color/ (Okabe and Ito), told apart with any sight.
COLOURS = {
    "shipped": "#009e73",
    "baseline": "#999999",
    "django-ninja": "#e69f00",
    "fastapi-sqlalchemy": "#56b4e9",
    "fastapi-asyncpg": "#cc79a7",
}
STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #24292f; }
.quiet { fill: #57606a; }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3; } .quiet { fill: #9da7b3; } }"""
LEFT, WIDTH, BAR, GAP, HEAD = 150, 520, 15, 26, 44


def plot(summary: dict[str, Any]) -> str:
    """Return bars of CPU by operation, each operation on a scale of its own: a login costs hundreds of lists."""
    body, y = [], HEAD
    for operation, figures in summary.items():
        longest = max(row["cpu"] for row in figures.values())
        body.append(f'<text x="12" y="{y + 12}" font-weight="600">{operation}</text>')
        y += BAR + 4
        for name, row in figures.items():
            length = max(2.0, row["cpu"] / longest * WIDTH)
            ratio = f", {row['ratio']:.1f}x" if "ratio" in row and name != "baseline" else ""
            body.append(
                f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end" class="quiet">{name}</text>'
                f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR - 3}" fill="{COLOURS[name]}"/>'
                f'<text x="{LEFT + length + 6:.1f}" y="{y + 11}">{row["cpu"]:,.0f} us{ratio}</text>'
            )
            y += BAR + 1
        y += GAP - BAR
    title = "CPU microseconds a request: application, nginx and PostgreSQL; how many times cheaper than the baseline"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 150} {y}" role="img">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n"
        f'<text x="12" y="22" font-weight="600">{title}</text>\n' + "\n".join(body) + "\n</svg>\n"
    )
