"""The schema and the API say the same: schemathesis asks every operation, within the schema and beyond it.

``CONTRACT_EXAMPLES`` (100) is how many random requests each operation gets, ``CONTRACT_SEED`` which ones. A failure
prints both, and the request as a curl command. With 100 it takes about a minute and a half.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
EXAMPLES = int(os.environ.get("CONTRACT_EXAMPLES", "100"))
SEED = int(os.environ.get("CONTRACT_SEED", "20260131"))
LONGEST = 120 + 6 * EXAMPLES
"""Seconds; the tool's own requests have a limit of 10 each."""

pytestmark = pytest.mark.timeout(LONGEST + 30)

PHASES = {"examples", "coverage", "fuzzing", "stateful"}
UNREACHABLE: set[str] = set()
"""Operations of which no sound request can succeed in this stack; there is none."""


@dataclass(frozen=True)
class Run:
    """What schemathesis found."""

    report: dict[str, Any]
    output: str


@pytest.fixture(scope="module")
def run(base_url: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run schemathesis once, with nothing of the caller's configuration but where it is."""
    folder = tmp_path_factory.mktemp("schemathesis")
    report = folder / "report.json"
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        *("--config-file", str(HERE / "schemathesis.toml"), "run", f"{base_url}/api/schema/?format=json"),
        *("--url", base_url, "--seed", str(SEED), "--max-examples", str(EXAMPLES), "--checks", "all"),
        *("--phases", ",".join(sorted(PHASES)), "--request-timeout", "10"),
        *("--report", "json", "--report-json-path", str(report), "--no-color"),
    ]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(HERE.parents[1]),
        "SCHEMATHESIS_HOOKS": "tests.stack.schemathesis_hooks",
        "CONTRACT_BASE_URL": base_url,
        "NO_PROXY": "*",
    }
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=folder, env=environment, timeout=LONGEST
    )
    if not report.exists():
        pytest.fail(f"schemathesis made no report:\n{done.stdout}{done.stderr}", pytrace=False)
    found = Run(json.loads(report.read_text()), done.stdout + done.stderr)
    cases = found.report["test_cases"]["generated"]
    print(f"\nschemathesis: seed {SEED}, {EXAMPLES} examples, {cases} cases, {found.report['running_time']:.0f} s")
    return found


def test_no_operation_departs_from_the_schema(run: Run) -> None:
    assert run.report["exit_code"] == 0, run.output
    assert run.report["failures"] == [], run.output
    assert run.report["errors"] == [], run.output


def test_every_operation_was_asked_in_every_phase(run: Run) -> None:
    operations = run.report["operations"]

    assert run.report["complete"] is True
    assert operations["tested"] == operations["total"] > 0
    assert {name for name, phase in run.report["phases"].items() if phase["status"] == "success"} == PHASES


def test_every_operation_was_seen_to_succeed(run: Run) -> None:
    """Where every request is refused, hardly a check has anything to look at."""
    succeeded = {
        operation
        for operation, phases in run.report["valid_rates"].items()
        if any(rate["accepted"] for rate in phases.values())
    }
    asked = set(run.report["valid_rates"])

    assert asked - succeeded == UNREACHABLE
    assert len(asked) == run.report["operations"]["total"]


def test_schemathesis_has_no_doubt_about_its_own_run(run: Run) -> None:
    assert {kind: found for kind, found in run.report["warnings"].items() if found} == {}
    assert run.report["auth"]["reauth_broke"] is False
