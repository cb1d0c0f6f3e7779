"""docs/performance.md and the plot beside it, from what a run has written down."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks import growth, report, stack
from tests.benchmarks.processes import BenchError
from tests.benchmarks.setting import ROOT
from tests.benchmarks.variants import VARIANTS

FOLDER, TEXT, PLOT = ROOT / "docs", "performance.md", "performance.svg"
MOST = {"load": 2, "growth": 1, "stack": 1}
"""How many runs of each kind a document is made of."""

INTRODUCTION = """\
# What a request costs

Made by `./scripts/bench`; do not edit it by hand. How it is measured, and why so, is in `docs/decisions/0040`, what it
is compared with in `tests/benchmarks/`.

The figure that counts is **CPU microseconds a request**: user and system time of the application, nginx and PostgreSQL
together, because it holds still on a busy machine. Requests a second and latencies come from the same slices, in which
the load generator and the database had the same processors. Every ratio is the baseline's CPU by this one's, both from
one run with interleaved rounds; all figures are medians over the rounds.

![CPU microseconds a request, by operation and variant](performance.svg)
"""

READING = """\
### How to read it

- All variants run on this host's own Python, without containers and without upkeep: what Docker's network, a limit of
  memory or the image's newer Python change is not in these figures; `docs/decisions/0040` has what the last one does.
- A token that this stack has verified it remembers, 4,096 in each process. The 100 tokens of the load were all
  remembered, which saves some 200 us a request (`docs/decisions/0048`); whether its session is live is looked at each
  time. The others verify each token each time, as their documentation has it.
- The peers are written as their own documentation writes them: django-ninja with five synchronous workers, FastAPI with
  SQLAlchemy with synchronous sessions in threads. Neither is the cheapest form that somebody could find.
- A search here looks at the newest 2,000 rows in the order of the list, and decides by what it finds there how to go on
  (`docs/decisions/0046`). That bounds what it costs in a ledger of any length, see *Growth*; the others read all rows
  of the account, a thousand here, and cost more with each row.
- A login is a password hash, with the same parameters everywhere but in the baseline, and little else.
"""

REPRODUCE = """\
## Reproduce it

    ./scripts/bench

Use two idle processors; it takes some 40 minutes. It measures under load, growth, the stack in containers, and under
load once more, and then writes this document. `--resume` goes on where a run ended early. `--quick` is for a first
look, and writes nothing here.
"""


def write(files: Sequence[dict[str, Any]], folder: Path = FOLDER) -> list[report.Verdict]:
    """Write both files and return every target; sections without a run among ``files`` say how to fill them."""
    by_mode = _by_mode(files)
    if folder == FOLDER:
        _refuse_what_nobody_can_repeat(files)
    loads = by_mode["load"]
    sections: list[str] = []
    verdicts: list[report.Verdict] = []
    if loads:
        sections.append(_load(loads[0]))
        verdicts += report.verdicts(loads[0]["summary"])
        (folder / PLOT).write_text(plot(loads[0]["summary"]))
    else:
        sections.append(_missing("Ratios", "--load"))
    if len(loads) > 1:
        differences = report.differences(*loads)
        sections.append(_second(loads[1], differences))
        verdicts.append(report.agreement(differences))
    else:
        sections.append(_missing("A second run", "--load"))
    for mode, title, section, judge in (
        ("growth", "Growth", _growth, growth.verdicts),
        ("stack", "The stack", _stack, stack.verdicts),
    ):
        sections += map(section, by_mode[mode]) if by_mode[mode] else [_missing(title, f"--{mode}")]
        verdicts += [verdict for found in by_mode[mode] for verdict in judge(found[mode])]
    (folder / TEXT).write_text("\n".join([INTRODUCTION, _targets(verdicts), *sections, REPRODUCE]))
    return verdicts


def _by_mode(files: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the runs by what they have measured, the earlier ones first."""
    by_mode: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MOST}
    for found in sorted(files, key=lambda found: str(found.get("started"))):
        if found["mode"] not in MOST:
            raise BenchError(f"--document takes the files of these modes: {', '.join(MOST)}")
        by_mode[found["mode"]].append(found)
    for mode, most in MOST.items():
        if len(by_mode[mode]) > most:
            raise BenchError(f"--document takes {most} of the mode {mode} at most, not {len(by_mode[mode])}")
    return by_mode


def _refuse_what_nobody_can_repeat(files: Sequence[dict[str, Any]]) -> None:
    """Raise ``BenchError`` unless all was measured as it is documented, at one commit, without changes to it."""
    commits = {str(found["environment"]["commit"]) for found in files}
    if len(commits) > 1:
        raise BenchError(f"these were measured at several commits: {', '.join(sorted(commits))}; measure all at one")
    if any(commit.endswith("+") for commit in commits):
        raise BenchError("these were measured with changes that are in no commit")
    if any(found["asked"]["quick"] for found in files):
        raise BenchError("docs/performance.md is not for what --quick has measured")


def _targets(verdicts: Sequence[report.Verdict]) -> str:
    """Say what was missed, before anything else."""
    missed = [verdict for verdict in verdicts if not verdict.holds]
    if not missed:
        return f"All {len(verdicts)} targets hold.\n"
    return f"{len(missed)} of {len(verdicts)} targets are missed:\n\n" + "".join(f"- {found}\n" for found in missed)


def _missing(title: str, option: str) -> str:
    return f"## {title}\n\nNot measured yet: `./scripts/bench` does, or `./scripts/bench {option} --output FILE`.\n"


def _measured(found: dict[str, Any]) -> str:
    """Say when, at which commit and on what a run was made."""
    environment = found["environment"]
    moment, commit = found["started"][:16].replace("T", " "), environment["commit"]
    return f"Measured on {moment} UTC, at commit {commit}, {environment['processor']}, {environment['cores']} cores."


def _markdown(rows: list[list[str]]) -> str:
    header, *body = rows
    rule = ["---", *(["---:"] * (len(header) - 1))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, rule, *body]) + "\n"


def _load(found: dict[str, Any]) -> str:
    parts = ["## Ratios\n", _ratios(found["summary"]), _versions(found), _served_by(found["summary"]), READING]
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
        aim = f"{report.AIM[operation]:g}" if operation in report.AIM else ""
        least = f"{report.LEAST[operation]:g}" if operation in report.LEAST else ""
        # The first verdict is the one beside the baseline, where there is one.
        judged = report.verdicts({operation: figures})
        rows.append([operation, *ratios, f"{least}: {judged[0].word}" if least and judged else least, aim])
    peers = [verdict for verdict in report.verdicts(summary) if not verdict.what.endswith("baseline")]
    sentences = "".join(f"- {verdict}\n" for verdict in peers)
    return f"{_markdown(rows)}\n{sentences}"


def _second(found: dict[str, Any], differences: Sequence[report.Difference]) -> str:
    rows = [["ratio", "first run", "second run", "differ by", ""]]
    rows += [[row.what, f"{row.first:.2f}", f"{row.second:.2f}", f"{row.share:+.1%}", row.mark] for row in differences]
    return (
        f"## A second run\n\n{report.agreement(list(differences))}.\n\n{_markdown(rows)}\n"
        f"{_measured(found)} {report.warning(found['summary'])}".rstrip()
        + "\n"
    )


def _versions(found: dict[str, Any]) -> str:
    versions = ", ".join(
        f"{name} {value}"
        for name, value in found["environment"].items()
        if name not in {"commit", "processor", "cores"}
    )
    rounds = f"{found['rounds']} rounds of {found['seconds']} s for each variant and operation (logins: twice as long)"
    return f"{_measured(found)} {rounds}, {versions}. {report.warning(found['summary'])}".rstrip() + "\n"


def _served_by(summary: dict[str, Any]) -> str:
    names = [name for name in VARIANTS if any(name in figures for figures in summary.values())]
    return "".join(f"- **{name}**: {VARIANTS[name].title}. {VARIANTS[name].served_by}.\n" for name in names)


def _growth(found: dict[str, Any]) -> str:
    figures = found["growth"]
    rows = [
        [
            "p50 in ms, over HTTP",
            *(f"{size:,} rows" for size in figures["sizes"]),
            "half of the last",
            "ratio",
            "target",
        ]
    ]
    for name, answers in figures["answers"].items():
        ratio = f"{growth.ratio(answers):.2f}"
        cells = [growth.cell(answer) for answer in answers]
        rows.append([name, *cells, growth.spread(answers), ratio, growth.target(name, answers)])
    anywhere = "".join(f"{found}.\n\n" for found in growth.verdicts(figures) if found.what not in figures["answers"])
    indexes = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in figures["indexes"].items())
    return (
        "## Growth\n\n"
        f"One account of each size, among {figures['others']:,} others of {figures['rows_of_others']} rows each; one"
        " request at a time, the accounts in turn, so the figures hold the whole way: client, nginx, application,"
        " PostgreSQL. A figure with a status in brackets is an answer that is no success. The ratio is that of the"
        " slowest account to the quickest; half of the largest account's answers lie between the two figures in the"
        " column before it.\n\n"
        f"{_markdown(rows)}\n"
        f"{anywhere}"
        f"Without a target, since it is not flat (`docs/decisions/0047`): {growth.OUT_OF_BOUNDS}.\n\n"
        f"Indexes: {indexes}.\n\n{_measured(found)}\n"
    )


def _stack(found: dict[str, Any]) -> str:
    figures = found["stack"]
    rows = [["", "measured", "target"]]
    rows += [[verdict.what, verdict.found, f"{verdict.wanted}: {verdict.word}"] for verdict in stack.verdicts(figures)]
    return f"## The stack\n\n{_markdown(rows)}\n{stack.by_service(figures)}\n\n{_measured(found)}\n"


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
