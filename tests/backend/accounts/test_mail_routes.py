"""The operations that are there only where mail is configured keep to the schema, too.

tests/stack/test_schemathesis.py asks all others, in a stack without mail.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pytest_django.plugin import DjangoDbBlocker

from tests.backend.conftest import ROOT, WITH_MAIL, server_on_the_database_of_tests

# The server has its own connections; the mark is there so that the database is.
pytestmark = pytest.mark.django_db

OPERATIONS = {
    "POST /auth/users/activation/",
    "POST /auth/users/resend_activation/",
    "POST /auth/users/reset_password/",
    "POST /auth/users/reset_password_confirm/",
}
PHASES = ("examples", "coverage", "fuzzing")
"""No sequences: no answer of theirs holds anything that another request could take."""

OF_A_LINK = """
[[operations]]
include-path = ["/auth/users/activation/", "/auth/users/reset_password_confirm/"]
checks.positive_data_acceptance.enabled = false
"""
"""A token that works comes in a mail, and works once; other tests read it there."""


@pytest.fixture
def base_url(
    configuration: dict[str, str], django_db_setup: None, django_db_blocker: DjangoDbBlocker, tmp_path: Path
) -> Iterator[str]:
    """Return the address of a server to which mail is configured."""
    with server_on_the_database_of_tests(configuration, tmp_path / "log", **WITH_MAIL) as (port, _):
        yield f"http://localhost:{port}"


def test_no_operation_that_needs_mail_departs_from_the_schema(base_url: str, tmp_path: Path) -> None:
    report, configuration = tmp_path / "report.json", tmp_path / "schemathesis.toml"
    configuration.write_text((ROOT / "tests/stack/schemathesis.toml").read_text() + OF_A_LINK)
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        *("--config-file", str(configuration)),
        *("run", f"{base_url}/api/schema/?format=json", "--url", base_url),
        *("--include-path-regex", "/auth/users/.*(reset_password|activation)", "--phases", ",".join(PHASES)),
        *("--seed", "20260131", "--max-examples", "30", "--request-timeout", "10"),
        *("--report", "json", "--report-json-path", str(report), "--no-color"),
    ]
    environment = {"PATH": os.environ["PATH"], "NO_PROXY": "*"}

    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=100
    )

    said = done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert (found["exit_code"], found["failures"], found["errors"]) == (0, [], []), said
    assert set(found["valid_rates"]) == OPERATIONS
    assert found["operations"]["tested"] == len(OPERATIONS)
    rates = {name: phases.values() for name, phases in found["valid_rates"].items()}
    succeeded = {name for name, phases in rates.items() if any(rate["accepted"] for rate in phases)}
    assert succeeded == {"POST /auth/users/resend_activation/", "POST /auth/users/reset_password/"}


def test_every_operation_that_needs_mail_shows_an_example(base_url: str) -> None:
    paths = httpx.get(f"{base_url}/api/schema/?format=json", trust_env=False).json()["paths"]

    for operation in OPERATIONS:
        method, path = operation.split()
        for content in paths[path][method.lower()]["requestBody"]["content"].values():
            assert content["examples"], operation
