"""Workflows: what they may do, and what they run is pinned."""

import re
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deployment.conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.y*ml"))


def load(path: Path) -> dict[Any, Any]:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


def named(path: Path) -> str:
    return path.name


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in load(path)["jobs"].values() for step in job.get("steps", [])]


def test_there_is_a_workflow() -> None:
    assert "ci.yml" in [path.name for path in WORKFLOWS]


@pytest.mark.parametrize("path", WORKFLOWS, ids=named)
def test_every_action_is_pinned_to_a_commit_and_says_which_release_that_is(path: Path) -> None:
    uses = re.findall(r"uses:\s*(.+)$", path.read_text(), re.MULTILINE)

    assert uses
    for used in uses:
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v[0-9.]+", used), used


@pytest.mark.parametrize("path", WORKFLOWS, ids=named)
def test_workflow_may_do_no_more_than_read_the_code(path: Path) -> None:
    workflow = load(path)

    assert workflow["permissions"] in ({}, {"contents": "read"})
    for name, job in workflow["jobs"].items():
        assert job.get("permissions", {}) in ({}, {"contents": "read"}), name


@pytest.mark.parametrize("path", WORKFLOWS, ids=named)
def test_workflow_never_runs_a_strangers_code_with_rights(path: Path) -> None:
    triggers = load(path)[True]  # YAML 1.1 takes the word `on` for a boolean

    assert not {"pull_request_target", "workflow_run", "issue_comment"} & set(triggers)
    assert "secrets." not in path.read_text()


@pytest.mark.parametrize("path", WORKFLOWS, ids=named)
def test_checkout_leaves_no_credentials_behind(path: Path) -> None:
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=named)
def test_every_job_has_an_end_and_a_runner_of_a_known_release(path: Path) -> None:
    for name, job in load(path)["jobs"].items():
        assert 0 < job["timeout-minutes"] <= 60, name
        assert re.fullmatch(r"[a-z]+-[0-9.]+(-arm)?", job["runs-on"]), name


def test_ci_runs_every_suite() -> None:
    jobs = load(ROOT / ".github/workflows/ci.yml")["jobs"]
    commands = " ".join(step.get("run", "") for name in jobs if name != "bench" for step in jobs[name]["steps"])
    ran = " ".join(re.findall(r"\./scripts/test((?: [a-z]+)+)", commands)).split()
    suites = re.findall(r"^readonly (?:LONG_)?SUITES=\((.+)\)$", (ROOT / "scripts/test").read_text(), re.MULTILINE)

    assert sorted(ran) == sorted(" ".join(suites).split())
    folders = {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")}
    assert folders == {*ran} - {"lint", "cost"}


def test_a_long_suite_has_a_job_and_the_longest_time_to_itself() -> None:
    jobs = load(ROOT / ".github/workflows/ci.yml")["jobs"].values()
    (suites,) = re.findall(r"^readonly LONG_SUITES=\((.+)\)$", (ROOT / "scripts/test").read_text(), re.MULTILINE)

    for suite in suites.split():
        (job,) = (job for job in jobs if any(suite in step.get("run", "").split() for step in job["steps"]))
        assert [step["run"] for step in job["steps"] if "run" in step] == [f"./scripts/test {suite}"]
        assert job["timeout-minutes"] == 60


@pytest.mark.parametrize("path", WORKFLOWS, ids=named)
def test_every_job_that_runs_a_suite_keeps_the_logs_of_a_failure(path: Path) -> None:
    testing = [
        job["steps"]
        for job in load(path)["jobs"].values()
        if any("./scripts/test" in step.get("run", "") for step in job["steps"])
    ]

    assert testing
    kept = [job[-1] for job in testing]  # the last step: what fails after it would not be kept
    for step in kept:
        assert step.get("uses", "").startswith("actions/upload-artifact@"), step
        assert step["if"] == "failure()"
        assert step["with"]["path"] == "var/log"
    # A second artefact of the same name is refused: the logs of one of two failed jobs would be missing.
    names = [step["with"]["name"] for step in kept]
    assert len({*names}) == len(names)


def test_a_scheduled_workflow_deploys_rolls_back_and_kills_as_often_as_was_promised() -> None:
    path = ROOT / ".github/workflows/deployments.yml"
    (command,) = (step["run"] for step in steps(path) if "run" in step)

    assert "schedule" in load(path)[True]
    chosen = re.fullmatch(r'DEPLOYS=20 ROLLBACKS=5 KILLS=10 ./scripts/test deploy -- -k "(.+)"', command)
    assert chosen
    tests = re.findall(r"^def (test_\w+)", (ROOT / "tests/deploy/test_deploy.py").read_text(), re.MULTILINE)
    for word, name in zip(
        chosen[1].split(" or "),
        (
            "test_deployments_and_rollbacks_drop_no_request",
            "test_a_deployment_that_is_killed_leaves_the_release_before_in_service_and_the_next_one_succeeds",
        ),
        strict=True,
    ):
        assert [test for test in tests if word in test] == [name]
    for document in ("docs/runbook.md", ".github/CONTRIBUTING.md"):
        assert "deployments.yml" in (ROOT / document).read_text(), document


def test_what_ubuntu_has_no_programs_for_runs_in_a_job_of_its_own() -> None:
    jobs = load(ROOT / ".github/workflows/ci.yml")["jobs"]
    tests = (ROOT / "tests/deployment/test_bench.py").read_text()

    left_out = [step["run"] for step in jobs["lint"]["steps"] if " -k " in step.get("run", "")]
    bench = [step for step in jobs["bench"]["steps"] if step.get("run", "").startswith("./scripts")]

    assert left_out == ['./scripts/test lint deployment -- -k "not quick_run"']
    assert len(re.findall(r"def test_\w*quick_run", tests)) == 1
    assert [step["run"] for step in bench] == [
        "./scripts/test deployment -- -k quick_run",
        "./scripts/bench --load --quick",
    ]
    # Every variant and operation, once a week: what they are compared with changes with its lock file alone.
    assert [step.get("if") for step in bench] == [None, "github.event_name == 'schedule'"]


def test_ci_compares_what_a_pull_request_makes_of_the_api_with_what_its_clients_know() -> None:
    jobs = load(ROOT / ".github/workflows/ci.yml")["jobs"].values()

    (job,) = (job for job in jobs if any("compare-api" in step.get("run", "") for step in job["steps"]))

    assert job["if"] == "github.event_name == 'pull_request'"
    checkout, compare = job["steps"]
    assert checkout["uses"].startswith("actions/checkout@")
    # The merge commit and its first parent, which is the branch as it is.
    assert checkout["with"]["fetch-depth"] == 2
    assert compare == {"run": "./scripts/compare-api HEAD^1"}
    assert "pull_request" in load(ROOT / ".github/workflows/ci.yml")[True]


@pytest.mark.parametrize("path", WORKFLOWS, ids=named)
def test_no_job_or_step_may_fail_unseen(path: Path) -> None:
    for job in load(path)["jobs"].values():
        assert not [part for part in (job, *job["steps"]) if "continue-on-error" in part]
        assert not [step for step in job["steps"] if re.search(r"\|\| *(true|:)", step.get("run", ""))]


def zizmor(path: Path) -> "subprocess.CompletedProcess[str]":
    program = Path(sys.executable).with_name("zizmor")
    command = [str(program), "--offline", "--no-progress", "--strict-collection", str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_zizmor_finds_nothing() -> None:
    done = zizmor(ROOT / ".github/workflows")

    assert done.returncode == 0, done.stdout


def test_zizmor_can_find_something(tmp_path: Path) -> None:
    (tmp_path / ".github/workflows").mkdir(parents=True)
    bad = tmp_path / ".github/workflows/bad.yml"
    bad.write_text(
        "on: pull_request_target\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n"
        "      - uses: actions/checkout@v4\n      - run: echo ${{ github.event.pull_request.title }}\n"
    )

    assert zizmor(bad).returncode != 0


# The other files in .github -------------------------------------------------------------------------------------------


def test_what_is_pinned_is_kept_fresh_everywhere(tracked: list[Path]) -> None:
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
    proposed = {update["package-ecosystem"]: update.get("directories", [update.get("directory")]) for update in updates}

    for ecosystem, pattern in {"pip": "requirements*.txt", "npm": "package-lock.json", "docker": "Dockerfile"}.items():
        folders = {f"/{path.parent.relative_to(ROOT)}" for path in tracked if path.match(pattern)}
        missing = {folder for folder in folders if not any(fnmatch(folder, given) for given in proposed[ecosystem])}
        assert folders
        assert missing == set(), ecosystem


def test_every_owner_is_a_team_of_an_organisation() -> None:
    lines = (ROOT / ".github/CODEOWNERS").read_text().splitlines()
    owners = [owner for line in lines if not line.startswith("#") for owner in line.split()[1:]]

    assert owners
    assert [owner for owner in owners if not re.fullmatch(r"@[\w-]+/[\w-]+", owner)] == []
