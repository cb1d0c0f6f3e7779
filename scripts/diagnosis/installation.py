"""The facts about one checkout and what runs of it; each is gathered once, when somebody first asks."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from config.env_file import Lines, parse

from scripts.diagnosis.commands import SECONDS, Result, run, run_bytes
from scripts.diagnosis.findings import NotSeen

ROOT = Path(__file__).resolve().parents[2]
UP = "./scripts/up --detach"
REFUSED = 78
"""EX_CONFIG: how the application, nginx and the check of .env end when the configuration is wrong."""

ASK = """
import json, sys
import django
django.setup()
from django.db import Error, connection, transaction
try:
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION READ ONLY")
        cursor.execute(sys.stdin.read())
        print(json.dumps([[str(value) for value in row] for row in cursor.fetchall()]))
except Error as error:
    sys.exit(" ".join(str(error).split()))
"""
"""Asks the database that a backend uses, in its own way: its address, its role, its certificates."""

T = TypeVar("T")


def fact(gather: Callable[[Any], T]) -> Callable[[Any], T]:
    """Gather once; a failure is remembered as well, so that an engine that hangs is waited for once."""

    @wraps(gather)
    def remembered(self: Any) -> T:
        facts: dict[str, tuple[bool, Any]] = self.facts
        if gather.__name__ not in facts:
            try:
                facts[gather.__name__] = True, gather(self)
            except NotSeen as reason:
                facts[gather.__name__] = False, reason
        seen, value = facts[gather.__name__]
        if not seen:
            raise value
        return value

    return remembered


@dataclass(frozen=True)
class Declared:
    """A variable, as env.example declares it."""

    name: str
    default: str | None
    optional: bool
    secret: bool
    files: tuple[str, ...] = ()
    """Those in secrets/ that hold its value in containers."""


def read_registry(text: str) -> dict[str, Declared]:
    """Return every variable that env.example names; backend/config/env.py makes that file."""
    found: dict[str, Declared] = {}
    comment = ""
    for line in [*text.splitlines(), ""]:
        match = re.match(r"#?([A-Z][A-Z0-9_]*)=(.*)", line)
        if match:
            required, optional = "\n# Required" in comment, "\n# Optional" in comment
            default = None if required or optional else match[2]
            said = comment.partition(" A secret")
            found[match[1]] = Declared(
                match[1], default, optional, bool(said[1]), tuple(re.findall(r"secrets/\w+", said[2]))
            )
        elif line.startswith("# "):
            comment += f"\n{line}"
        elif not line.strip():
            comment = ""
    return found


@dataclass(frozen=True)
class Container:
    """One container, as the engine describes it."""

    about: dict[str, Any]

    @property
    def id(self) -> str:
        """Its id."""
        return str(self.about["Id"])

    @property
    def name(self) -> str:
        """Its name, as `docker ps` shows it."""
        return str(self.about["Name"]).lstrip("/")

    @property
    def service(self) -> str:
        """The service that it belongs to."""
        return str(self.about["Config"]["Labels"].get("com.docker.compose.service", ""))

    @property
    def state(self) -> dict[str, Any]:
        """What the engine says about how it fares."""
        return dict(self.about["State"])

    @property
    def serves(self) -> bool:
        """Whether something can be asked of it."""
        state = self.state
        return bool(state["Running"]) and not state["Paused"] and not state["Restarting"]

    @property
    def environment(self) -> dict[str, str]:
        """The variables that it was started with."""
        return variables_of(self.about)

    @property
    def addresses(self) -> set[str]:
        """Its addresses in all networks."""
        networks = self.about["NetworkSettings"]["Networks"] or {}
        return {network["IPAddress"] for network in networks.values() if network.get("IPAddress")}


class Installation:
    """This checkout, its .env and secrets/, and its containers."""

    def __init__(self, root: Path = ROOT) -> None:
        """Look at the checkout in ``root``."""
        self.root = root
        self.facts: dict[str, tuple[bool, Any]] = {}

    # Files ------------------------------------------------------------------------------------------------------------

    @fact
    def registry(self) -> dict[str, Declared]:
        """Return every declared variable."""
        try:
            return read_registry((self.root / "env.example").read_text(encoding="utf-8"))
        except OSError as error:
            raise NotSeen(f"env.example cannot be read: {error.strerror}") from None

    @fact
    def dotenv(self) -> Lines:
        """Return what .env says; whatever ./scripts/up refuses in it is not read."""
        try:
            return parse((self.root / ".env").read_bytes().decode(errors="replace"))
        except OSError as error:
            raise NotSeen(f".env cannot be read: {error.strerror}") from None

    @fact
    def refusals(self) -> list[str]:
        """Return why ./scripts/up would refuse .env and secrets/; as check_configuration in scripts/lib.sh asks."""
        python = ("env", f"PYTHONPATH={self.root / 'backend'}", sys.executable, "-B", "-P", "-s")
        secrets = () if self.is_embedded() else ("--containers",)
        done = run(*python, "-m", "config.env_file", *secrets, str(self.root / ".env"))
        if done.status not in {0, REFUSED}:
            raise NotSeen(f"the check of .env failed: {done.last_line()}")
        return [line.replace(f"{self.root}/", "") for line in re.findall(r"(?m)^  - (.+)$", done.stderr)]

    def setting(self, name: str, default: str = "") -> str:
        """Return a variable as Compose would see it: from the shell, .env, or its declared default."""
        value = os.environ.get(name)
        if value is None:
            try:
                lines = self.dotenv()
            except NotSeen:
                lines = Lines({}, {}, [])
            if name in lines.refused:
                raise NotSeen(f"the line of {name} in .env is refused")
            value = lines.values.get(name)
        if value:
            return value
        try:
            declared = self.registry().get(name)
        except NotSeen:
            declared = None
        return (declared.default if declared else None) or default

    def assignment(self, name: str, value: str) -> str:
        """Return the command that gives a variable another value, where it got its value from."""
        if os.environ.get(name):
            return f"export {name}={shlex.quote(value)}"
        return f"sed -i '/^{name}=/d' .env && printf '\\n%s\\n' {shlex.quote(f'{name}={value}')} >>.env"

    def embedded_runs(self) -> bool:
        """Whether the embedded stack of this checkout runs; as embedded_runs in scripts/lib.sh."""
        try:
            pid = (self.root / "var/embedded/pid").read_text().strip()
            return b"embedded" in Path(f"/proc/{int(pid)}/cmdline").read_bytes()
        except (OSError, ValueError):
            return False

    def is_embedded(self) -> bool:
        """Whether the stack that is here is the embedded one; as stack_mode in scripts/lib.sh."""
        try:
            self.engine()
        except NotSeen:
            return self.embedded_runs() or (self.root / "var/embedded/postgres").is_dir()
        return self.embedded_runs()

    # The engine -------------------------------------------------------------------------------------------------------

    @fact
    def engine(self) -> dict[str, Any]:
        """Return what `docker version` says of the engine."""
        done = run("docker", "version", "--format", "{{json .Server}}")
        try:
            server = json.loads(done.stdout)
        except ValueError:
            server = None
        if done.status or not server:
            raise NotSeen(f"no container engine answers: {done.last_line()}")
        return dict(server)

    @fact
    def engine_host(self) -> dict[str, Any]:
        """Return what `docker info` says of the machine that the engine runs on."""
        self.engine()
        return dict(json.loads(run("docker", "info", "--format", "{{json .}}").stdout))

    @fact
    def compose_version(self) -> str:
        """Return the version of Compose."""
        done = run("docker", "compose", "version", "--short")
        if done.status:
            raise NotSeen(f"there is no Compose: {done.last_line()}")
        return done.stdout.strip().removeprefix("v")

    def compose(self, *arguments: str, seconds: float = SECONDS) -> Result:
        """Run Compose for this checkout, as compose in scripts/lib.sh does."""
        return run(
            "docker", "compose", "--ansi", "never", "--project-directory", str(self.root), *arguments, seconds=seconds
        )

    @fact
    def configuration(self) -> dict[str, Any]:
        """Return docker-compose.yml with the variables of now put in."""
        self.compose_version()
        done = self.compose("config", "--format", "json")
        if done.status:
            raise NotSeen(f"Compose cannot read the configuration: {done.last_line()}")
        return dict(json.loads(done.stdout))

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        """The services that there should be."""
        return dict(self.configuration()["services"])

    def service(self, name: str) -> dict[str, Any]:
        """Return one service; without it there is nothing to look at."""
        if name not in self.services:
            raise NotSeen(f"this stack has no service {name}")
        return self.services[name]

    @fact
    def project(self) -> str:
        """Return the name of the Compose project, also where the configuration cannot be read."""
        try:
            return str(self.configuration()["name"])
        except NotSeen:
            return self.setting("COMPOSE_PROJECT_NAME", "transactions")

    def title(self) -> str:
        """Return what people call this installation, even where nobody knows its project."""
        try:
            return self.project()
        except NotSeen:
            return "transactions"

    @fact
    def containers(self) -> list[Container]:
        """Return the project's containers, whatever their state, in order of their names."""
        self.engine()
        label = f"label=com.docker.compose.project={self.project()}"
        ids = run("docker", "ps", "--all", "--quiet", "--no-trunc", "--filter", label).stdout.split()
        if not ids:
            return []
        # One that has been removed in between is left out.
        found = [Container(about) for about in json.loads(run("docker", "inspect", *ids).stdout or "[]")]
        of_the_stack = [
            item for item in found if item.about["Config"]["Labels"].get("com.docker.compose.oneoff") != "True"
        ]
        return sorted(of_the_stack, key=lambda container: container.name)

    @property
    def starts_database(self) -> bool:
        """Whether the database is a container of this stack; if not, it is a server of somebody else."""
        return replicas_of(self.services.get("db", {"scale": 0})) > 0

    def all_of(self, service: str) -> list[Container]:
        """Return the containers of one service."""
        return [container for container in self.containers() if container.service == service]

    def serving(self, service: str) -> list[Container]:
        """Return the containers of one service that can be asked something."""
        self.service(service)
        return [container for container in self.all_of(service) if container.serves]

    def one_of(self, service: str) -> Container:
        """Return a container of one service that can be asked something."""
        serving = self.serving(service)
        if not serving:
            raise NotSeen(f"{service} does not run")
        return serving[0]

    @fact
    def images(self) -> dict[str, dict[str, Any]]:
        """Return the images of the containers, and those that the configuration names, by id and by name."""
        wanted = {container.about["Image"] for container in self.containers()}
        wanted |= {str(service["image"]) for service in self.services.values()}
        found = {}
        for name in sorted(wanted):
            done = run("docker", "image", "inspect", name)
            if done.status == 0:
                found[name] = dict(json.loads(done.stdout)[0])
        return found

    def execute(self, container: Container, *command: str, text: str = "", seconds: float = SECONDS) -> Result:
        """Run a command in a container, as its own user."""
        interactive = ("--interactive",) if text else ()
        return run("docker", "exec", *interactive, container.id, *command, text=text, seconds=seconds)

    def read(self, container: Container, path: str) -> bytes | None:
        """Return a file of a container that may have stopped; None where there is none."""
        status, archive, _complaint = run_bytes("docker", "cp", f"{container.id}:{path}", "-")
        if status:
            return None
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for member in tar:
                held = tar.extractfile(member)
                if held:
                    return held.read()
        return None

    def sql(self, statement: str) -> list[list[str]]:
        """Return the rows that a statement has in the stack's database.

        One of its own is asked as the superuser, over its loopback address; one of somebody else by a backend, as the
        application's role, whom PostgreSQL does not show everything.
        """
        if not self.starts_database:
            return self._sql_of_backend(statement)
        done = self.execute(
            self.one_of("db"),
            *("env", "PGCONNECT_TIMEOUT=3", "PGOPTIONS=-c statement_timeout=5000 -c default_transaction_read_only=on"),
            *("psql", "-X", "-At", "-F", "\t", "-h", "127.0.0.1", "-U", "postgres", "-d", "postgres", "-c", statement),
        )
        if done.status:
            raise NotSeen(f"the database did not answer: {done.last_line()}")
        return [line.split("\t") for line in done.stdout.splitlines()]

    def _sql_of_backend(self, statement: str) -> list[list[str]]:
        ask = ("env", "DJANGO_SETTINGS_MODULE=config.settings", "python", "-c", ASK)
        done = self.execute(self.one_of("backend"), *ask, text=statement, seconds=30)
        if done.status:
            raise NotSeen(f"the database did not answer: {done.last_line()}")
        return [list(row) for row in json.loads(done.stdout)]


def replicas_of(service: dict[str, Any]) -> int:
    """Return how many containers of a service there should be."""
    return int(service.get("deploy", {}).get("replicas", service.get("scale", 1)))


def variables_of(about: dict[str, Any]) -> dict[str, str]:
    """Return the variables of a container or an image; Compose writes one that has no value without a sign."""
    given = about.get("Config", {}).get("Env") or []
    return dict(item.split("=", 1) for item in given if "=" in item)


def unescaped(value: str) -> str:
    """Return what Compose means: it doubles each dollar sign where it prints a value."""
    return value.replace("$$", "$")


def version_tuple(version: str) -> tuple[int, ...]:
    """Return the numbers at the beginning of a version."""
    match = re.match(r"v?(\d+(?:\.\d+)*)", version)
    return tuple(int(number) for number in match[1].split(".")) if match else ()
