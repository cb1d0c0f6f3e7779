"""The running containers, as an operator reaches them: docker and docker compose."""

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx

from tests.stack.people import connect, unique

SERVERS = ("db", "backend", "upkeep", "nginx")
"""The services that run for as long as the stack does; ``migrate`` ends."""

SERVICES = ("migrate", *SERVERS)

READY_SECONDS = 60
"""The longest that a disturbed stack may take until all of it is healthy again."""

PATIENCE = 3
"""How many times as long as on a host of its own something may take on one that others use, too."""

Result = subprocess.CompletedProcess[str]

Nginx = Callable[..., str]
"""Starts an nginx with variables of its own; returns its address."""


def run(*command: str, check: bool = True, timeout: float = 60, **options: Any) -> Result:
    """Run ``command`` and return what it printed; when it fails, fail with what it printed."""
    result = subprocess.run(
        command, check=False, capture_output=True, text=True, errors="replace", timeout=timeout, **options
    )
    if check and result.returncode:
        raise AssertionError(f"{' '.join(command)} ended with {result.returncode}:\n{result.stdout}{result.stderr}")
    return result


def free_port(address: str = "127.0.0.1") -> int:
    """Return a port of this host that nobody listens on now."""
    with socket.create_server((address, 0)) as free:
        return int(free.getsockname()[1])


def docker(*arguments: str, check: bool = True, timeout: float = 60) -> Result:
    """Run the Docker client."""
    return run("docker", *arguments, check=check, timeout=timeout)


def eventually(condition: Callable[[], object], *, within: float, what: str) -> None:
    """Wait until ``condition`` holds; fail after ``within`` seconds, or as many times that as a busy host takes."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > within * PATIENCE:
            raise AssertionError(f"{what}: not within {within} s, nor within {PATIENCE} times that")
        time.sleep(0.2)


@dataclass(frozen=True)
class Container:
    """One container, by its id."""

    id: str

    def inspect(self) -> dict[str, Any]:
        """Return everything that Docker knows about it."""
        return dict(json.loads(docker("inspect", self.id).stdout)[0])

    def execute(self, *command: str, check: bool = True, timeout: float = 60) -> Result:
        """Run a command in it, as its own user."""
        return docker("exec", self.id, *command, check=check, timeout=timeout)

    def feed(self, text: str, *command: str) -> Result:
        """Run a command in it with ``text`` as its input."""
        return run("docker", "exec", "--interactive", self.id, *command, input=text)

    def health(self) -> str:
        """Return what its HEALTHCHECK says: starting, healthy or unhealthy."""
        return str(self.inspect()["State"]["Health"]["Status"])

    def address(self, network: str) -> str:
        """Return its address in ``network``."""
        return str(self.inspect()["NetworkSettings"]["Networks"][network]["IPAddress"])


@dataclass(frozen=True)
class Stack:
    """The stack under test; ``project`` may name another one, of the same images."""

    checkout: Path
    base_url: str
    project: str = ""

    def compose(self, *arguments: str, check: bool = True, timeout: float = 120, **options: Any) -> Result:
        """Run Docker Compose in the checkout; the environment names the project, the release and the port."""
        project = ("--project-name", self.project) if self.project else ()
        return run(
            "docker",
            "compose",
            "--ansi",
            "never",
            *project,
            *arguments,
            check=check,
            timeout=timeout,
            cwd=self.checkout,
            **options,
        )

    def name(self) -> str:
        """Return the name of the Compose project."""
        return str(self.configuration()["name"])

    def configuration(self) -> dict[str, Any]:
        """Return the Compose file as Compose understands it."""
        return dict(json.loads(self.compose("config", "--format", "json").stdout))

    def containers(self, service: str) -> list[Container]:
        """Return the containers of ``service``, also those that have ended; fail where there is none."""
        shown = self.compose("ps", "--all", "--no-trunc", "--format", "{{.ID}} {{.Name}}", service).stdout
        # Those of commands that other tests run meanwhile are not of the service.
        found = [Container(line.split()[0]) for line in shown.splitlines() if "-run-" not in line]
        assert found, f"{service} has no container"
        return found

    def container(self, service: str) -> Container:
        """Return the only container of ``service``, or its first."""
        return self.containers(service)[0]

    def logs(self, service: str, *options: str) -> str:
        """Return what the containers of ``service`` wrote, line by line as they wrote it."""
        written = [docker("logs", *options, container.id) for container in self.containers(service)]
        return "".join(result.stdout + result.stderr for result in written)

    def sql(self, statement: str, *, role: str = "postgres", check: bool = True) -> Result:
        """Run a statement in the stack's database, over its own socket or loopback address."""
        return self.container("db").execute(
            *("psql", "-X", "-At", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", role, "-d", "transactions"),
            *("-c", statement),
            check=check,
        )

    def is_ready(self) -> bool:
        """Whether nginx reaches a backend that reaches the database."""
        try:
            with connect(self.base_url) as client:
                return client.get("/readyz").status_code == HTTPStatus.OK
        except httpx.TransportError:
            return False

    def wait_until_whole(self) -> None:
        """Wait until every server is healthy and the API answers through each of its backends."""

        def whole() -> bool:
            servers = [container for service in SERVERS for container in self.containers(service)]
            return all(server.health() == "healthy" for server in servers) and all(self.is_ready() for _ in range(4))

        eventually(whole, within=READY_SECONDS, what="the stack is whole again")


@contextmanager
def another_nginx(stack: Stack, **variables: str) -> Iterator[str]:
    """Start an nginx of the stack's image before the same backends; give its address."""
    running = stack.container("nginx").inspect()
    name = unique(f"{stack.name()}-own")
    options = [option for key, value in variables.items() for option in ("--env", f"{key}={value}")]
    docker(
        *("run", "--detach", "--read-only", "--cap-drop", "ALL", "--tmpfs", "/tmp:mode=1777", "--name", name),
        *("--env", "DJANGO_ALLOWED_HOSTS=localhost,127.0.0.1", *options, "--publish", "127.0.0.1::8080"),
        *("--network", f"{stack.name()}_edge", running["Image"]),
    )
    try:
        docker("network", "connect", f"{stack.name()}_application", name)
        port = docker("port", name, "8080/tcp").stdout.split(":")[-1].strip()
        ready = Stack(stack.checkout, f"http://127.0.0.1:{port}")
        eventually(ready.is_ready, within=20, what="the other nginx serves")
        yield ready.base_url
    finally:
        docker("rm", "--force", name)


def assert_no_container_stays(stack: Stack) -> None:
    """Fail where ``docker compose run`` has left a container; those of tests beside this one go by themselves."""

    def listed() -> set[str]:
        return {
            name for name in stack.compose("ps", "--all", "--format", "{{.Name}}").stdout.split() if "-run-" in name
        }

    found = listed()
    eventually(lambda: not found & listed(), within=10, what="no container of a command that has ended is left")
