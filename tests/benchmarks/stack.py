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
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.processes import BenchError, free_port
from tests.benchmarks.setting import ROOT

SERVICES = ("db", "backend", "upkeep", "nginx")
IDLE_SECONDS = 20
TARGETS = {"image": 80.0, "up": 20.0, "memory": 400.0}
"""MB on top of the base image; seconds; MB."""

# The proportional share of each process, in kB, the shell's own aside: a page that several share counts once.
MEMORY = r"""for process in /proc/[0-9]*; do
  [ "$process" = "/proc/$$" ] || sed -n 's/^Pss: *\([0-9]*\) kB/\1/p' "$process/smaps_rollup" 2>/dev/null
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
        _run(["./scripts/up", "--detach"], checkout, env)
        _run(["./scripts/down", "--volumes", "--yes"], checkout, env)
        say("starting with every image in the cache, on an empty volume")
        started = time.monotonic()
        _run(["./scripts/up", "--detach"], checkout, env)
        seconds = time.monotonic() - started
        say(f"letting it idle for {IDLE_SECONDS} s")
        time.sleep(IDLE_SECONDS)
        memory = {service: _memory(service, checkout, env) for service in SERVICES}
        image = _above_base(f"transactions-backend:{name}", checkout, env)
    finally:
        say("removing it")
        subprocess.run(
            ["./scripts/down", "--volumes", "--yes"], cwd=checkout, env=env, check=False, capture_output=True
        )
        images = [f"transactions-{part}:{name}" for part in ("backend", "nginx", "db")]
        subprocess.run(["docker", "image", "rm", "--force", *images], check=False, capture_output=True)
        shutil.rmtree(checkout, ignore_errors=True)
    return {"image": image, "up": seconds, "memory": sum(memory.values()), "memory_by_service": memory}


def _run(command: list[str], folder: Path, env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return done.stdout


def _memory(service: str, folder: Path, env: dict[str, str]) -> float:
    containers = _run(["docker", "compose", "ps", "--quiet", service], folder, env).split()
    printed = [_run(["docker", "exec", container, "sh", "-c", MEMORY], folder, env) for container in containers]
    return sum(int(number) for text in printed for number in text.split()) / 1024


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


def lines(figures: dict[str, object]) -> str:
    """Return the figures as text, each with its target."""
    by_service = figures["memory_by_service"]
    parts = (
        ", ".join(f"{name} {value:.0f}" for name, value in by_service.items()) if isinstance(by_service, dict) else ""
    )
    return (
        f"backend image on top of its base: {figures['image']:.1f} MB (at most {TARGETS['image']:.0f})\n"
        f"./scripts/up on a warm cache, empty volume: {figures['up']:.1f} s (under {TARGETS['up']:.0f})\n"
        f"resident memory of the idle stack: {figures['memory']:.0f} MB (under {TARGETS['memory']:.0f}): {parts}"
    )
