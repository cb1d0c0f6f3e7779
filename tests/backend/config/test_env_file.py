"""The check of .env itself, as ./scripts/up makes it on a host that has nothing but Python."""

import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from config.env import EX_CONFIG, Environment, Variable
from config.env_file import SUPERUSER_PASSWORD, parse, problems_of
from tests.backend.conftest import BACKEND, ROOT

CANARY = "canary-4c1d9e"
"""Part of every bad value: no message may hold it."""

EXAMPLE = (ROOT / "env.example").read_text(encoding="utf-8")
SOUND = "DJANGO_ALLOWED_HOSTS=localhost\n"
SET_IN_FILE = [variable for variable in Environment.variables() if not variable.secret]
HAS_VALUE = [variable for variable in SET_IN_FILE if variable.default is not None]
EMPTY = {"email_url", "database_url", "migrator_database_url", "database_root_certificate"}
MANAGED = "postgresql://{}:correct-horse@db.example.com/ledger"


def named(variable: Variable[Any]) -> str:
    return variable.name


def problems(text: str, *, folder: Path | None = None, **around: str) -> list[str]:
    found = problems_of(text, around, secrets=folder)
    assert CANARY not in "\n".join(found)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the secrets that ./scripts/init makes."""
    (tmp_path / "secrets").mkdir()
    for variable in Environment.variables():
        for file in variable.files:
            name = Path(file).name
            (tmp_path / file).write_text("" if name in EMPTY else secrets.token_urlsafe(48))
    (tmp_path / SUPERUSER_PASSWORD).write_text(secrets.token_urlsafe(24))
    return tmp_path


def check_file(path: Path, *options: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    # Isolated, and with the packages of nobody: as on a bare host.
    command = [sys.executable, "-S", "-B", "-m", "config.env_file", *options, str(path)]
    return subprocess.run(command, cwd=BACKEND, env=variables, capture_output=True, text=True, timeout=30, check=False)


# How it is read -------------------------------------------------------------------------------------------------------


# Which lines are read, and as what, is in tests/deployment/test_env_lines.py, for everything that reads them.


@pytest.mark.parametrize("line", ["X", f"{CANARY}", f"x-y={CANARY}", f"= {CANARY}", f"'X'={CANARY}"])
def test_line_that_sets_nothing_is_named_by_its_number(line: str) -> None:
    assert problems(f"{SOUND}{line}\n") == ["Line 2 of .env is not NAME=value. Mend or remove it."]


def test_line_that_is_not_read_alike_is_named_by_its_variable_and_number() -> None:
    assert problems(f"{SOUND}\nHTTP_PORT='{CANARY}\n") == [
        "HTTP_PORT in line 3 of .env is written in a way that not everything reads alike. Accepted: NAME=value, with"
        " nothing before the name, around the = or after the value, be it a space or a carriage return; in single"
        " quotes a value that holds a quote, a $, or a # after a space; no backslash."
    ]


def test_last_line_of_a_variable_counts() -> None:
    assert parse("X=a\nX=b\n").values == {"X": "b"}
    assert parse("X=a\nexport X=b\n").values == {}
    assert parse("export X=a\nX=b\n").values == {"X": "b"}


def test_example_is_accepted(folder: Path) -> None:
    assert problems(EXAMPLE, folder=folder) == []


def test_example_with_every_default_spelled_out_is_accepted(folder: Path) -> None:
    text = SOUND + "".join(f"{variable.name}={variable.default}\n" for variable in HAS_VALUE if not variable.fixed)

    assert problems(text, folder=folder) == []


# Every variable -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    ["", CANARY + " *", CANARY + "*", f'"{CANARY}\\n*"', f"${CANARY}", f'"${{{CANARY}}}"'],
    ids=["", "x", "*", "\\n", "$", "${"],
)
@pytest.mark.parametrize("variable", SET_IN_FILE, ids=named)
def test_bad_value_of_any_variable_is_named_and_not_shown(variable: Variable[Any], bad: str) -> None:
    lines = {"DJANGO_ALLOWED_HOSTS": "localhost", variable.name: bad}

    (problem,) = problems("".join(f"{name}={value}\n" for name, value in lines.items()))

    assert problem.startswith(f"{variable.name} ")


IMAGES = ["PYTHON_IMAGE", "POSTGRES_IMAGE", "NGINX_IMAGE", "DEBIAN_IMAGE"]
NAMES_OF_IMAGES = ["BACKEND_IMAGE", "NGINX_PROXY_IMAGE", "DB_IMAGE"]
A_NAME = ["a", "a/b__c-d.e", "registry.example.com/a", "localhost:5000/a/b", "[::1]:5000/a"]


@pytest.mark.parametrize("value", [*A_NAME, "a:1", "standin/a:3.14", "h:5000/a:1@sha256:" + "0" * 64])
@pytest.mark.parametrize("name", IMAGES)
def test_image_is_accepted_as_the_engine_takes_it(name: str, value: str) -> None:
    assert problems(f"{SOUND}{name}={value}\n") == []


@pytest.mark.parametrize("value", ["???", "a:b:c", "A", "a b", "a/", "/a", "a:", "a@sha256:1", "-a", "a//b", "a..b"])
@pytest.mark.parametrize("name", [*IMAGES, *NAMES_OF_IMAGES])
def test_what_is_no_image_is_refused(name: str, value: str) -> None:
    (problem,) = problems(f"{SOUND}{name}={value}\n")

    assert problem.startswith(f"{name} is malformed.")


@pytest.mark.parametrize("value", A_NAME)
@pytest.mark.parametrize("name", NAMES_OF_IMAGES)
def test_name_of_an_image_has_no_tag(name: str, value: str) -> None:
    assert problems(f"{SOUND}{name}={value}\n") == []
    assert problems(f"{SOUND}{name}={value}:1\n")[0].startswith(f"{name} is malformed.")


@pytest.mark.parametrize(
    ("value", "accepted"),
    [
        *((good, True) for good in ("127.0.0.1", "0.0.0.0", "192.0.2.7", "[::]", "[::1]", "[2001:db8::7]")),  # noqa: S104 # read
        *(
            (bad, False)
            for bad in (":::", "999.1.1.1", "::1", "1.2.3", "[127.0.0.1]", "[fe80::1%0]", "localhost", "[]")
        ),
    ],
)
def test_address_to_publish_on_is_one_that_compose_takes(value: str, accepted: bool) -> None:
    assert [item.split(".")[0] for item in problems(f"{SOUND}BIND_ADDRESS={value}\n")] == (
        [] if accepted else ["BIND_ADDRESS is no address"]
    )


def test_required_variable_that_is_missing_is_named() -> None:
    (problem,) = problems("")

    assert problem.startswith("DJANGO_ALLOWED_HOSTS is missing. Accepted: ")


def test_shell_wins_as_it_does_in_compose() -> None:
    assert problems(f"{SOUND}HTTP_PORT={CANARY}\n", HTTP_PORT="8080") == []
    assert problems(f"{SOUND}HTTP_PORT=8080\n", HTTP_PORT=CANARY)[0].startswith("HTTP_PORT is not a whole number.")


def test_values_that_contradict_each_other_are_named() -> None:
    (problem,) = problems(f"{SOUND}BACKEND_REPLICAS=32\n")

    assert problem.startswith("POSTGRES_MAX_CONNECTIONS is too small.")


# Names that no variable has -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DJANGO_ALOWED_HOSTS", "DJANGO_ALLOWED_HOSTS"),
        ("NGINX_WORKERS_PROCESSES", "NGINX_WORKER_PROCESSES"),
        ("UPKEEP_INTERVAL", "UPKEEP_INTERVAL_SECONDS"),
        ("BACKEND_REPLICA", "BACKEND_REPLICAS"),
        ("HTTPPORT", "HTTP_PORT"),
        ("WEB_CONCURENCY", "WEB_CONCURRENCY"),
        ("BIND_ADRESS", "BIND_ADDRESS"),
        ("BIND_ADDR", "BIND_ADDRESS"),
        ("HTTPS_PORTS", "HTTPS_PORT"),
        ("TLS_CERT", "TLS_CERT_FILE"),
        ("TLS_CERTIFICATE_FILE", "TLS_CERT_FILE"),
        ("PYTHON_IMG", "PYTHON_IMAGE"),
    ],
)
def test_name_that_was_mistyped_is_named_with_the_one_that_was_meant(name: str, meant: str) -> None:
    (problem,) = problems(f"{SOUND}{name}={CANARY}\n")

    assert problem.startswith(f"{name} is unknown. Did you mean {meant}? ")


@pytest.mark.parametrize(
    "name", ["TLS_KEY", "TLS_CERT_PATH", "TLS_ENABLED", "HTTPS_ENABLED", "RELEASE_NAME", "WEB_THREADS"]
)
def test_name_that_begins_like_a_variable_is_refused(name: str) -> None:
    (problem,) = problems(f"{SOUND}{name}={CANARY}\n")

    assert problem.startswith(f"{name} is unknown. ")


@pytest.mark.parametrize(
    "name",
    [
        *("COMPOSE_PROJECT_NAME", "DOCKER_HOST", "TZ", "MY_OWN", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"),
        *("PYTHONPATH", "PYTHON_CPU_COUNT", "DEBIAN_FRONTEND"),
    ],
)
def test_name_of_something_else_is_left_alone(name: str) -> None:
    assert problems(f"{SOUND}{name}=x\n") == []


def test_name_that_a_variable_had_before_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Environment, "renamed", {"PORT": "HTTP_PORT"})

    assert problems(f"{SOUND}PORT=1\n") == ["PORT is now called HTTP_PORT. Rename it, or remove it where both are set."]


# What containers do not take from it ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [name for variable in Environment.variables() if variable.secret for name in variable.names]
)
def test_secret_in_the_file_is_sent_to_where_secrets_are(name: str, folder: Path) -> None:
    (problem,) = problems(f"{SOUND}{name}={CANARY}\n", folder=folder)

    assert problem.startswith(f"{name} has no effect in .env. Put its value into secrets/")


@pytest.mark.parametrize("variable", [item for item in SET_IN_FILE if item.fixed], ids=named)
def test_variable_that_compose_sets_is_refused(variable: Variable[Any], folder: Path) -> None:
    (problem,) = problems(f"{SOUND}{variable.name}={CANARY}\n", folder=folder)

    assert problem == f"{variable.name} has no effect in .env. Remove it: {variable.fixed}."


@pytest.mark.parametrize(
    ("name", "content", "start"),
    [
        ("django_secret_key", CANARY, "DJANGO_SECRET_KEY is too short."),
        ("jwt_signing_key", "", "JWT_SIGNING_KEY is empty."),
        ("postgres_app_password", f"{CANARY} {CANARY}", "POSTGRES_PASSWORD contains a space"),
        ("postgres_migrator_password", CANARY[:11], "POSTGRES_PASSWORD of postgres_migrator_password: it is too short"),
        ("postgres_migrator_password", None, "POSTGRES_PASSWORD of postgres_migrator_password: it cannot be read"),
        ("postgres_superuser_password", None, "POSTGRES_PASSWORD of postgres_superuser_password: it cannot be read"),
        ("postgres_superuser_password", "", "POSTGRES_PASSWORD of postgres_superuser_password: it is empty."),
        ("postgres_superuser_password", CANARY[:11], "POSTGRES_PASSWORD of postgres_superuser_password: it is too sho"),
        ("email_url", CANARY, "EMAIL_URL is malformed."),
        ("database_url", CANARY, "DATABASE_URL is malformed."),
        ("migrator_database_url", CANARY, "DATABASE_URL of migrator_database_url: it is malformed."),
    ],
)
def test_secret_that_is_bad_is_named_before_anything_is_started(
    name: str, content: str | None, start: str, folder: Path
) -> None:
    path = folder / "secrets" / name
    path.unlink()
    if content is not None:
        path.write_text(content)

    (problem,) = problems(SOUND, folder=folder)

    assert problem.startswith(start)


@pytest.mark.parametrize(
    "file", [*(file for variable in Environment.variables() for file in variable.files), SUPERUSER_PASSWORD]
)
@pytest.mark.parametrize(
    ("content", "complaint"), [(None, "No such file or directory"), (b"\xff\xfe", "it is not UTF-8 text")]
)
def test_every_file_of_a_secret_is_read_before_anything_is_started(
    content: bytes | None, complaint: str, file: str, folder: Path
) -> None:
    path = folder / file
    path.unlink()
    if content:
        path.write_bytes(content)

    (problem,) = problems(SOUND, folder=folder)

    assert f"{path}: {complaint}. Accepted: " in problem


def test_database_of_somebody_else_needs_no_password_of_a_superuser(folder: Path) -> None:
    for variable in ("database_url", "migrator_database_url"):
        (folder / "secrets" / variable).write_text(MANAGED.format(variable))
    (folder / SUPERUSER_PASSWORD).unlink()

    assert problems(f"{SOUND}DB_REPLICAS=0\n", folder=folder) == []


@pytest.mark.parametrize(
    ("ours", "migrators", "replicas", "start"),
    [
        ("transactions_app", "transactions_migrator", "0", None),
        ("transactions_app", "transactions_migrator", "1", "DB_REPLICAS is 1 although DATABASE_URL is set."),
        ("transactions_app", "transactions_app", "0", "DATABASE_URL names the same user in"),
        ("transactions_app", None, "0", "DATABASE_URL is in one of secrets/database_url and secrets/migrator_data"),
        (None, None, "0", "DATABASE_URL is missing although DB_REPLICAS is 0."),
    ],
)
def test_database_of_somebody_else_has_two_addresses(
    ours: str | None, migrators: str | None, replicas: str, start: str | None, folder: Path
) -> None:
    for name, user in (("database_url", ours), ("migrator_database_url", migrators)):
        (folder / "secrets" / name).write_text(MANAGED.format(user) if user else "")

    found = problems(f"{SOUND}DB_REPLICAS={replicas}\n", folder=folder)

    assert [start is not None and problem.startswith(start) for problem in found] == [True] * bool(start)


# The command ----------------------------------------------------------------------------------------------------------


def test_command_needs_nothing_but_python_and_says_nothing_when_all_is_well(folder: Path) -> None:
    (folder / ".env").write_text(EXAMPLE)

    done = check_file(folder / ".env", "--containers")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_command_names_everything_at_once(folder: Path) -> None:
    (folder / ".env").write_text(f"DJANGO_ALOWED_HOSTS={CANARY}\nHTTP_PORT={CANARY}\nPOSTGRES_PASSWORD={CANARY}\n")
    started = time.monotonic()

    done = check_file(folder / ".env", "--containers", PATH=os.environ["PATH"])

    assert time.monotonic() - started < 5
    assert (done.returncode, done.stdout) == (EX_CONFIG, "")
    assert done.stderr.startswith("The configuration has 4 errors; nothing was started.\n")
    assert [line.split()[1] for line in done.stderr.splitlines() if line.startswith("  - ")] == [
        *("DJANGO_ALOWED_HOSTS", "POSTGRES_PASSWORD", "DJANGO_ALLOWED_HOSTS", "HTTP_PORT")
    ]
    assert CANARY not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_command_names_a_file_that_cannot_be_read(content: bytes | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / ".env").write_bytes(content)

    done = check_file(tmp_path / ".env")

    assert done.returncode == EX_CONFIG
    assert f"{tmp_path}/.env cannot be read: " in done.stderr
