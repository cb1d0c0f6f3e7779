"""What is wrong with a configuration is said at once, all of it, without a value, and with what to do."""

import os
import shlex
import shutil
import time
from pathlib import Path

import pytest

from tests.stack.containers import Result, Stack, run

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
    """Start one more container of ``service`` with ``variables``; return what it said and how long it took."""
    options = [option for name, value in variables.items() for option in ("--env", f"{name}={value}")]
    started = time.monotonic()
    result = stack.compose("run", "--rm", "--no-deps", "--no-TTY", *options, service, *command, check=False, timeout=30)
    return result, time.monotonic() - started


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


def test_no_container_is_left_of_a_refused_start(stack: Stack) -> None:
    start(stack, "backend", {"DJANGO_DEBUG": "true"})

    assert "-run-" not in stack.compose("ps", "--all", "--format", "{{.Name}}").stdout
