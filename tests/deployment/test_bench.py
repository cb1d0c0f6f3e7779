"""./scripts/bench: it runs to its end, and what it makes of figures is right."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.benchmarks import document, growth, instructions, load, proxies, report
from tests.deployment.conftest import ROOT


def bench(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["./scripts/bench", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=timeout
    )


# One run --------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(400)
def test_a_quick_run_of_two_variants_and_two_operations_runs_to_its_end(tmp_path: Path) -> None:
    output = tmp_path / "run.json"
    options = ["--quick", "--rounds", "1", "--variants", "shipped,baseline", "--operations", "list,refresh"]

    done = bench(*options, "--output", str(output), timeout=390)

    if "could not be had" in done.stderr:
        pytest.skip("this host has no nginx, wrk and PostgreSQL for it, nor a Debian mirror to take them from")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(output.read_text())
    assert list(found["summary"]) == ["list", "refresh"]
    for figures in found["summary"].values():
        assert list(figures) == ["shipped", "baseline"]
        for row in figures.values():
            assert row["cpu"] == pytest.approx(row["application"] + row["proxy"] + row["database"])
            assert min(row["application"], row["database"], row["p50"], row["per_second"], row["requests"]) > 0
            assert 50 < row["cpu"] < 1_000_000
        assert figures["baseline"]["ratio"] == 1
        assert figures["shipped"]["ratio"] == pytest.approx(figures["baseline"]["cpu"] / figures["shipped"]["cpu"])
    assert re.search(r"(?m)^list: .*at least 6 times cheaper \(aim: 8\)$", done.stdout)
    assert re.search(r"(?m)^  shipped +\d", done.stdout)
    assert "\x1b" not in done.stderr, "no terminal, no bar"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--variants", "shipped,flask"], "there is no flask"),
        (["--operations", "list,delete"], "there is no delete"),
        (["--rounds", "0"], "a whole number from 1 to 999"),
        (["--seconds", "x"], "a whole number from 1 to 999"),
        (["--compare", "one.json"], "needs two files"),
    ],
)
def test_a_wrong_argument_is_named(arguments: list[str], complaint: str) -> None:
    done = bench(*arguments)

    assert done.returncode == 2
    assert complaint in done.stderr


# Figures --------------------------------------------------------------------------------------------------------------


def slice_of(cpu: float, others: float = 0.01) -> load.Slice:
    return load.Slice(100, cpu / 2, cpu / 4, cpu / 4, 500.0, 2.0, 9.0, others)


def run_with(shipped: list[float], baseline: list[float]) -> dict[str, Any]:
    results = {"list": {"shipped": [slice_of(cpu) for cpu in shipped], "baseline": [slice_of(cpu) for cpu in baseline]}}
    return {
        "mode": "load",
        "started": "2026-01-31T00:00:00+00:00",
        "rounds": len(shipped),
        "seconds": 1,
        "environment": {"processor": "one"},
        "summary": report.summarize(results),
    }


def test_ratios_are_of_medians() -> None:
    found = run_with([900, 1000, 5000], [8000, 7000, 90_000])["summary"]["list"]

    assert found["shipped"]["cpu"] == 1000
    assert found["shipped"]["ratio"] == 8.0
    assert found["shipped"]["requests"] == 300


@pytest.mark.parametrize(("second", "status"), [(1100, 0), (900, 0), (1250, 1), (800, 1)])
def test_two_runs_are_compared_by_their_ratios(second: float, status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.compare(run_with([1000], [8000]), run_with([second], [8000])) == status
    assert "list, shipped" in capsys.readouterr().out


def test_a_slower_machine_alone_is_no_difference() -> None:
    assert report.compare(run_with([1000], [8000]), run_with([2000], [16_000])) == 0


@pytest.mark.parametrize(("others", "warned"), [(0.02, False), (0.3, True)])
def test_a_run_that_others_have_disturbed_says_so(others: float, warned: bool) -> None:
    summary = report.summarize({"list": {"shipped": [slice_of(1000, others)]}})

    assert bool(report.warning(summary)) is warned


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ('{"time":"2026-01-31T00:00:00+00:00","path":"/x","status":201,"bytes_sent":9}', 201),
        ('127.0.0.1 - - [31/Jan/2026:00:00:00 +0000] "GET /x?\\x22 503 HTTP/1.1" 200 5 "-" "-" "-"', 200),
        ('127.0.0.1 - - [31/Jan/2026:00:00:00 +0000] "POST /x HTTP/1.1" 500 5 "-" "-" "-"', 500),
    ],
)
def test_the_status_of_every_request_is_read_from_the_access_log(tmp_path: Path, line: str, status: int) -> None:
    log = tmp_path / "access.log"
    log.write_text(f"what was there before\n{line}\n")

    assert load._statuses(log, len("what was there before\n")) == {status: 1}


def test_what_is_replaced_in_the_configuration_of_nginx_is_there_once() -> None:
    assert (ROOT / "nginx/snippets/upstream.conf").read_text().count(proxies.SERVER) == 1


@pytest.mark.parametrize(
    ("p50", "status", "expected"), [(1.5, 200, "yes"), (1.6, 200, "NO"), (1.0, 503, "NO")], ids=str
)
def test_growth_is_judged_by_the_largest_account(p50: float, status: int, expected: str) -> None:
    answers = [{"p50": 1.0, "status": 200}, {"p50": 9.0, "status": 200}, {"p50": p50, "status": status}]

    assert growth.verdict("list, page 1", answers).endswith(f": {expected}")


# The guard ------------------------------------------------------------------------------------------------------------


def committed() -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads(instructions.COMMITTED.read_text())
    return found


def test_the_committed_figures_are_those_of_the_hot_operations() -> None:
    assert set(committed()) == set(instructions.COUNTED)
    assert instructions.compare(committed()) == []


def test_a_ratio_that_got_worse_by_more_than_the_margin_is_named() -> None:
    figures = committed()
    figures["list"]["ratio"] *= 1 - instructions.MARGIN - 0.01
    figures["detail"]["ratio"] *= 1 - instructions.MARGIN + 0.01

    assert [line.partition(":")[0] for line in instructions.compare(figures)] == ["list"]


def test_one_more_statement_is_named() -> None:
    figures = committed()
    figures["create"]["statements"] += 1

    assert [line.partition(":")[0] for line in instructions.compare(figures)] == ["create"]


# The document ---------------------------------------------------------------------------------------------------------


def test_the_document_holds_every_ratio_and_its_target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(document, "DOCUMENT", tmp_path / "performance.md")
    monkeypatch.setattr(document, "PLOT", tmp_path / "performance.svg")

    document.write([run_with([1000], [8000])])

    text = (tmp_path / "performance.md").read_text()
    assert "| list | 8.00 | 1.00 | 6 | 8 |" in text
    assert "Not measured yet: `./scripts/bench --growth --output FILE`" in text
    drawn = ElementTree.parse(tmp_path / "performance.svg").getroot()  # noqa: S314 # it was just written
    assert len(drawn.findall("{http://www.w3.org/2000/svg}rect")) == 2


def test_the_committed_document_has_all_sections_and_its_plot() -> None:
    text = document.DOCUMENT.read_text()

    for heading in ("## Ratios", "## Growth", "## The stack", "## Reproduce it"):
        assert heading in text
    ElementTree.parse(document.PLOT)  # noqa: S314 # our own


@pytest.mark.parametrize(
    ("triplet", "loader"),
    [("x86_64-linux-gnu", "ld-linux-x86-64.so.2"), ("aarch64-linux-gnu", "ld-linux-aarch64.so.1")],
)
def test_a_program_that_was_unpacked_starts_with_the_loader_of_its_architecture(
    triplet: str, loader: str, tmp_path: Path
) -> None:
    libraries = tmp_path / "root/usr/lib" / triplet
    libraries.mkdir(parents=True)
    (libraries / loader).write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    (libraries / loader).chmod(0o755)
    wrap = re.search(r"(?ms)^wrap\(\) \{$.*?^\}$", (ROOT / "scripts/bench").read_text())
    assert wrap
    started = tmp_path / "started"

    subprocess.run(["bash", "-euc", f'{wrap[0]}\nwrap "$@"', "test", tmp_path, "/program", started], check=True)
    said = subprocess.run([started, "-v"], capture_output=True, text=True, check=True).stdout

    assert said == f"--library-path|{libraries}|--argv0|{started}|/program|-v|"
