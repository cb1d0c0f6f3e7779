"""./scripts/bench: it runs to its end, and what it makes of figures is right."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.benchmarks import document, growth, instructions, load, processes, proxies, report, variants
from tests.benchmarks.__main__ import can_stay, longest, parse
from tests.benchmarks.processes import BenchError
from tests.benchmarks.setting import Setting
from tests.deployment.conftest import ROOT


def bench(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["./scripts/bench", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=timeout
    )


def addresses_listened_on() -> set[tuple[str, str]]:
    """Return the folders in which this run's programs listen on TCP, each with the address."""
    sockets = {
        fields[9]: ip_address(
            b"".join(bytes.fromhex(word)[::-1] for word in re.findall(".{8}", fields[1].split(":")[0]))
        )
        for table in ("tcp", "tcp6")
        for fields in map(str.split, Path("/proc/net", table).read_text().splitlines()[1:])
        if fields[3] == "0A"  # listening: include/net/tcp_states.h
    }
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        # Of one that has just ended nothing can be read.
        with contextlib.suppress(OSError):
            # By where they work: nginx and PostgreSQL overwrite what else there is to know them by.
            folder = (process / "cwd").readlink()
            if not any(folder.is_relative_to(ROOT / part) for part in ("var/bench", "backend", "tests/benchmarks")):
                continue
            inodes = [re.findall(r"^socket:\[([0-9]+)\]$", str(link.readlink())) for link in (process / "fd").iterdir()]
            name = str(folder.relative_to(ROOT))
            found |= {(name, str(sockets[inode])) for [inode] in filter(None, inodes) if inode in sockets}
    return found


# One run --------------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(400)
def test_a_quick_run_of_two_variants_and_two_operations_runs_to_its_end(tmp_path: Path) -> None:
    output = tmp_path / "run.json"
    options = ["--load", "--quick", "--rounds", "1", "--variants", "shipped,baseline", "--operations", "list,refresh"]

    listening: set[tuple[str, str]] = set()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(bench, *options, "--output", str(output), timeout=390)
        while wait([running], timeout=2).not_done:
            listening |= addresses_listened_on()
    done = running.result()

    if "could not be had" in done.stderr and os.environ.get("CI") != "true":
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
    assert found["asked"] == {"quick": True, "rounds": 1, "seconds": 1}
    assert found["environment"]["commit"] == report.commit()
    assert re.search(r"(?m)^list: .*at least 6 times cheaper \(aim: 8\)$", done.stdout)
    assert re.search(
        r"(?m)^  list, beside baseline: [0-9.]+ times cheaper \(wanted: at least 6 times cheaper\): (yes|NO)$",
        done.stdout,
    )
    assert re.search(r"(?m)^  shipped +\d", done.stdout)
    assert "\x1b" not in done.stderr, "no terminal, no bar"
    assert {address for _, address in listening} == {"127.0.0.1"}
    databases, nginx = {"var/bench/postgres/18"}, {"var/bench/run/shipped/root", "var/bench/run/baseline/nginx"}
    applications = {"backend", "tests/benchmarks/baseline"}
    assert {folder for folder, _ in listening} >= databases | nginx | applications


def test_on_a_terminal_there_is_a_bar() -> None:
    code = "from tests.benchmarks.__main__ import Progress as P; p = P(2); p.step('one'); p.step('two'); p.end()"
    terminal, its_end = pty.openpty()

    subprocess.run([sys.executable, "-c", code], cwd=ROOT, stderr=its_end, check=True, timeout=20)

    seen = os.read(terminal, 4096).decode()
    os.close(terminal)
    os.close(its_end)
    half, whole = f"[{'#' * 15}{' ' * 15}] one", f"[{'#' * 30}] two"
    assert seen == f"\r\x1b[K{half}\r\x1b[K{whole}\r\x1b[K"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--load", "--variants", "shipped,flask"], "there is no flask"),
        (["--operations", "list,delete"], "there is no delete"),
        (["--rounds", "0"], "a whole number from 1 to 999"),
        (["--seconds", "x"], "a whole number from 1 to 999"),
        (["--compare", "one.json"], "needs two files"),
        (["--operations", "list"], "--operations goes with a part alone"),
        (["--output", "x.json"], "--output goes with a part alone"),
        (["--load", "--resume"], "--resume goes with the complete run"),
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
        "asked": {"quick": False, "rounds": len(shipped), "seconds": 1},
        "environment": {"processor": "one", "cores": "2", "commit": "abc1234"},
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
    assert "list: shipped to baseline" in capsys.readouterr().out


def test_a_slower_machine_alone_is_no_difference() -> None:
    assert report.compare(run_with([1000], [8000]), run_with([2000], [16_000])) == 0


def with_peer(cpu: float) -> dict[str, Any]:
    results = {
        "list": {
            name: [slice_of(each)] for name, each in (("shipped", 1000), ("baseline", 8000), ("django-ninja", cpu))
        }
    }
    return {**run_with([1000], [8000]), "summary": report.summarize(results)}


def test_ratios_to_peers_are_compared_too() -> None:
    found = report.differences(with_peer(2000), with_peer(1500))

    assert [row.what for row in found if row.mark] == [
        "list: django-ninja to baseline",
        "list: shipped to django-ninja",
    ]


@pytest.mark.parametrize("operation", ["list", "detail"])
def test_runs_that_have_not_measured_the_same_are_not_compared(operation: str) -> None:
    other = with_peer(2000)
    other["summary"] = {operation: other["summary"]["list"]}

    with pytest.raises(BenchError, match="not measured the same"):
        report.compare(run_with([1000], [8000]), other)


def test_runs_without_a_ratio_are_not_compared() -> None:
    alone = {**run_with([1000], [8000]), "summary": report.summarize({"list": {"shipped": [slice_of(1000)]}})}

    with pytest.raises(BenchError, match="no ratio"):
        report.compare(alone, alone)


@pytest.mark.parametrize(
    ("shipped", "expected"), [(1000, [True, True]), (1500, [False, False]), (1200, [True, False])], ids=str
)
def test_every_target_has_a_verdict(shipped: float, expected: list[bool]) -> None:
    results = {"list": {"shipped": shipped, "baseline": 8000, "django-ninja": 2100}}
    summary = report.summarize({name: {v: [slice_of(cpu)] for v, cpu in row.items()} for name, row in results.items()})

    assert [found.holds for found in report.verdicts(summary)] == expected
    for found in report.verdicts(summary):
        assert f"  {found}\n" in report.table(summary)


@pytest.mark.parametrize(("peer", "holds"), [(1200, True), (960, True), (940, False)])
def test_this_stack_is_level_with_a_peer_where_it_is_hardly_dearer(peer: float, holds: bool) -> None:
    results = {"list": {"shipped": 1000, "fastapi-asyncpg": peer}}
    summary = report.summarize({name: {v: [slice_of(cpu)] for v, cpu in row.items()} for name, row in results.items()})

    (found,) = report.verdicts(summary)

    assert found.holds is holds
    assert "level" in found.wanted


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
    ("p50", "status", "expected"),
    [
        ([1.0, 1.5, 1.2, 1.3], 200, True),
        ([1.0, 1.1, 1.2, 1.6], 200, False),
        ([1.0, 9.0, 1.5, 1.0], 200, False),
        ([1.6, 1.0, 1.0, 1.0], 200, False),
        ([1.0, 1.0, 1.0, 1.0], 503, False),
    ],
    ids=str,
)
def test_growth_is_judged_by_the_slowest_and_the_quickest_account(
    p50: list[float], status: int, expected: bool
) -> None:
    answers = [{"p50": each, "status": 200.0} for each in p50]
    answers[1]["status"] = status

    found = growth.verdict("list, page 1", answers)

    assert found is not None
    assert found.holds is expected
    assert growth.target("list, page 1", answers).endswith(": yes" if expected else ": NO")


@pytest.mark.parametrize(("largest", "expected"), [(5.0, True), (5.1, False)])
def test_a_search_is_judged_in_the_largest_ledger(largest: float, expected: bool) -> None:
    found = growth.verdict("?search= absent", [{"p50": 9.0, "status": 200}, {"p50": largest, "status": 200}])

    assert found is not None
    assert found.holds is expected


# Bounds ---------------------------------------------------------------------------------------------------------------


def test_what_takes_too_long_is_ended_with_what_it_has_started() -> None:
    code = """if True:
        import subprocess
        from tests.benchmarks.processes import BenchError, bounded
        try:
            with bounded(0.5):
                subprocess.run(["sleep", "60"])
        except BenchError as error:
            print(error)
    """

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20
    )

    assert done.stdout == "it has not ended within 0 minutes\n"


def test_a_program_that_hangs_fails_the_run(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"sleep 60 has not ended within 0\.2 s"):
        processes.run(["sleep", "60"], env=dict(os.environ), cwd=tmp_path, seconds=0.2)


def test_a_valgrind_that_hangs_fails_the_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "SECONDS", 0.2)
    for program in ("valgrind", "postgres_superuser_password"):
        (tmp_path / program).write_text("#!/bin/sh\nexec sleep 60\n")
        (tmp_path / program).chmod(0o755)
    none = Path()
    setting = Setting(tmp_path, none, none, none, none, host="", port="", passwords=tmp_path)
    variant = variants.Baseline(setting, processes.Programs(tmp_path))
    guest = instructions.Guest(setting, variant, tmp_path / "valgrind")
    try:
        with pytest.raises(BenchError, match="no answer under valgrind"):
            guest.answer(load.OPERATIONS["list"], [variants.Tokens(1, "", "")])
    finally:
        guest.stop()


@pytest.mark.parametrize("mode", ["load", "growth", "stack", "instructions"])
def test_every_part_has_an_end(mode: str) -> None:
    options = parse([mode, "--work", "x"])

    assert 200 < longest(options) <= 1900


# The complete run -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("then", "now", "rounds", "stays"),
    [
        ("abc1234", "abc1234", 5, True),
        ("abc1234", "def5678", 5, False),
        ("abc1234", "abc1234", 3, False),
        # What no commit tells apart is measured again.
        ("abc1234+", "abc1234+", 5, False),
        ("unknown", "unknown", 5, False),
    ],
)
def test_a_resumed_run_keeps_what_was_measured_by_the_same_code_and_as_long(
    tmp_path: Path, then: str, now: str, rounds: int, stays: bool
) -> None:
    measured = run_with([1000] * 5, [8000] * 5)
    measured["environment"]["commit"] = then
    output = tmp_path / "load.json"
    output.write_text(json.dumps(measured))

    assert can_stay(output, now, {"quick": False, "rounds": rounds, "seconds": 1}) is stays
    assert not can_stay(tmp_path / "none.json", now, {})


# The guard ------------------------------------------------------------------------------------------------------------


def committed() -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads(instructions.COMMITTED.read_text())["operations"]
    return found


def named(figures: dict[str, dict[str, float]], *, python: str = "another") -> list[str]:
    """Return the operations that are complained of."""
    return [line.partition(":")[0] for line in instructions.compare(figures, python=python)]


def test_the_committed_figures_are_those_of_the_hot_operations() -> None:
    assert set(committed()) == set(instructions.COUNTED) == set(load.OPERATIONS)
    assert instructions.compare(committed()) == []


@pytest.mark.parametrize("sign", [1, -1], ids=["better", "worse"])
def test_a_ratio_that_moved_by_more_than_the_margin_is_named(sign: int) -> None:
    figures = committed()
    figures["list"]["ratio"] *= 1 + sign * (instructions.MARGIN + 0.01)
    figures["detail"]["ratio"] *= 1 + sign * (instructions.MARGIN - 0.01)

    assert named(figures) == ["list"]


@pytest.mark.parametrize("sign", [1, -1], ids=["more", "fewer"])
def test_what_changes_both_sides_is_named_where_the_same_python_is_at_work(sign: int) -> None:
    figures = committed()
    figures["login"]["shipped"] *= 1 + sign * (instructions.MARGIN + 0.01)
    python = json.loads(instructions.COMMITTED.read_text())["python"]

    assert named(figures, python=python) == ["login"]
    assert named(figures, python=f"{python}, built once more") == []


def test_one_more_statement_is_named() -> None:
    figures = committed()
    figures["create"]["statements"] += 1

    assert named(figures) == ["create"]


# The document ---------------------------------------------------------------------------------------------------------


def answer_of(p50: float) -> dict[str, float]:
    return {"p50": p50, "quarter": p50 - 0.1, "three_quarters": p50 + 0.3, "status": 200}


GROWTH = {
    "mode": "growth",
    "started": "2026-01-31T01:00:00+00:00",
    "asked": {"quick": False, "rounds": 5, "seconds": 2},
    "environment": {"processor": "one", "cores": "2", "commit": "abc1234"},
    "growth": {
        "sizes": [1000, 3000000],
        "others": 20000,
        "rows_of_others": 100,
        "indexes": {"an_index": 1000000},
        "answers": {
            "list, page 1": [answer_of(1.0), answer_of(1.2)],
            "?cursor=, page 1": [answer_of(1.0), answer_of(1.0)],
            "?cursor= at the middle": [answer_of(1.5), answer_of(1.5)],
            "?cursor= near the end": [answer_of(2.3), answer_of(2.3)],
            "?search= absent": [answer_of(1.0), answer_of(7.0)],
        },
    },
}
STACK = {
    **GROWTH,
    "mode": "stack",
    "stack": {"image": 65.2, "up": 8.1, "memory": 292.0, "memory_by_service": {"db": 292.0}, "resident": 412.0},
}


def test_the_document_holds_every_ratio_and_its_target(tmp_path: Path) -> None:
    verdicts = document.write([run_with([1000], [8000])], tmp_path)

    text = (tmp_path / "performance.md").read_text()
    assert "| list | 8.00 | 1.00 | 6: yes | 8 |" in text
    assert "All 1 targets hold." in text
    assert [found.holds for found in verdicts] == [True]
    assert "Not measured yet: `./scripts/bench` does, or `./scripts/bench --growth --output FILE`" in text
    drawn = ElementTree.parse(tmp_path / "performance.svg").getroot()  # noqa: S314 # it was just written
    assert len(drawn.findall("{http://www.w3.org/2000/svg}rect")) == 2


def test_the_document_names_the_commit_of_every_section_and_what_was_missed(tmp_path: Path) -> None:
    second = {**run_with([1250], [8000]), "started": "2026-01-31T02:00:00+00:00"}

    verdicts = document.write([second, run_with([1000], [8000]), GROWTH, STACK], tmp_path)

    text = (tmp_path / "performance.md").read_text()
    assert "Not measured" not in text
    assert text.count(" UTC, at commit abc1234, one, 2 cores.") == 4
    assert "| list: shipped to baseline | 8.00 | 6.40 | -20.0% | more than they may |" in text
    assert "3 of 11 targets are missed" in text
    assert [found.what for found in verdicts if not found.holds] == [
        "every ratio in a second run",
        "?search= absent",
        "?cursor= at any depth, of any account",
    ]
    assert "| ?search= absent | 1.0 | 7.0 | 6.9 to 7.3 | 7.00 | at most 5 ms: NO |" in text
    assert "?cursor= at any depth, of any account: 1.53 (wanted: ratio at most 1.5): NO.\n" in text
    assert "| backend image on top of its base | 65.2 MB | at most 80 MB: yes |" in text
    assert "again: 412 MB" in text


@pytest.mark.parametrize(
    ("commits", "quick", "complaint"),
    [
        (("abc1234", "def5678"), False, "several commits: abc1234, def5678"),
        (("abc1234+", "abc1234+"), False, "changes that are in no commit"),
        (("abc1234", "abc1234"), True, "not for what --quick has measured"),
    ],
)
def test_what_nobody_can_repeat_is_not_committed(commits: tuple[str, str], quick: bool, complaint: str) -> None:
    files = [
        {
            **run,
            "environment": {**run["environment"], "commit": commit},
            "asked": {**run["asked"], "quick": quick},
        }
        for run, commit in zip((run_with([1000], [8000]), GROWTH), commits, strict=True)
    ]
    before = (document.FOLDER / document.TEXT).read_text()

    with pytest.raises(BenchError, match=complaint):
        document.write(files)

    assert (document.FOLDER / document.TEXT).read_text() == before


def test_the_committed_document_has_all_sections_and_its_plot() -> None:
    text = (document.FOLDER / document.TEXT).read_text()

    for heading in ("## Ratios", "## A second run", "## Growth", "## The stack", "## Reproduce it"):
        assert heading in text
    assert "Not measured yet" not in text
    ElementTree.parse(document.FOLDER / document.PLOT)  # noqa: S314 # our own


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
