"""scripts/manage, scripts/logs and scripts/shell in the embedded mode, whether or not its database runs."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deployment.conftest import ROOT

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return an environment without a container engine and without this suite's own configuration."""
    programs = tmp_path_factory.mktemp("programs")
    (programs / "docker").write_text("#!/bin/sh\nexit 1\n")
    (programs / "docker").chmod(0o755)
    return {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(programs)}


@pytest.fixture(scope="module")
def run(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a function that runs a script in a checkout whose embedded stack was started once and is stopped."""
    checkout = tmp_path_factory.mktemp("embedded") / "checkout"
    for folder in ("scripts", "backend", "db"):
        shutil.copytree(ROOT / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__", "static"))
    shutil.copy(ROOT / "env.example", checkout)
    # What ./scripts/up would install: the environment of the tests has all of it.
    (checkout / "var/embedded/venv/bin").mkdir(parents=True)
    (checkout / "var/embedded/venv/bin/python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (checkout / "var/embedded/venv/bin/python").chmod(0o755)

    def run(*command: str, stdin: str = "", **variables: str) -> "subprocess.CompletedProcess[str]":
        path = checkout / "scripts" / command[0]
        return subprocess.run(
            [path, *command[1:]], cwd="/", env={**environment, **variables}, input=stdin,
            capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip

    assert run("init").returncode == 0
    assert run("manage", "migrate").stderr == "manage: error: the stack does not run\n  next: ./scripts/up\n"
    python = f"{Path(sys.executable).parent}:{environment['PATH']}"
    started = run("embedded-postgres", "--data", str(checkout / "var/embedded/postgres"), "--", "true", PATH=python)
    assert started.returncode == 0, started.stderr
    migrated = run("manage", "migrate", "--no-input", "--verbosity", "0")
    assert migrated.returncode == 0, migrated.stderr
    return run


def test_an_administrator_is_made(run: Run) -> None:
    done = run("manage", "create_admin", "root", "--generate")

    assert re.fullmatch(r"[A-Za-z0-9_-]{24}\n", done.stdout), done.stderr
    assert "root is an administrator now." in done.stderr


@pytest.mark.parametrize(
    ("options", "role"),
    [((), "postgres"), (("--role", "migrator"), "transactions_migrator"), (("--role", "app"), "transactions_app")],
)
def test_shell_of_the_database_signs_in_as_the_role_that_is_asked_for(
    run: Run, options: tuple[str, ...], role: str
) -> None:
    done = run("shell", "db", *options, stdin="\\pset format unaligned\nSELECT current_user AS who;\n")

    assert f"who\n{role}\n" in done.stdout, done.stderr


def test_shell_of_the_backend_knows_the_application(run: Run) -> None:
    program = "from accounts.models import User; print('admins', User.objects.filter(is_superuser=True).count() < 9)\n"

    done = run("shell", "backend", stdin=program)

    assert "admins True" in done.stdout, done.stderr


def test_commands_use_the_database_that_runs_already(run: Run, environment: dict[str, str]) -> None:
    # As the command of a server that runs; where that is, it must find by itself.
    script = "unset POSTGRES_HOST POSTGRES_PORT; exec ../scripts/manage showmigrations accounts\n"

    done = run("shell", "backend", "--bash", stdin=script)

    assert "[X] 0001_initial" in done.stdout, done.stderr


def test_logs_are_those_of_the_detached_stack(run: Run) -> None:
    missing = run("logs")
    services = run("logs", "nginx")

    assert (missing.returncode, services.returncode) == (1, 1)
    assert "was not started with --detach" in missing.stderr
    assert "keeps one log, without services and ages" in services.stderr
