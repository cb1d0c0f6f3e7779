"""A line of .env is the same value to whatever reads it, or it is refused; Compose is asked in tests/stack."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from scripts.diagnosis.findings import NotSeen
from scripts.diagnosis.installation import Installation

from config.env_file import parse
from tests.deployment.conftest import ROOT

READ = {
    "HTTP_PORT=1": "1",
    "HTTP_PORT=": "",
    "HTTP_PORT=a  b": "a  b",
    "HTTP_PORT=a#b": "a#b",
    "HTTP_PORT=https://a.example/#/b/{uid}": "https://a.example/#/b/{uid}",
    "HTTP_PORT=a=b": "a=b",
    "HTTP_PORT=\u00e9!`%^&*()[]<>|;:?/+~": "\u00e9!`%^&*()[]<>|;:?/+~",
    "HTTP_PORT='a b'": "a b",
    "HTTP_PORT='$a # \"b\"'": '$a # "b"',
    "HTTP_PORT=''": "",
    'HTTP_PORT="it\'s # a"': "it's # a",
    "HTTP_PORT=1\nHTTP_PORT=2": "2",
    "HTTP_PORT=1\n#HTTP_PORT=2": "1",
    "HTTP_PORT=1\nNGINX_HTTP_PORT=2\nHTTP_PORTS=3": "1",
}
REFUSED = [
    "export HTTP_PORT=1",
    " HTTP_PORT=1",
    "HTTP_PORT =1",
    "HTTP_PORT= 1",
    "HTTP_PORT=1 ",
    "HTTP_PORT=1\r",
    "HTTP_PORT=1 # why",
    "HTTP_PORT= # why",
    "HTTP_PORT=# why",
    "HTTP_PORT='1' # why",
    "HTTP_PORT: 1",
    "HTTP_PORT=$a",
    'HTTP_PORT="${a}"',
    "HTTP_PORT='a",
    "HTTP_PORT='a'b'",
    'HTTP_PORT="a\nb"',
    "HTTP_PORT=it's",
    "HTTP_PORT=a\\b",
    "HTTP_PORT='a\\'",
    'HTTP_PORT="a\\nb"',
    "HTTP_PORT=1\nexport HTTP_PORT=2",
]


def named(line: str) -> str:
    return line.replace("HTTP_PORT", "X")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/lib.sh", tmp_path / "scripts")
    shutil.copy(ROOT / "env.example", tmp_path)
    return tmp_path


def setting(checkout: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Ask as the scripts do."""
    command = "set -Eeuo pipefail; source scripts/lib.sh; value=$(setting HTTP_PORT default); printf '%s' \"$value\""
    environment = {"PATH": os.environ["PATH"], **variables}
    return subprocess.run(
        ["bash", "-c", command], cwd=checkout, env=environment, capture_output=True, text=True, timeout=30, check=False
    )


def of_the_embedded_stack(checkout: Path) -> str:
    """Ask as a process does that reads the file that ENV_FILE names."""
    program = "import environ, os, sys; environ.Env.read_env(sys.argv[1]); print(os.environ['HTTP_PORT'], end='')"
    command = [sys.executable, "-c", program, str(checkout / ".env")]
    return subprocess.run(command, env={}, capture_output=True, text=True, timeout=30, check=True).stdout


@pytest.mark.parametrize(("text", "value"), READ.items(), ids=map(named, READ))
@pytest.mark.parametrize("end", ["\n", ""], ids=["newline", "no-newline"])
def test_a_line_that_is_read_is_the_same_value_to_all(checkout: Path, text: str, value: str, end: str) -> None:
    (checkout / ".env").write_text(f"# Mine.\n\n{text}{end}", encoding="utf-8")

    checked = parse((checkout / ".env").read_text(encoding="utf-8"))
    asked = setting(checkout)

    assert (checked.values["HTTP_PORT"], checked.refused, checked.problems) == (value, {}, [])
    assert (asked.stdout, asked.stderr) == (value or "default", "")
    assert of_the_embedded_stack(checkout) == value
    assert Installation(checkout).setting("HTTP_PORT") == value or "8080"


@pytest.mark.parametrize("text", REFUSED, ids=named)
def test_a_line_that_would_be_read_in_two_ways_is_read_by_nobody(checkout: Path, text: str) -> None:
    (checkout / ".env").write_bytes(f"# Mine.\n{text}\n".encode())
    number = text.rpartition("HTTP_PORT")[0].count("\n") + 2

    checked = parse((checkout / ".env").read_bytes().decode())
    asked = setting(checkout)

    assert "HTTP_PORT" not in checked.values
    assert "HTTP_PORT" in checked.refused
    assert checked.problems[0].startswith(f"HTTP_PORT in line {number} of .env is written in a way that not everything")
    assert (asked.returncode, asked.stdout) == (1, "")
    assert f"error: HTTP_PORT in line {number} of .env is written in a way that not everything reads" in asked.stderr
    with pytest.raises(NotSeen, match="HTTP_PORT"):
        Installation(checkout).setting("HTTP_PORT")


@pytest.mark.parametrize(("given", "value"), [("2", "2"), ("", "default")])
def test_the_shell_wins_also_where_it_has_nothing(checkout: Path, given: str, value: str) -> None:
    (checkout / ".env").write_text("HTTP_PORT=1\n")

    assert setting(checkout, HTTP_PORT=given).stdout == value


def test_a_file_that_cannot_be_read_has_no_defaults(checkout: Path) -> None:
    (checkout / ".env").mkdir()

    asked = setting(checkout)

    assert (asked.returncode, asked.stdout) == (1, "")
    assert ".env cannot be read" in asked.stderr
