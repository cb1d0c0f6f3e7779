"""scripts/up and scripts/down, run again on a stack that is already there."""

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.containers import SERVERS, Result, Stack, docker, free_port, run
from tests.stack.people import Person, unique

SECOND_START_SECONDS = 40


def script(checkout: Path, *command: str, check: bool = True, **variables: str) -> tuple[Result, float]:
    """Run one of the scripts of the checkout; return what it said and how long it took."""
    started = time.monotonic()
    path = str(checkout / "scripts" / command[0])
    result = run(path, *command[1:], check=check, timeout=240, env={**os.environ, **variables})
    return result, time.monotonic() - started


def fingerprints(checkout: Path) -> dict[str, str]:
    files = [checkout / ".env", *sorted((checkout / "secrets").iterdir())]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.timeout(120)
def test_up_a_second_time_is_quick_and_changes_nothing(disturbed: Stack, alice: Person, base_url: str) -> None:
    row = alice.record("kept")
    before = fingerprints(disturbed.checkout)
    containers = [container for service in SERVERS for container in disturbed.containers(service)]
    images = {container.inspect()["Image"] for container in containers}

    result, seconds = script(disturbed.checkout, "up", "--detach")
    running = [container for service in SERVERS for container in disturbed.containers(service)]

    assert seconds < SECOND_START_SECONDS
    assert fingerprints(disturbed.checkout) == before
    # On an engine on which other checkouts are built the cache may hand out an equal image under another id.
    if images == {container.inspect()["Image"] for container in running}:
        assert set(running) == set(containers)
    assert f"{base_url}/api/docs/" in result.stdout
    assert "Try it next: register, log in and create a transaction" in result.stdout
    assert alice.client.get(f"/api/transactions/{row['id']}/").json() == row


@pytest.mark.timeout(240)
def test_down_and_up_keep_the_data(disturbed: Stack, alice: Person) -> None:
    row = alice.record("kept")
    before = fingerprints(disturbed.checkout)

    script(disturbed.checkout, "down")
    left = disturbed.compose("ps", "--all", "--quiet").stdout
    _result, seconds = script(disturbed.checkout, "up", "--detach")

    assert left == ""
    assert seconds < SECOND_START_SECONDS
    assert fingerprints(disturbed.checkout) == before
    assert alice.client.get(f"/api/transactions/{row['id']}/").json() == row


def test_down_with_volumes_and_nobody_to_ask_destroys_nothing(stack: Stack, alice: Person) -> None:
    row = alice.record("kept")

    result, _seconds = script(stack.checkout, "down", "--volumes", check=False)

    assert result.returncode != 0
    assert "--yes" in result.stderr
    assert alice.client.get(f"/api/transactions/{row['id']}/").json() == row


@pytest.mark.timeout(240)
def test_up_in_the_foreground_stops_the_stack_when_it_is_told_to(disturbed: Stack) -> None:
    path = str(disturbed.checkout / "scripts/up")
    with subprocess.Popen([path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as up:
        assert up.stdout is not None
        assert any("The API is ready" in line for line in up.stdout)
        up.send_signal(signal.SIGTERM)
        up.communicate(timeout=180)

    assert up.returncode == 0
    assert disturbed.compose("ps", "--quiet").stdout == ""


def test_init_makes_no_second_password_beside_a_database(stack: Stack) -> None:
    secret = stack.checkout / "secrets/postgres_app_password"
    kept = secret.rename(secret.with_suffix(".kept"))
    try:
        result, _seconds = script(stack.checkout, "init", check=False)
        assert not secret.exists()
    finally:
        kept.rename(secret)

    assert result.returncode == 1
    assert "secrets/postgres_app_password is missing" in result.stderr
    assert f"docker volume rm {stack.name()}_database" in result.stderr


@pytest.fixture
def broken(stack: Stack) -> Iterator[Stack]:
    """A second stack of the same checkout, whose database holds the remains of a first start."""
    broken = Stack(stack.checkout, stack.base_url, project=unique(f"{stack.name()}-broken"))
    remains = "mkdir -p $PGDATA/base"
    broken.compose("run", "--rm", "--no-deps", "--no-TTY", "--entrypoint", "sh", "db", "-c", remains)
    yield broken
    broken.compose("down", "--volumes", "--timeout", "0")


def test_up_shows_why_a_service_did_not_start_and_what_to_do(broken: Stack) -> None:
    own = {"COMPOSE_PROJECT_NAME": broken.project, "HTTP_PORT": str(free_port())}

    result, seconds = script(broken.checkout, "up", "--detach", check=False, **own)

    assert result.returncode != 0
    assert seconds < SECOND_START_SECONDS
    assert "./scripts/down --volumes --yes && ./scripts/up" in result.stderr
    assert "\x1b" not in result.stderr


def test_down_removes_the_volumes_when_it_is_told_to(broken: Stack) -> None:
    volumes = ("volume", "ls", "--quiet", "--filter", f"label=com.docker.compose.project={broken.project}")
    before = docker(*volumes).stdout.split()

    script(broken.checkout, "down", "--volumes", "--yes", COMPOSE_PROJECT_NAME=broken.project)

    assert sorted(before) == [f"{broken.project}_database", f"{broken.project}_handover"]
    assert docker(*volumes).stdout.split() == []
