"""The operator's verbs: how each behaves before it does anything."""

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from config.env import Environment
from tests.deployment.conftest import ROOT

SCRIPTS = sorted(path.name for path in (ROOT / "scripts").iterdir() if path.is_file() and path.name != "lib.sh")
SHELL = [name for name in SCRIPTS if "bash" in (ROOT / "scripts" / name).read_text().splitlines()[0]]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of what the scripts need, where they can do no harm."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "env.example", tmp_path)
    return tmp_path


def run(checkout: Path, name: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [checkout / "scripts" / name, *arguments],
        cwd="/",
        env={"PATH": os.environ["PATH"], "HOME": str(checkout)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def files(checkout: Path) -> set[str]:
    return {path.relative_to(checkout).as_posix() for path in checkout.rglob("*") if "__pycache__" not in path.parts}


def test_verbs_of_the_first_days_are_there() -> None:
    assert {"up", "down", "test", "init", "deploy", "rollback", "install-docker", "build-base-images"} <= set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_executable(name: str) -> None:
    path = ROOT / "scripts" / name

    assert path.stat().st_mode & stat.S_IXUSR
    assert path.read_text().startswith("#!/usr/bin/env ")


def test_library_is_only_sourced() -> None:
    assert not (ROOT / "scripts/lib.sh").stat().st_mode & stat.S_IXUSR


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_script_explains_itself(checkout: Path, name: str, option: str) -> None:
    before = files(checkout)

    done = run(checkout, name, option)

    assert done.returncode == 0, done.stderr
    assert re.search(rf"(?i)^usage: (\./)?scripts/{name}", done.stdout, re.MULTILINE)
    assert len(done.stdout.splitlines()) >= 3
    assert "set -Eeuo" not in done.stdout
    assert done.stderr == ""
    assert files(checkout) == before


@pytest.mark.parametrize("arguments", [["--no-such-option"], ["no-such-argument"]], ids=str)
@pytest.mark.parametrize("name", SCRIPTS)
def test_script_refuses_what_it_does_not_know_and_does_nothing(checkout: Path, name: str, arguments: list[str]) -> None:
    if name == "deploy" and arguments == ["no-such-argument"]:
        arguments = ["no such release"]
    before = files(checkout)

    done = run(checkout, name, *arguments)

    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    if name in SHELL:
        assert re.search(rf"(?m)^{name}: error: .*{arguments[0]}", done.stderr)
        assert re.search(r"(?m)^  next: ", done.stderr)
    assert files(checkout) == before


@pytest.mark.parametrize("name", SHELL)
def test_script_stops_at_the_first_failure(name: str) -> None:
    assert "\nset -Eeuo pipefail\n" in (ROOT / "scripts" / name).read_text()


def test_ci_calls_the_test_command_of_the_readme() -> None:
    path = ROOT / ".ci/run"
    text = path.read_text()

    assert path.stat().st_mode & stat.S_IXUSR
    assert "export CI=true" in text
    assert text.rstrip().endswith("exec ./scripts/test")
    assert "./scripts/test" in (ROOT / "README.md").read_text()


# init -----------------------------------------------------------------------------------------------------------------


def test_init_makes_what_is_missing(checkout: Path) -> None:
    done = run(checkout, "init")

    assert done.returncode == 0, done.stderr
    assert (checkout / ".env").read_text() == (ROOT / "env.example").read_text()
    assert stat.S_IMODE((checkout / ".env").stat().st_mode) == 0o600
    assert stat.S_IMODE((checkout / "secrets").stat().st_mode) == 0o700
    for path in (checkout / "secrets").iterdir():
        # Other users of the host cannot pass the folder; the users in the containers must read the file.
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        expected = "" if path.name == "email_url" else r"[A-Za-z0-9_-]{32,}"
        assert re.fullmatch(expected, path.read_text())


def test_init_makes_secrets_that_are_accepted_and_all_different(checkout: Path) -> None:
    run(checkout, "init")
    values = {path.name: path.read_text() for path in (checkout / "secrets").iterdir()}

    Environment.DJANGO_SECRET_KEY.parse(values["django_secret_key"])
    Environment.JWT_SIGNING_KEY.parse(values["jwt_signing_key"])
    for name in ("superuser", "migrator", "app"):
        Environment.POSTGRES_PASSWORD.parse(values[f"postgres_{name}_password"])
    assert values.pop("email_url") == "", "no mail, unless somebody writes a mail server into it"
    assert len(set(values.values())) == len(values) == 5


def test_init_changes_nothing_that_is_there(checkout: Path) -> None:
    (checkout / ".env").write_text("DJANGO_ALLOWED_HOSTS=example.org\n")
    run(checkout, "init")
    before = {path: path.read_bytes() for path in [checkout / ".env", *(checkout / "secrets").iterdir()]}

    done = run(checkout, "init")

    assert done.returncode == 0
    assert {path: path.read_bytes() for path in before} == before
    assert (checkout / ".env").read_text() == "DJANGO_ALLOWED_HOSTS=example.org\n"


def test_init_adds_a_secret_that_is_new_and_leaves_the_others(checkout: Path) -> None:
    run(checkout, "init")
    kept = (checkout / "secrets/jwt_signing_key").read_bytes()
    (checkout / "secrets/postgres_app_password").unlink()

    done = run(checkout, "init")

    assert done.stderr == "init: made secrets/postgres_app_password\n"
    assert (checkout / "secrets/jwt_signing_key").read_bytes() == kept


def test_init_shows_no_secret(checkout: Path) -> None:
    done = run(checkout, "init")

    made = [path.read_text() for path in (checkout / "secrets").iterdir() if path.stat().st_size]
    assert len(made) == 5
    for secret in made:
        assert secret not in done.stdout + done.stderr


# down -----------------------------------------------------------------------------------------------------------------


def test_down_with_volumes_asks_first_and_without_a_terminal_does_nothing(checkout: Path) -> None:
    data = checkout / "var/embedded/postgres"
    data.mkdir(parents=True)

    done = run(checkout, "down", "--volumes")

    assert done.returncode == 1
    assert "next: add --yes" in done.stderr
    assert data.exists()


# deploy, rollback -----------------------------------------------------------------------------------------------------


def history(checkout: Path, *entries: str) -> None:
    """Write var/releases.log; an entry is the action, the release and the outcome."""
    lines = [entry.split(maxsplit=2) for entry in entries]
    text = "".join(
        f"2026-11-23T10:00:00Z\t{action}\t{number}\t{release}\t{outcome}\n"
        for number, (action, release, outcome) in enumerate(lines)
    )
    (checkout / "var").mkdir()
    (checkout / "var/releases.log").write_text(text)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (["up a in service", "deploy b in service"], "a"),
        (["up a in service", "deploy b in service", "deploy c started", "deploy c failed: x"], "a"),
        (["up a in service", "deploy b in service", "deploy b in service"], "a"),
        (["up a in service", "deploy b in service", "deploy c in service", "rollback b in service"], "a"),
        (["up a in service", "deploy b in service", "rollback a in service", "deploy c in service"], "a"),
        (["up a in service", "deploy b in service", "recovered b in service", "deploy c in service; the end"], "b"),
    ],
)
def test_rollback_takes_the_release_before_the_one_in_service(
    checkout: Path, entries: list[str], expected: str
) -> None:
    history(checkout, *entries)
    (checkout / "scripts/deploy").write_text('#!/usr/bin/env bash\necho "$@"\n')

    done = run(checkout, "rollback", "--plan")

    assert done.stdout == f"--rollback --plan {expected}\n", done.stderr


@pytest.mark.parametrize("entries", [[], ["up a in service"], ["up a in service", "deploy b failed: x"]])
def test_rollback_without_a_release_before_says_what_to_do(checkout: Path, entries: list[str]) -> None:
    history(checkout, *entries)

    done = run(checkout, "rollback")

    assert done.returncode == 1
    assert "next: ./scripts/deploy RELEASE" in done.stderr
