"""The support archive: what somebody who helps needs to see, and nothing that they must not."""

from __future__ import annotations

import io
import json
import os
import platform
import re
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from scripts.diagnosis.commands import run
from scripts.diagnosis.configuration import NOT_OURS
from scripts.diagnosis.findings import NotSeen
from scripts.diagnosis.host import wanted_secrets
from scripts.diagnosis.installation import Container, Installation
from scripts.diagnosis.redaction import GONE, SECRET_NAME, Redactor

LOG_LINES = 2000
"""For each container; a stack that is in trouble writes some lines a second."""

LEAST_OF_UNDECLARED = 8

README = """\
What ./scripts/doctor --bundle saw, made {when}.

  findings.json        what is wrong, and the command that mends it
  versions.json        of everything that takes part
  host.json            room and load
  configuration.yaml   docker-compose.yml with the variables put in
  variables.json       what .env sets
  containers.json      their states and limits, and what their health checks said
  usage.txt            what they use
  postgres.json        settings that are not PostgreSQL's own, sizes and connections
  releases.log         what was deployed, and when
  logs/                the last {lines} lines of each container, and of var/

Secrets, tokens, cookies, query strings, mail addresses and the addresses of clients are replaced; the same address has
the same number throughout. Read it before you pass it on: what a person wrote where nobody expects a secret cannot be
told from other text.
"""


class Bundle:
    """One archive."""

    def __init__(self, installation: Installation, findings: str) -> None:
        """Prepare an archive of the findings, given as JSON, and what is behind them."""
        self.installation = installation
        self.findings = findings
        self.redact = redactor(installation)

    def write(self, chosen: Path) -> int:
        """Write the archive, print its name, and return 0; or say why not, and return 1."""
        now = time.gmtime()
        stem = f"{self.installation.title()}-support-{time.strftime('%Y%m%dT%H%M%SZ', now)}"
        # Path() is what `--bundle` alone means.
        target = chosen if chosen != Path() else self.installation.root / "var/support" / f"{stem}.tar.gz"
        if target.exists():
            return _refuse(f"{target} is there already", "name another file")
        files = {"README.txt": README.format(when=time.strftime("%Y-%m-%d %H:%M UTC", now), lines=LOG_LINES)}
        files |= self.collected()
        if any(self.redact.leaks(text) for text in files.values()):
            return _refuse("a secret would be in the archive; nothing was written", "report this as a defect")
        try:
            if chosen == Path():
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_archive(target, stem, files)
        except OSError as error:
            return _refuse(f"{target} cannot be written: {error.strerror}", "name another file")
        print(target)
        print("doctor: read it before you pass it on; README.txt in it says what was taken out", file=sys.stderr)
        return 0

    def collected(self) -> dict[str, str]:
        """Return every file of the archive, redacted; what could not be seen says why."""
        sources: dict[str, Callable[[], str]] = {
            "findings.json": lambda: self.findings,
            "versions.json": lambda: _json(versions(self.installation)),
            "host.json": lambda: _json(about_the_host(self.installation)),
            "configuration.yaml": lambda: _configuration(self.installation),
            "variables.json": lambda: _json(_variables(self.installation)),
            "containers.json": lambda: _json([about(item) for item in self.installation.containers()]),
            "usage.txt": lambda: _usage(self.installation),
            "postgres.json": lambda: _json(_postgres(self.installation)),
            "releases.log": lambda: tail(self.installation.root / "var/releases.log"),
        }
        files = {name: self.redact(_seen(source)) for name, source in sources.items()}
        return files | {name: self.redact(text) for name, text in logs(self.installation).items()}


def redactor(installation: Installation) -> Redactor:
    """Return what takes out the secrets of this installation."""
    secrets: set[str] = set()
    folder = installation.root / "secrets"
    try:
        paths = {*wanted_secrets(installation), *(path for path in folder.iterdir() if path.is_file())}
    except OSError:
        paths = set()
    for path in paths:
        try:
            secrets.add(path.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue  # what this account cannot read, it cannot pass on
    try:
        registry = installation.registry()
    except NotSeen:
        registry = {}
    shown = {name for name, declared in registry.items() if not declared.secret}
    with suppress(NotSeen):
        lines = installation.dotenv()
        for name, value in lines.values.items():
            # What nobody has declared may be a secret; a short word of it would be taken out of every sentence.
            undeclared = name not in registry and not name.startswith(NOT_OURS) and len(value) >= LEAST_OF_UNDECLARED
            if (name in registry and name not in shown) or SECRET_NAME.search(name) or undeclared:
                secrets.add(value)
        # Where a value begins and ends in these is not known.
        for name, written in lines.refused.items():
            if name not in shown:
                secrets |= {word for word in re.split(r"[\s'\"]+", written) if len(word) >= LEAST_OF_UNDECLARED}
    secrets |= {
        value for name, value in os.environ.items()
        if name not in shown and (name in registry or SECRET_NAME.search(name)) and not value.startswith("/")
    }  # fmt: skip
    return Redactor(
        secrets,
        shown=shown,
        networks=_networks(installation),
        paths=[(str(installation.root), "CHECKOUT"), (str(Path.home()), "HOME")],
    )


def _networks(installation: Installation) -> set[str]:
    """Return the networks between the containers; an address in them is a container's, or this host's."""
    found: set[str] = set()
    try:
        containers = installation.containers()
    except NotSeen:
        return found
    for container in containers:
        for network in (container.about["NetworkSettings"]["Networks"] or {}).values():
            done = run(
                "docker",
                "network",
                "inspect",
                "--format",
                "{{range .IPAM.Config}}{{.Subnet}} {{end}}",
                network["NetworkID"],
            )
            if done.status == 0:
                found |= set(done.stdout.split())
    return found


def _seen(source: Callable[[], str]) -> str:
    try:
        return source()
    except NotSeen as reason:
        return f"Not seen: {reason}.\n"
    except Exception as error:
        return f"Not seen: {type(error).__name__}: {error}\n"


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def _said(*command: str) -> str:
    """Return what a program says of itself, or why it says nothing."""
    try:
        done = run(*command)
    except NotSeen as reason:
        return str(reason)
    return (done.stdout.strip() or done.stderr.strip()) if done.status == 0 else done.last_line()


def versions(installation: Installation) -> dict[str, str]:
    """Return the versions of everything that takes part."""
    root = str(installation.root)
    found = {
        "system": _said("sh", "-c", ". /etc/os-release && echo $PRETTY_NAME"),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "docker": _said("docker", "version", "--format", "client {{.Client.Version}}, engine {{.Server.Version}}"),
        "compose": _said("docker", "compose", "version", "--short"),
        "buildx": _said("docker", "buildx", "version"),
        "checkout": _said("git", "-C", root, "describe", "--always", "--dirty", "--tags", "--abbrev=40"),
        "release": installation.setting("RELEASE"),
    }
    inside = {
        "db": ("postgres", "--version"),
        "nginx": ("nginx", "-v"),
        "backend": (
            "python",
            "-c",
            "import django, platform; print('Python', platform.python_version(), 'Django', django.__version__)",
        ),
    }
    for service, command in inside.items():
        try:
            container = installation.one_of(service)
            done = installation.execute(container, *command)
            found[service] = (done.stdout or done.stderr).strip()
            found[f"image of {service}"] = str(container.about["Image"])
        except NotSeen as reason:
            found[service] = str(reason)
    return found


def about_the_host(installation: Installation) -> dict[str, Any]:
    """Return room and load."""
    disk = os.statvfs(installation.root)
    kept = ("MemTotal:", "MemAvailable:", "SwapTotal:", "SwapFree:")
    return {
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
        "memory": [line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith(kept)],
        "uptime_seconds": float(Path("/proc/uptime").read_text().split()[0]),
        "disk_bytes": {"size": disk.f_blocks * disk.f_frsize, "free": disk.f_bavail * disk.f_frsize},
        "disk_inodes": {"size": disk.f_files, "free": disk.f_favail},
    }


def _configuration(installation: Installation) -> str:
    done = installation.compose("config")
    return done.stdout if done.status == 0 else done.stderr


def _variables(installation: Installation) -> dict[str, str]:
    """Return what .env sets: values only of what is declared and no secret."""
    registry = installation.registry()
    return {
        name: value if name in registry and not registry[name].secret else GONE
        for name, value in installation.dotenv().values.items()
    }


def about(container: Container) -> dict[str, Any]:
    """Return what matters of a container; of its variables the names."""
    inspected = container.about
    host = inspected["HostConfig"]
    state = container.state
    health = state.pop("Health", None) or {}
    return {
        "name": container.name,
        "service": container.service,
        "image": [inspected["Config"]["Image"], inspected["Image"]],
        "state": state,
        "health": health.get("Status"),
        "health_log": [
            [item["Start"], item["ExitCode"], item["Output"].strip()[-500:]] for item in health.get("Log") or []
        ],
        "restarts": inspected["RestartCount"],
        "created": inspected["Created"],
        "command": inspected["Config"]["Cmd"],
        "variables": sorted(container.environment),
        "memory_bytes": host["Memory"],
        "pids": host["PidsLimit"],
        "restart_policy": host["RestartPolicy"],
        "ports": host["PortBindings"],
        "networks": sorted(inspected["NetworkSettings"]["Networks"] or {}),
        "mounts": [
            [item["Type"], item.get("Name", ""), item["Destination"], item["RW"]] for item in inspected["Mounts"]
        ],
    }


def _usage(installation: Installation) -> str:
    running = [container.id for container in installation.containers() if container.state["Running"]]
    if not running:
        raise NotSeen("no container runs")
    form = "table {{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"
    return run("docker", "stats", "--no-stream", "--format", form, *running, seconds=20).stdout


POSTGRES = {
    # What may hold a password or a command line of the operator's is left out by name.
    "settings": "SELECT name, setting, unit, source FROM pg_settings"
    " WHERE source NOT IN ('default', 'client', 'session') "
    " AND name !~ '(conninfo|passphrase|_command|password)' ORDER BY name",
    "databases": "SELECT datname, pg_database_size(datname), numbackends, xact_commit, xact_rollback,"
    " deadlocks, temp_bytes FROM pg_stat_database WHERE datname IS NOT NULL ORDER BY 1",
    "connections": "SELECT usename, state, wait_event_type, wait_event, count(*), max(now() - state_change)"
    " FROM pg_stat_activity GROUP BY 1, 2, 3, 4 ORDER BY 5 DESC",
    "waiting_for_locks": "SELECT locktype, mode, count(*) FROM pg_locks WHERE NOT granted GROUP BY 1, 2",
}


def _postgres(installation: Installation) -> dict[str, list[list[str]]]:
    return {name: installation.sql(statement) for name, statement in POSTGRES.items()}


def tail(path: Path, lines: int = LOG_LINES) -> str:
    """Return the end of a file."""
    try:
        with path.open("rb") as file:
            # No line of a log of this stack is longer than 4 kB; most have 300 bytes.
            file.seek(max(0, path.stat().st_size - lines * 1000))
            return b"\n".join(file.read().splitlines()[-lines:]).decode(errors="replace") + "\n"
    except OSError as error:
        raise NotSeen(f"{path.name} cannot be read: {error.strerror}") from None


def logs(installation: Installation) -> dict[str, str]:
    """Return the end of every log, by the name that it has in the archive."""
    found: dict[str, str] = {}
    try:
        containers = installation.containers()
    except NotSeen as reason:
        containers = []
        found["logs/containers.log"] = f"Not seen: {reason}.\n"
    for container in containers:
        found[f"logs/{container.name}.log"] = _seen(partial(_log, container))
    var = installation.root / "var"
    for path in [var / "embedded/log", var / "embedded/postgres/postgres.log", *sorted((var / "log").glob("*.log"))]:
        if path.is_file():
            name = path.relative_to(var).as_posix().replace("/", "-")
            found[f"logs/var-{name}"] = _seen(partial(tail, path))
    return found


def _log(container: Container) -> str:
    done = run("docker", "logs", "--timestamps", "--tail", str(LOG_LINES), container.id)
    return done.stdout + done.stderr


def _write_archive(target: Path, stem: str, files: dict[str, str]) -> None:
    unfinished = target.with_name(f"{target.name}.new")
    unfinished.unlink(missing_ok=True)
    # Exclusive and closed to others from its first byte on.
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as raw, tarfile.open(fileobj=raw, mode="w:gz") as tar:
            for name, text in sorted(files.items()):
                held = text.encode(errors="replace")
                member = tarfile.TarInfo(f"{stem}/{name}")
                member.size, member.mode, member.mtime = len(held), 0o600, int(time.time())
                tar.addfile(member, io.BytesIO(held))
        unfinished.rename(target)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def _refuse(what: str, action: str) -> int:
    print(f"doctor: error: {what}\n  next: {action}", file=sys.stderr)
    return 1
