"""The checks, one after the other, and their findings as text or JSON."""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from scripts.diagnosis import configuration, containers, database, deployment, host, proxy
from scripts.diagnosis.bundle import Bundle
from scripts.diagnosis.findings import FORMAT, Finding, Findings, Level, NotSeen, unknown
from scripts.diagnosis.installation import Installation

Check = Callable[[Installation], Findings]

CHECKS: dict[str, Check] = {
    "engine": containers.engine,
    "disk": host.disk,
    "memory": host.memory,
    "permissions": host.permissions,
    "variables": configuration.variables,
    "values": configuration.values,
    "certificate": configuration.certificate,
    "ports": containers.ports,
    "embedded": host.embedded,
    "deployment": deployment.deployment,
    "containers": containers.containers,
    "images": containers.images,
    "applied": containers.applied,
    "dns": containers.names,
    "clock": host.clock,
    "volume": database.volume,
    "postgres": database.release,
    "durability": database.durability,
    "connections": database.connections,
    "migrations": database.migrations,
    "api": proxy.api,
    "proxy": proxy.proxy,
}
"""From causes to consequences: who mends the first problem may have mended the others."""

CHECK_SECONDS = 60
TOTAL_SECONDS = 150


def examine(installation: Installation, checks: dict[str, Check] = CHECKS) -> list[Finding]:
    """Run every check; none may raise, and none may keep the others waiting for long."""
    findings: list[Finding] = []
    deadline = time.monotonic() + TOTAL_SECONDS
    for name, check in checks.items():
        left = min(CHECK_SECONDS, deadline - time.monotonic())
        if left <= 0:
            findings.append(unknown(name, "the checks before it took too long"))
            continue
        findings += bounded(name, check, installation, left)
    return findings


def bounded(name: str, check: Check, installation: Installation, seconds: float) -> list[Finding]:
    """Return what a check finds in so many seconds, and what kept it from finding more."""
    found: list[Finding] = []
    ended: list[Finding] = []

    def work() -> None:
        try:
            # One by one: what was found before it failed stays found.
            found.extend(check(installation))
        except NotSeen as reason:
            ended.append(unknown(name, str(reason)))
        except Exception as error:
            ended.append(unknown(name, f"the check failed ({type(error).__name__}: {error})"))

    # A thread, because a file system that is away keeps even a look at it waiting; a daemon, so as not to wait for it.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        ended.append(unknown(name, f"it did not end within {seconds:.0f} s"))
    return [*found, *ended]


def as_text(findings: list[Finding]) -> str:
    """Return the findings as a person reads them."""
    width = max(len(finding.id) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.level:<8} {finding.id:<{width}}  {finding.message}")
        if finding.mend:
            lines.append(f"{'':<8} {'':<{width}}  mend: {finding.mend}")
    counts = {level: sum(finding.level is level for finding in findings) for level in Level}
    lines += [
        "",
        f"{counts[Level.PROBLEM]} problems, {counts[Level.WARNING]} warnings, {counts[Level.OK]} ok,"
        f" {counts[Level.UNKNOWN]} not looked at.",
    ]
    if counts[Level.PROBLEM] + counts[Level.WARNING]:
        lines.append("Mend from the top: what comes first is often the cause of what follows.")
    return "\n".join(lines) + "\n"


def as_json(installation: Installation, findings: list[Finding]) -> str:
    """Return the findings as a program reads them."""
    report = {
        "format": FORMAT,
        "project": installation.title(),
        "checked_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "findings": [finding.as_dict() for finding in findings],
    }
    return json.dumps(report, indent=2) + "\n"


def main() -> int:
    """Examine this checkout, and say it; scripts/doctor has checked the arguments."""
    parser = argparse.ArgumentParser(prog="doctor")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--bundle", nargs="?", type=Path, const=Path())
    options = parser.parse_args()

    installation = Installation()
    findings = examine(installation)
    if options.bundle is not None:
        return Bundle(installation, as_json(installation, findings)).write(options.bundle)
    sys.stdout.write(as_json(installation, findings) if options.json else as_text(findings))
    return int(any(finding.level is Level.PROBLEM for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
