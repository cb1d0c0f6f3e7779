"""Deployments: whether the last one came to its end."""

from __future__ import annotations

import fcntl
from pathlib import Path

from scripts.diagnosis.findings import Finding, Findings, NotSeen, listed, ok, problem
from scripts.diagnosis.installation import Installation

HISTORY = "var/releases.log"
LOCK = "var/deploy.lock"
LABEL = "transactions.deployment"
"""docker-compose.yml gives it to each backend."""


def deployment(installation: Installation) -> Findings:
    """Look for what ./scripts/deploy leaves when it is killed."""
    process = holder(installation.root / LOCK)
    if process:
        yield ok(
            "deployment",
            f"The containers are being changed by process {process}; the lines below change with them.",
        )
        return
    try:
        lines = (installation.root / HISTORY).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []  # nothing was ever deployed
    last = lines[-1] if lines else ""
    try:
        numbers = {item.about["Config"]["Labels"].get(LABEL, "0") for item in installation.all_of("backend")}
    except NotSeen:
        if last and not last.endswith("\tstarted"):
            raise
        numbers = set()
    yield judge_deployment(last, numbers)


def holder(lock: Path) -> str:
    """Return the process that holds the lock of deployments and rotations, or nothing where none does any more."""
    try:
        with lock.open("rb") as file:
            # Shared and given back at once.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        process = lock.read_text().strip()
        # What a killed one has started may hold the lock for it.
        return process if process.isdigit() and Path(f"/proc/{process}").exists() else ""
    except OSError:
        pass
    return ""


def judge_deployment(last: str, numbers: set[str]) -> Finding:
    """Judge the last line of the history and the numbers of the deployments that there are backends of."""
    _when, action, _number, release, outcome = (*last.split("\t"), *[""] * 5)[:5]
    # The same release, whatever the checkout holds by now; one that is in service is only cleared up after.
    again = f"./scripts/deploy {release}".strip()
    if outcome == "started":
        what, mend = ("rollback", "./scripts/rollback") if action == "rollback" else ("deployment", again)
        message = f"The {what} of release {release} was interrupted: it is not said to be in service."
        return problem("deployment", message, mend)
    if len(numbers) > 1:
        message = f"Backends of {len(numbers)} deployments are there ({listed(numbers)}): one was interrupted."
        return problem(
            "deployment",
            message,
            again if outcome.startswith("in service") else "./scripts/deploy",
        )
    return ok("deployment", "No deployment was interrupted.")
