"""scripts/manage, scripts/logs and scripts/shell, on the running stack."""

import os
import pty
import re
import subprocess
import time
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.stack.containers import SERVICES, Result, Stack, assert_no_container_stays, run
from tests.stack.people import Person, connect, unique

PASSWORD = "correct-horse-battery"


def script(stack: Stack, *command: str, stdin: str = "", check: bool = True) -> Result:
    return run(str(stack.checkout / "scripts" / command[0]), *command[1:], check=check, input=stdin)


def at_a_terminal(stack: Stack, *command: str, answers: dict[str, str]) -> str:
    """Run a script at a terminal, answer its questions, and return everything that the terminal showed."""
    controller, terminal = pty.openpty()
    path: Path = stack.checkout / "scripts" / command[0]
    process = subprocess.Popen([path, *command[1:]], stdin=terminal, stdout=terminal, stderr=terminal)
    os.close(terminal)
    shown, waiting = "", list(answers.items())
    deadline = time.monotonic() + 60
    try:
        while time.monotonic() < deadline:
            try:
                read = os.read(controller, 4096)
            except OSError:  # the other side has closed
                break
            shown += read.decode(errors="replace")
            if waiting and waiting[0][0] in shown:
                os.write(controller, f"{waiting.pop(0)[1]}\n".encode())
        assert process.wait(30) == 0, shown
    finally:
        process.kill()
        os.close(controller)
    return shown


# manage ---------------------------------------------------------------------------------------------------------------


def test_an_administrator_is_made_once_with_a_password_that_works(stack: Stack, base_url: str) -> None:
    name = unique("root")

    made = script(stack, "manage", "create_admin", name, "--generate")
    again = script(stack, "manage", "create_admin", name, "--generate")

    password = made.stdout.removesuffix("\n")
    assert re.fullmatch(r"[A-Za-z0-9_-]{24}", password)
    assert f"{name} is an administrator now." in made.stderr
    assert again.stdout == ""
    assert f"{name} is an administrator already; nothing was changed." in again.stderr
    with connect(base_url) as client:
        login = client.post("/auth/jwt/create/", json={"username": name, "password": password})
    assert login.status_code == HTTPStatus.OK
    assert password not in "".join(stack.logs(service) for service in SERVICES)


def test_an_administrator_chooses_a_password_at_the_terminal(stack: Stack, base_url: str) -> None:
    name = unique("root")

    shown = at_a_terminal(
        stack, "manage", "create_admin", name, answers={"Password: ": PASSWORD, "Password, once more: ": PASSWORD}
    )

    assert f"{name} is an administrator now." in shown
    assert PASSWORD not in shown
    with connect(base_url) as client:
        login = client.post("/auth/jwt/create/", json={"username": name, "password": PASSWORD})
    assert login.status_code == HTTPStatus.OK


def test_an_administrator_is_asked_for_the_name_at_the_terminal(stack: Stack, base_url: str) -> None:
    name = unique("root")
    answers = {"Name: ": name, "Password: ": PASSWORD, "Password, once more: ": PASSWORD}

    shown = at_a_terminal(stack, "manage", "create_admin", answers=answers)

    assert f"{name} is an administrator now." in shown
    with connect(base_url) as client:
        login = client.post("/auth/jwt/create/", json={"username": name, "password": PASSWORD})
    assert login.status_code == HTTPStatus.OK


def test_a_name_that_is_taken_is_refused(stack: Stack, alice: Person) -> None:
    refused = script(stack, "manage", "create_admin", alice.name, "--generate", check=False)

    assert refused.returncode == 1
    assert "taken by an account that is no administrator" in refused.stderr


def test_without_a_terminal_nobody_is_asked(stack: Stack) -> None:
    refused = script(stack, "manage", "create_admin", unique("root"), stdin=f"{PASSWORD}\n{PASSWORD}\n", check=False)

    assert refused.returncode == 1
    assert "There is no terminal to ask for the password at. Use --generate." in refused.stderr


def test_a_command_that_does_not_exist_is_refused(stack: Stack) -> None:
    refused = script(stack, "manage", "no-such-command", check=False)

    assert refused.returncode == 1
    assert "Unknown command: 'no-such-command'" in refused.stderr


def test_migrate_runs_with_the_role_that_may_change_the_schema(stack: Stack) -> None:
    done = script(stack, "manage", "migrate")

    assert "No migrations to apply" in done.stdout
    assert_no_container_stays(stack)


def test_upkeep_runs_where_the_mail_server_is_known(stack: Stack) -> None:
    assert script(stack, "manage", "upkeep").returncode == 0


def test_the_exit_status_of_a_command_is_that_of_the_script(stack: Stack) -> None:
    assert script(stack, "manage", "check", "--deploy", "--fail-level", "WARNING").returncode == 0
    assert script(stack, "manage", "unlock", unique("nobody"), check=False).returncode == 1


# logs -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["db", "migrate", "backend", "upkeep", "nginx"])
def test_logs_of_one_service_are_shown(stack: Stack, service: str) -> None:
    shown = script(stack, "logs", service, "--tail", "3")

    lines = shown.stdout.splitlines()
    assert lines
    assert all(re.match(rf"{service}-\d+ +\| \d{{4}}-\d\d-\d\dT", line) for line in lines), shown.stdout
    assert "\x1b" not in shown.stdout


def test_logs_are_those_since_a_time(stack: Stack, base_url: str) -> None:
    path = f"/{unique('nobody')}"
    with connect(base_url) as client:
        client.get(path)

    recent = script(stack, "logs", "nginx", "--since", "20s").stdout
    future = script(stack, "logs", "nginx", "--since", "2100-01-01T00:00:00Z").stdout

    assert path in recent
    assert future == ""


def test_logs_are_followed(stack: Stack, base_url: str) -> None:
    path = f"/{unique('nobody')}"
    command = [str(stack.checkout / "scripts/logs"), "nginx", "--follow", "--tail", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as follower:
        try:
            assert follower.stdout is not None
            time.sleep(2)
            with connect(base_url) as client:
                client.get(path)
            assert any(path in line for line in follower.stdout)
        finally:
            os.killpg(follower.pid, 15)


# shell ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "role"),
    [((), "postgres"), (("--role", "migrator"), "transactions_migrator"), (("--role=app",), "transactions_app")],
)
def test_shell_of_the_database_signs_in_as_the_role_that_is_asked_for(
    stack: Stack, options: tuple[str, ...], role: str
) -> None:
    shown = script(stack, "shell", "db", *options, stdin="\\pset format unaligned\nSELECT current_user AS who;\n")

    assert f"who\n{role}\n" in shown.stdout


def test_shell_of_the_database_stops_at_the_first_error(stack: Stack) -> None:
    assert script(stack, "shell", "db", stdin="SELECT 1/0; SELECT 2;", check=False).returncode == 3


def test_shell_of_the_backend_knows_the_application(stack: Stack) -> None:
    program = "from django.conf import settings; print('engine', settings.DATABASES['default']['ENGINE'])\n"

    assert "engine config.postgresql" in script(stack, "shell", "backend", stdin=program).stdout


def test_shell_of_the_backend_may_be_bash(stack: Stack) -> None:
    assert script(stack, "shell", "backend", "--bash", stdin="id -u; pwd\n").stdout.split() == ["10001", "/app"]
