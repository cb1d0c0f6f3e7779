"""What is wrong with a configuration is said at once, all of it, without a value, and with what to do."""

import json
import os
import re
import shlex
import shutil
import time
from pathlib import Path

import pytest

from tests.stack.containers import Result, Stack, assert_no_container_stays, run

CONFIGURATION_ERROR = 78
"""EX_CONFIG of sysexits.h."""

AT_ONCE_SECONDS = 5

CANARY = "c4n4ry"
"""Part of every bad value; no message may repeat it."""

BAD_FOR_THE_APPLICATION = {
    "DJANGO_ALLOWED_HOSTS": f"*,{CANARY}",
    "DJANGO_ENVIRONMENT": f"{CANARY}",
    "DJANGO_DEBUG": f"ture{CANARY}",
    "DJANGO_DOCS_ENABLED": f"{CANARY}",
    "JWT_ACCESS_LIFETIME_MINUTES": f"15{CANARY}",
    "JWT_SIGNING_KEY_FILE": "/run/secrets/nothing-here",
    "POSTGRES_PORT": f"5432{CANARY}",
    "POSTGRES_STATEMENT_TIMEOUT_MS": f"-1{CANARY}",
    "WEB_CONCURRENCY": f"many{CANARY}",
    "GUNICORN_THREADS": f"0{CANARY}",
}
UNSAFE_IN_PRODUCTION = {
    "DJANGO_DEBUG": {"DJANGO_DEBUG": "true"},
    "DJANGO_ALLOWED_HOSTS": {"DJANGO_ALLOWED_HOSTS": "*"},
    "POSTGRES_MAX_CONNECTIONS": {"POSTGRES_MAX_CONNECTIONS": "12"},
    "JWT_SIGNING_KEY": {"JWT_SIGNING_KEY": f"{CANARY * 12}"},  # beside JWT_SIGNING_KEY_FILE, which Compose sets
}
WEAK_SECRETS = {
    "DJANGO_SECRET_KEY": f"django-insecure-{CANARY}-and-long-enough-to-pass-for-a-real-one",
    "JWT_SIGNING_KEY": f"{CANARY}{'a' * 60}",
    "POSTGRES_PASSWORD": CANARY,
}
BAD_FOR_NGINX = {
    "DJANGO_ALLOWED_HOSTS": f"*.{CANARY}",
    "NGINX_WORKER_PROCESSES": f"{CANARY}",
    "NGINX_CLIENT_MAX_BODY_KB": "999999999",
    "NGINX_UPSTREAM_TIMEOUT_SECONDS": f"12{CANARY}",
    "NGINX_CONNECTIONS_PER_ADDRESS": "",
    "NGINX_AUTH_RATE": f"30r/m{CANARY}",
}


def start(stack: Stack, service: str, variables: dict[str, str], *command: str) -> tuple[Result, float]:
    """Start one more container of ``service`` with ``variables``; return what it said and how long it took.

    A second time where it took too long: on a busy host it does now and then; what is too slow by itself is so twice.
    """
    options = [option for name, value in variables.items() for option in ("--env", f"{name}={value}")]
    words = ("run", "--rm", "--no-deps", "--no-TTY", *options, service, *command)
    for _ in range(2):
        started = time.monotonic()
        result = stack.compose(*words, check=False, timeout=30)
        took = time.monotonic() - started
        if took < AT_ONCE_SECONDS:
            break
    return result, took


def assert_refused(result: Result, seconds: float, names: set[str]) -> None:
    said = result.stdout + result.stderr
    assert result.returncode == CONFIGURATION_ERROR, said
    assert seconds < AT_ONCE_SECONDS
    complaints = [line for line in said.splitlines() if line.startswith("  - ")]
    assert len(complaints) == len(names)
    assert [name for name in names if not any(name in line for line in complaints)] == []
    assert CANARY not in said
    assert "Traceback" not in said
    assert ".env" in said


@pytest.mark.parametrize("service", ["migrate", "backend", "upkeep"])
def test_the_application_names_all_bad_variables_at_once(service: str, stack: Stack) -> None:
    result, seconds = start(stack, service, BAD_FOR_THE_APPLICATION)

    assert_refused(result, seconds, set(BAD_FOR_THE_APPLICATION))


@pytest.mark.parametrize("service", ["migrate", "backend", "upkeep"])
@pytest.mark.parametrize("name", UNSAFE_IN_PRODUCTION)
def test_the_application_refuses_what_is_unsafe_in_production(name: str, service: str, stack: Stack) -> None:
    result, seconds = start(stack, service, UNSAFE_IN_PRODUCTION[name])

    assert_refused(result, seconds, {name})


@pytest.mark.parametrize("service", ["migrate", "backend", "upkeep"])
@pytest.mark.parametrize("name", WEAK_SECRETS)
def test_the_application_refuses_a_secret_that_can_be_guessed(name: str, service: str, stack: Stack) -> None:
    command = shlex.join(stack.container(service).inspect()["Config"]["Cmd"])
    script = f"printf %s {WEAK_SECRETS[name]} >/tmp/secret && exec {command}"

    result, seconds = start(stack, service, {f"{name}_FILE": "/tmp/secret"}, "sh", "-c", script)

    assert_refused(result, seconds, {name})


def test_a_page_for_new_passwords_without_a_mail_server_is_refused_by_who_sends_mail(stack: Stack) -> None:
    page = {"DJANGO_PASSWORD_RESET_URL": "https://app.example.com/{uid}/{token}"}

    result, seconds = start(stack, "upkeep", page)

    assert_refused(result, seconds, {"EMAIL_URL"})


def test_a_mail_server_that_is_none_is_refused_without_its_password(stack: Stack) -> None:
    command = shlex.join(stack.container("upkeep").inspect()["Config"]["Cmd"])
    script = f"printf %s smtp://user:{CANARY}@mail >/tmp/secret && exec {command}"

    result, seconds = start(stack, "upkeep", {"EMAIL_URL_FILE": "/tmp/secret"}, "sh", "-c", script)

    assert_refused(result, seconds, {"EMAIL_URL"})


def test_a_secret_that_is_a_file_with_a_newline_is_the_same_secret(stack: Stack) -> None:
    program = "import config.env; config.env.load()"
    script = f'printf "%s\\n" "$(cat /run/secrets/jwt_signing_key)" >/tmp/key && exec python -c "{program}"'

    result = stack.compose(
        "run", "--rm", "--no-deps", "--no-TTY", "--env", "JWT_SIGNING_KEY_FILE=/tmp/key", "backend", "sh", "-c", script
    )

    assert result.returncode == 0


def test_nginx_names_all_bad_variables_at_once(stack: Stack) -> None:
    result, seconds = start(stack, "nginx", BAD_FOR_NGINX)

    assert_refused(result, seconds, set(BAD_FOR_NGINX))


@pytest.mark.parametrize("command", [("config",), ("up", "--detach"), ("up", "--detach", "--build")])
def test_compose_without_an_env_file_names_the_command_that_makes_it(
    command: tuple[str, ...], checkout: Path, tmp_path: Path
) -> None:
    for name in ("docker-compose.yml", "docker-compose.listeners.yml"):
        shutil.copy(checkout / name, tmp_path)
    known = {name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_HOST") if name in os.environ}

    result = run("docker", "compose", *command, check=False, cwd=tmp_path, env=known)

    assert result.returncode != 0
    assert "run ./scripts/init first" in result.stderr


LINES = {
    "PLAIN": "a",
    "EMPTY": "",
    "SPACES": "a  b",
    "SIGN": "a#b",
    "ADDRESS": "https://a.example/#/b/{uid}",
    "ALL": "\u00e9!`%^&*()[]<>|;:?/+~=",
    "SINGLE": "'a # $b \"c\"'",
    "DOUBLE": '"it\'s # a"',
    "NOTHING": "''",
}
"""As in tests/deployment/test_env_lines.py, which has what else reads them."""


def test_compose_reads_a_plain_line_as_the_scripts_do(checkout: Path, tmp_path: Path) -> None:
    names = "".join(f"      {name}:\n" for name in LINES)
    (tmp_path / "docker-compose.yml").write_text(f"services:\n  a:\n    image: b\n    environment:\n{names}")
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in LINES.items()), encoding="utf-8")
    (tmp_path / "scripts").mkdir()
    shutil.copy(checkout / "scripts/lib.sh", tmp_path / "scripts")
    known = {name: os.environ[name] for name in ("PATH", "HOME", "DOCKER_HOST") if name in os.environ}

    told = run("docker", "compose", "config", "--format", "json", cwd=tmp_path, env=known).stdout
    ask = 'source scripts/lib.sh; for name in "$@"; do setting "$name" ""; done'
    asked = run("bash", "-c", ask, "bash", *LINES, cwd=tmp_path, env=known).stdout

    given = {name: value.replace("$$", "$") for name, value in json.loads(told)["services"]["a"]["environment"].items()}
    assert given == {name: value[1:-1] if value[:1] in {"'", '"'} else value for name, value in LINES.items()}
    assert asked == "".join(f"{given[name]}\n" for name in LINES)


def test_no_container_is_left_of_a_refused_start(stack: Stack) -> None:
    start(stack, "backend", {"DJANGO_DEBUG": "true"})

    assert_no_container_stays(stack)


# Every variable, one kind of mistake at a time ------------------------------------------------------------------------

MISTAKES = {
    "empty": "",
    "garbage": f"{CANARY} *",
    "dollar": f"${CANARY}",
}


def example(checkout: Path) -> str:
    return (checkout / "env.example").read_text(encoding="utf-8")


APPLICATION = ("migrate", "backend", "upkeep")
"""One registry: each process of the application checks what any of them reads."""

LEAST = {**dict.fromkeys((*APPLICATION, "nginx"), 6), "db": 2}
"""So many variables at least are found for each."""


def read_by(checkout: Path, service: str) -> dict[str, str]:
    """Return the variables that env.example says ``service`` checks, each with what it accepts."""
    readers = {"backend", "upkeep"} if service in APPLICATION else {service}
    found = {}
    for block in example(checkout).split("\n\n"):
        said = re.search(r"Read by ([a-z, ]+)\. Accepted: (.*)\.$", block, re.MULTILINE)
        name = re.search(r"(?m)^#?([A-Z][A-Z0-9_]*)=", block)
        if said and name and readers & set(said[1].split(", ")):
            found[name[1]] = said[2]
    return found


def command_of(service: str) -> tuple[str, ...]:
    """Return what ``service`` is started with in place of its own command, lest it do harm where nothing is refused."""
    # A second server on the volume of the first, whose lock it does not see, would destroy the data.
    return ("true",) if service == "db" else ()


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("service", [*APPLICATION, "nginx", "db"])
def test_every_variable_with_the_same_mistake_is_named(
    service: str, mistake: str, stack: Stack, checkout: Path
) -> None:
    names = read_by(checkout, service)
    # A secret in clear contradicts the file that Compose mounts: another test has them.
    names = {name: accepts for name, accepts in names.items() if f"#{name}_FILE=" not in example(checkout)}
    assert len(names) >= LEAST[service]

    result, seconds = start(stack, service, dict.fromkeys(names, MISTAKES[mistake]), *command_of(service))

    assert_refused(result, seconds, set(names))


LISTS = {"DJANGO_ALLOWED_HOSTS", "NGINX_TRUSTED_PROXIES"}
"""Around an item of these a newline is a space like any other."""


@pytest.mark.parametrize("service", [*APPLICATION, "nginx", "db"])
def test_every_variable_that_ends_with_a_newline_is_named(service: str, stack: Stack, checkout: Path) -> None:
    values = dict(re.findall(r"(?m)^#?([A-Z][A-Z0-9_]*)=(.+)$", example(checkout)))
    names = [name for name in read_by(checkout, service) if name in values and name not in LISTS]
    assert len(names) >= LEAST[service]

    accepted, _ = start(stack, "nginx", {name: f"{values[name]}\n" for name in LISTS}, "--test")
    refused, seconds = start(stack, service, {name: f"{values[name]}\n" for name in names}, *command_of(service))

    assert accepted.returncode == 0, accepted.stderr
    assert_refused(refused, seconds, set(names))


SECRETS = ["DJANGO_SECRET_KEY", "JWT_SIGNING_KEY", "POSTGRES_PASSWORD"]
ADDRESSES = ["DATABASE_URL", "EMAIL_URL"]
"""Secrets that there need not be: an empty file stands for none."""
BAD_SECRETS = {
    "missing": "true",
    "empty": ": >/tmp/secret",
    "garbage": f"printf %s '{CANARY} {CANARY}' >/tmp/secret",
    "dollar": f"printf %s '${CANARY[:6]}' >/tmp/secret",
}
"""What a shell does to the file that should hold one."""


def start_with_secrets(stack: Stack, service: str, names: list[str], mistake: str) -> tuple[Result, float]:
    """Start one more container of ``service`` that reads these secrets from a file with a mistake."""
    command = shlex.join(stack.container(service).inspect()["Config"]["Cmd"])
    variables = {f"{name}_FILE": "/tmp/secret" for name in names}
    return start(stack, service, variables, "sh", "-c", f"{BAD_SECRETS[mistake]} && exec {command}")


@pytest.mark.parametrize("name", [*SECRETS, "DATABASE_URL"])
@pytest.mark.parametrize("mistake", BAD_SECRETS)
def test_secret_file_that_holds_none_is_named(name: str, mistake: str, stack: Stack) -> None:
    if name in ADDRESSES and mistake == "empty":
        return

    result, seconds = start_with_secrets(stack, "backend", [name], mistake)

    assert_refused(result, seconds, {name})


@pytest.mark.parametrize("service", ["migrate", "upkeep"])
@pytest.mark.parametrize("mistake", BAD_SECRETS)
def test_every_secret_file_that_holds_none_is_named(service: str, mistake: str, stack: Stack) -> None:
    names = SECRETS if mistake == "empty" else [*SECRETS, *ADDRESSES]

    result, seconds = start_with_secrets(stack, service, names, mistake)

    assert_refused(result, seconds, set(names))


@pytest.mark.parametrize("line", [f"DJANGO_DEBG={CANARY}", f"HTTP_PORT={CANARY}", f"POSTGRES_HOST={CANARY}"])
def test_up_refuses_a_mistake_in_env_that_no_container_would_see(line: str, checkout: Path, tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    shutil.copytree(checkout, copy, ignore=shutil.ignore_patterns("var"))
    with (copy / ".env").open("a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    environment = {name: value for name, value in os.environ.items() if name != "HTTP_PORT"}
    started = time.monotonic()

    result = run(str(copy / "scripts/up"), "--detach", check=False, env=environment)

    assert_refused(result, time.monotonic() - started, {line.partition("=")[0]})
