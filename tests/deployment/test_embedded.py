"""The embedded stack, started as a person would: the application without containers, with its upkeep and its mail."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest

from config.env import Environment
from tests.deployment.conftest import ROOT

pytestmark = pytest.mark.timeout(300)

FIRST_START_SECONDS = 180
PASSWORD = "correct horse battery staple"
NEXT = "another long passphrase"


@dataclass(frozen=True)
class Embedded:
    """A checkout, and the environment in which its scripts are run."""

    checkout: Path
    environment: dict[str, str]
    base_url: str

    def run(self, script: str, *arguments: str) -> str:
        return self.hear(script, *arguments)[0]

    def hear(self, script: str, *arguments: str) -> tuple[str, str]:
        """Run a script; return its output, and what it says to a person."""
        done = subprocess.run(
            [self.checkout / "scripts" / script, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout, done.stderr

    def log(self) -> str:
        return (self.checkout / "var/embedded/log").read_text()

    def processes(self, *words: str) -> list[int]:
        """Return the processes of this checkout whose command holds all of ``words`` and that run Python."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                command = path.read_text().split("\0")
            except OSError:  # it has ended meanwhile
                continue
            if command[0].startswith(str(self.checkout)) and set(words) <= set(command):
                found.append(int(path.parent.name))
        return found

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.base_url, trust_env=False, timeout=20)


def wait_for(what: str, seconds: float, condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def port_of(embedded: Embedded) -> str:
    return embedded.base_url.rpartition(":")[2]


def doctor(embedded: Embedded) -> str:
    """Return what the doctor says of a stack with which something is wrong."""
    command = [str(embedded.checkout / "scripts/doctor"), "--json"]
    done = subprocess.run(
        command, env=embedded.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedded]:
    """The stack, running; gone afterwards."""
    checkout = tmp_path_factory.mktemp("embedded")
    for folder in ("scripts", "backend", "db"):
        shutil.copytree(ROOT / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__", "static"))
    shutil.copytree(ROOT / "backend/config/static", checkout / "backend/config/static")
    for name in ("env.example", "docker-compose.yml", "docker-compose.listeners.yml"):
        shutil.copy(ROOT / name, checkout)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    ours = {name for variable in Environment.variables() for name in variable.names}
    kept = {name: value for name, value in os.environ.items() if name not in {*ours, "PYTHONPATH", "ENV_FILE"}}
    # ./scripts/down stops containers too: none has this project's name.
    environment = {**kept, "HTTP_PORT": str(port), "COMPOSE_PROJECT_NAME": f"embedded-{port}"}
    # Where nothing is to be found afterwards; how this host reaches its packages may be written in its own home.
    for name in ("HOME", "TMPDIR"):
        environment[name] = str(tmp_path_factory.mktemp(name.lower()))
    # pip asks rustc for its version, which may be a link to rustup.
    environment.setdefault("RUSTUP_HOME", str(Path.home() / ".rustup"))
    if (configuration := Path.home() / ".config/pip/pip.conf").exists():
        environment.setdefault("PIP_CONFIG_FILE", str(configuration))
    for name in ("XDG_CACHE_HOME", "NPM_CONFIG_CACHE", "NODE_COMPILE_CACHE", "PIP_CACHE_DIR"):
        environment.pop(name, None)
    # Downloads are shared with this checkout, so that they are made once.
    (ROOT / "var/cache").mkdir(parents=True, exist_ok=True)
    (checkout / "var").mkdir()
    (checkout / "var/cache").symlink_to(ROOT / "var/cache")
    stack = Embedded(checkout, environment, f"http://127.0.0.1:{port}")
    started = time.monotonic()
    stack.run("up", "--embedded", "--detach")
    took = time.monotonic() - started
    try:
        # Of downloads nothing: the suite that runs this has filled the cache.
        assert took < FIRST_START_SECONDS, "with everything that is installed for it, without downloads"
        yield stack
    finally:
        stack.run("down", "--volumes", "--yes")


def test_nothing_outside_the_checkout_was_touched(embedded: Embedded) -> None:
    assert [path for name in ("HOME", "TMPDIR") for path in Path(embedded.environment[name]).iterdir()] == []


def test_a_forgotten_password_is_replaced_with_the_mail_that_is_in_the_log(embedded: Embedded) -> None:
    with embedded.client() as client:
        given = {"username": "alice", "email": "alice@example.com", "password": PASSWORD}
        assert client.post("/auth/users/", json=given).status_code == HTTPStatus.CREATED
        asked = client.post("/auth/users/reset_password/", json={"email": "alice@example.com"})
        assert asked.status_code == HTTPStatus.NO_CONTENT

        wait_for("mail", 20, lambda: "Subject: Choose a new password" in embedded.log())
        found = re.search(rf"^{embedded.base_url}/reset-password/(\S+)/(\S+)$", embedded.log(), re.MULTILINE)
        assert found
        link = {"uid": found[1], "token": found[2]}
        answer = client.post("/auth/users/reset_password_confirm/", json={**link, "new_password": NEXT})

        assert answer.status_code == HTTPStatus.NO_CONTENT
        login = client.post("/auth/jwt/create/", json={"username": "alice", "password": NEXT})
        assert login.status_code == HTTPStatus.OK
        assert PASSWORD not in embedded.log()
        assert NEXT not in embedded.log()


def test_the_doctor_finds_it_well_and_its_archive_holds_nothing_of_alice(embedded: Embedded) -> None:
    link = re.search(rf"^{embedded.base_url}/reset-password/\S+/(\S+)$", embedded.log(), re.MULTILINE)
    assert link, "the test before asked for one"
    # As on a host without an engine.
    alone = replace(embedded, environment={**embedded.environment, "DOCKER_HOST": "unix:///nowhere"})

    found = {item["id"]: item for item in json.loads(alone.run("doctor", "--json"))["findings"]}
    archive = alone.run("doctor", "--bundle").strip()

    with tarfile.open(archive) as tar:
        held = "".join(file.read().decode() for member in tar if (file := tar.extractfile(member)))
    assert {found[name]["level"] for name in ("engine", "embedded", "api", f"ports.{port_of(embedded)}")} == {"ok"}
    assert {item["level"] for item in found.values()} <= {"ok", "unknown", "warning"}
    assert "Subject: Choose a new password" in held
    for leak in (link[1], "alice@example.com", PASSWORD, NEXT):
        assert leak not in held


def test_the_doctor_sees_that_it_ended_and_brings_it_back(embedded: Embedded) -> None:
    os.kill(int((embedded.checkout / "var/embedded/pid").read_text()), signal.SIGTERM)
    wait_for("everything has ended", 20, lambda: not embedded.processes())

    (found,) = (item for item in json.loads(doctor(embedded))["findings"] if item["id"] == "embedded")
    subprocess.run(
        ["bash", "-c", found["mend"]], cwd=embedded.checkout, env=embedded.environment, check=True, timeout=240,
        stdin=subprocess.DEVNULL, capture_output=True,
    )  # fmt: skip

    assert found["level"] == "problem"
    with embedded.client() as client:
        assert client.get("/readyz").status_code == HTTPStatus.OK


def test_whatever_ends_ends_the_rest(embedded: Embedded) -> None:
    assert "upkeep every 3600 s, mail as it becomes due" in embedded.log()
    (upkeep,) = embedded.processes("manage.py", "upkeep")
    assert embedded.processes("gunicorn")

    os.kill(upkeep, signal.SIGKILL)

    wait_for("everything has ended", 20, lambda: not embedded.processes())
    embedded.run("up", "--embedded", "--detach")
    assert len(embedded.processes("manage.py", "upkeep")) == 1, embedded.log()


def test_down_ends_both(embedded: Embedded) -> None:
    embedded.run("down")

    assert embedded.processes() == []


def test_without_an_engine_plain_up_serves_it_and_says_so(embedded: Embedded) -> None:
    alone = replace(embedded, environment={**embedded.environment, "DOCKER_HOST": "unix:///nonexistent"})
    alone.run("down")

    announced, said = alone.hear("up", "--detach")

    assert "up: no container engine answers: serving the embedded stack (./scripts/install-docker" in said
    assert f"{embedded.base_url}/api/transactions/" in announced
    assert "Try it next: register, log in and create a transaction" in announced
    assert embedded.processes("gunicorn")
    with embedded.client() as client:
        assert client.get("/readyz").status_code == HTTPStatus.OK
        page = client.get("/api/docs/")
        assets = re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)
        assert len(assets) >= 5, page.text
        for asset in assets:
            answer = client.get(asset)
            assert answer.status_code == HTTPStatus.OK, asset
            assert "immutable" in answer.headers["Cache-Control"], asset
    alone.run("down")
    assert embedded.processes() == []


@pytest.mark.parametrize("ended_by", ["down", "Ctrl-C"])
def test_in_the_foreground_it_says_where_it_is_and_ends_when_it_is_told_to(embedded: Embedded, ended_by: str) -> None:
    embedded.run("down")
    with subprocess.Popen(
        [embedded.checkout / "scripts/up", "--embedded"],
        env=embedded.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    ) as up:  # fmt: skip
        assert up.stdout
        said = []
        for line in up.stdout:
            said.append(line)
            if "The API is ready." in line:
                break
        assert up.poll() is None, "".join(said)
        assert "up: the embedded stack is already running\n" in embedded.hear("up", "--embedded")[1]
        with embedded.client() as client:
            assert client.get("/readyz").status_code == HTTPStatus.OK

        if ended_by == "down":
            embedded.run("down")
        else:
            os.killpg(up.pid, signal.SIGINT)
        up.communicate(timeout=60)

    assert up.returncode == 0
    assert embedded.processes() == []
    assert not (embedded.checkout / "var/embedded/pid").exists(), "the doctor would say that it ended by itself"


def test_down_removes_no_data_from_under_a_server(embedded: Embedded) -> None:
    embedded.run("down")
    data = embedded.checkout / "var/embedded/postgres"
    python = embedded.checkout / "var/embedded/venv/bin/python"
    # As ./scripts/manage does where the stack was stopped.
    server = [str(python), str(embedded.checkout / "scripts/embedded-postgres"), "--data", str(data), "--"]
    with subprocess.Popen(
        [*server, "sh", "-c", "echo begun; read -r word"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout
        assert command.stdout.readline() == "begun\n"
        done = subprocess.run(
            [embedded.checkout / "scripts/down", "--volumes", "--yes"], env=embedded.environment,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        command.communicate("go on\n")

    assert done.returncode == 1
    assert "down: error: something still uses the database in var/embedded/postgres\n  next: wait" in done.stderr
    assert (data / "18/PG_VERSION").exists()
