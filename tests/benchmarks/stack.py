"""What the stack is besides its requests: the size of its image, how long it takes to start, what memory it holds.

In containers of its own, from a copy of the checkout; everything is removed afterwards.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.processes import BenchError, free_port, run
from tests.benchmarks.report import Verdict
from tests.benchmarks.setting import ROOT

SERVICES = ("db", "backend", "upkeep", "nginx")
IDLE_SECONDS = 20
BUILD_SECONDS = 900
TARGETS = {"image": 80.0, "up": 20.0, "memory": 400.0}
"""MB on top of the base image; seconds; MB."""

# Of each process, in kB, the shell's own aside: what is resident, and its proportional share of that. A page that
# several processes share counts once for each of them in the one, once in all in the other.
MEMORY = r"""for process in /proc/[0-9]*; do
  [ "$process" = "/proc/$$" ] || sed -nE 's/^(Rss|Pss): *([0-9]+) kB/\1 \2/p' "$process/smaps_rollup" 2>/dev/null
done"""


def measure_stack(work: Path, say: Callable[[str], None]) -> dict[str, object]:
    """Return the figures; raise ``BenchError`` where the stack does not start."""
    name = f"transactions-bench-{secrets.token_hex(4)}"
    checkout = work / "checkout"
    env = {
        **os.environ,
        "COMPOSE_PROJECT_NAME": name,
        "RELEASE": name,
        "HTTP_PORT": str(free_port()),
    }
    shutil.copytree(
        ROOT,
        checkout,
        symlinks=True,
        ignore=lambda folder, _: {"var", "secrets", ".env", ".git"} if folder == str(ROOT) else set(),
    )
    try:
        say("building the images")
        _run(["./scripts/up", "--detach"], checkout, env, seconds=BUILD_SECONDS)
        _run(["./scripts/down", "--volumes", "--yes"], checkout, env)
        say("starting with every image in the cache, on an empty volume")
        started = time.monotonic()
        _run(["./scripts/up", "--detach"], checkout, env, seconds=BUILD_SECONDS)
        seconds = time.monotonic() - started
        say(f"letting it idle for {IDLE_SECONDS} s")
        time.sleep(IDLE_SECONDS)
        memory = {service: _memory(service, checkout, env) for service in SERVICES}
        shares = {service: found["Pss"] for service, found in memory.items()}
        image = _above_base(f"transactions-backend:{name}", checkout, env)
    finally:
        say("removing it")
        subprocess.run(
            ["./scripts/down", "--volumes", "--yes"],
            cwd=checkout,
            env=env,
            check=False,
            capture_output=True,
            timeout=120,
        )
        images = [f"transactions-{part}:{name}" for part in ("backend", "nginx", "db")]
        subprocess.run(["docker", "image", "rm", "--force", *images], check=False, capture_output=True, timeout=120)
        shutil.rmtree(checkout, ignore_errors=True)
    return {
        "image": image,
        "up": seconds,
        "memory": sum(shares.values()),
        "memory_by_service": shares,
        "resident": sum(found["Rss"] for found in memory.values()),
    }


def _run(command: list[str], folder: Path, env: dict[str, str], *, seconds: float = 60) -> str:
    return run(command, cwd=folder, env=env, seconds=seconds)


def _memory(service: str, folder: Path, env: dict[str, str]) -> Counter[str]:
    """Return the MB of all processes of a service, by kind."""
    found: Counter[str] = Counter()
    for container in _run(["docker", "compose", "ps", "--quiet", service], folder, env).split():
        for line in _run(["docker", "exec", container, "sh", "-c", MEMORY], folder, env).splitlines():
            kind, number = line.split()
            found[kind] += int(number)
    return Counter({kind: round(number / 1024) for kind, number in found.items()})


def _above_base(image: str, folder: Path, env: dict[str, str]) -> float:
    command = ["docker", "history", "--no-trunc", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", image]
    total = 0
    for line in _run(command, folder, env).splitlines():
        size, _, made_by = line.partition(" ")
        total += int(size)
        # The first instruction of backend/Dockerfile.
        if re.match(r"ENV PATH=/opt/venv/bin", made_by):
            return total / 1e6
    raise BenchError(f"backend/Dockerfile is not in the history of {image}")


def verdicts(figures: Mapping[str, Any]) -> list[Verdict]:
    """Return every target."""
    image, up, memory = (figures[name] for name in TARGETS)
    return [
        Verdict(
            "backend image on top of its base",
            f"at most {TARGETS['image']:.0f} MB",
            f"{image:.1f} MB",
            image <= TARGETS["image"],
        ),
        Verdict(
            "`./scripts/up`, images in the cache, empty volume",
            f"under {TARGETS['up']:.0f} s",
            f"{up:.1f} s",
            up < TARGETS["up"],
        ),
        Verdict(
            "memory of the idle stack, shared pages once (PSS)",
            f"under {TARGETS['memory']:.0f} MB",
            f"{memory:.0f} MB",
            memory < TARGETS["memory"],
        ),
    ]


def by_service(figures: Mapping[str, Any]) -> str:
    """Say how the memory is made up."""
    parts = ", ".join(f"{name} {value:.0f}" for name, value in figures["memory_by_service"].items())
    resident = f"{figures['resident']:.0f} MB"
    return f"By service, PSS in MB: {parts}. RSS, in which each process counts shared pages again: {resident}."


def lines(figures: Mapping[str, Any]) -> str:
    """Return the figures as text, each with its target."""
    return "\n".join([*map(str, verdicts(figures)), by_service(figures)])
