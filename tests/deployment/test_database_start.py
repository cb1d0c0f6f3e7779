"""The entry point of the database's image: what it refuses before anything is touched, and what it hands on."""

import os
import subprocess
from pathlib import Path

import pytest

from config.env import Environment, InvalidError
from tests.deployment.conftest import ROOT

CONFIGURATION_ERROR = 78
"""EX_CONFIG of sysexits.h."""

VALUES = {
    "POSTGRES_DB": ["", "a", "_1", "1a", "A", "\u00e4", "a-b", "a b", "a\n", "a\nb", "a" * 63, "a" * 64, "$a", "*"],
    "POSTGRES_MAX_CONNECTIONS": ["", "9", "10", "010", "089", "10000", "10001", "-10", "1e2", "10\n", "1" * 10, "a[0]"],
}


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A folder for PATH, in which the official image's entry point only says what it is given."""
    program = tmp_path / "programs/docker-entrypoint.sh"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho handed on: "$@"\n')
    program.chmod(0o755)
    return program.parent


def start(official: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run the entry point on a volume that is empty."""
    known = {"PATH": f"{official}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8", "PGDATA": str(official.parent / "data")}
    command = ("bash", ROOT / "db/entrypoint.sh", "postgres", "-c", "max_connections=given")
    return subprocess.run(command, check=False, capture_output=True, text=True, env={**known, **variables})


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in VALUES.items() for value in values])
def test_entry_point_and_the_registry_of_variables_accept_the_same(name: str, value: str, official: Path) -> None:
    variable = next(variable for variable in Environment.variables() if variable.name == name)
    try:
        variable.read({name: value})
    except InvalidError:
        accepted = False
    else:
        accepted = True

    started = start(official, **{name: value})

    assert started.returncode == (0 if accepted else CONFIGURATION_ERROR), started.stderr
    assert started.stdout.startswith("handed on: ") == accepted
    assert [line.split()[1] for line in started.stderr.splitlines() if line.startswith("  - ")] == [name] * (
        not accepted
    )


def test_defaults_are_those_of_the_registry(official: Path) -> None:
    said = start(official, POSTGRES_DB="*", POSTGRES_MAX_CONNECTIONS="*").stderr

    for name in VALUES:
        (default,) = (variable.default for variable in Environment.variables() if variable.name == name)
        assert f"remove it to use {default}." in said
    assert start(official).returncode == 0


def test_a_number_with_a_leading_zero_is_the_one_that_the_application_counts_on(official: Path) -> None:
    assert start(official, POSTGRES_MAX_CONNECTIONS="0100").stdout.endswith(" -c max_connections=100\n")
    assert start(official, POSTGRES_MAX_CONNECTIONS="100").stdout.endswith(" -c max_connections=given\n")
