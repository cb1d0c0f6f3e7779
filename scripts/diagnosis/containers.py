"""The engine and the containers: what runs, how it fares, and whether it is what the files say."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import socket
from datetime import datetime
from pathlib import Path
from typing import Any

from scripts.diagnosis.commands import run
from scripts.diagnosis.configuration import EDIT
from scripts.diagnosis.findings import Finding, Findings, NotSeen, listed, ok, problem, unknown, warning
from scripts.diagnosis.host import wanted_secrets
from scripts.diagnosis.installation import (
    REFUSED,
    UP,
    Container,
    Installation,
    replicas_of,
    unescaped,
    variables_of,
    version_tuple,
)

OLDEST_ENGINE = (26, 1)
OLDEST_COMPOSE = (2, 26)
"""Those of Debian 13, the oldest that the project is tested with; scripts/lib.sh says it too."""


def engine(installation: Installation) -> Findings:
    """Ask the engine and Compose for their versions."""
    try:
        version = str(installation.engine()["Version"])
    except NotSeen as reason:
        yield _no_engine(str(reason), embedded=installation.embedded_runs())
        return
    if version_tuple(version) < OLDEST_ENGINE:
        yield warning(
            "engine",
            f"The engine is {version}; {_dotted(OLDEST_ENGINE)} is the oldest that is tested.",
            "sudo apt-get update && sudo apt-get upgrade",
        )
    else:
        yield ok("engine", f"The container engine {version} answers.")
    try:
        compose = installation.compose_version()
    except NotSeen as reason:
        yield problem("compose", f"{reason}.", "sudo ./scripts/install-docker")
        return
    if version_tuple(compose) < OLDEST_COMPOSE:
        message = f"Compose is {compose}; {_dotted(OLDEST_COMPOSE)} or newer is needed."
        yield problem("compose", message, "sudo ./scripts/install-docker")
    else:
        yield ok("compose", f"Compose is {compose}.")


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(number) for number in version)


def _no_engine(reason: str, *, embedded: bool) -> Finding:
    if embedded:
        return ok("engine", "No container engine answers; the embedded stack, which runs, needs none.")
    if "permission denied" in reason:
        message = "The container engine does not let this account in."
        return problem("engine", message, 'sudo usermod --append --groups docker "$USER"  # then log in again')
    return problem(
        "engine", f"{reason[0].upper()}{reason[1:]}.", "sudo ./scripts/install-docker  # or: ./scripts/up --embedded"
    )


# What runs ------------------------------------------------------------------------------------------------------------

INTERRUPTED = "The first start of this database was interrupted"
"""What db/entrypoint.sh says."""


def containers(installation: Installation) -> Findings:
    """Look at the state of every container that there should be."""
    installation.engine()
    present = installation.containers()
    if not present:
        if not installation.embedded_runs():
            yield warning("containers", f"No container of the project {installation.project()} is there.", UP)
        return
    found = []
    services = installation.services
    for service, wanted in services.items():
        of_it = installation.all_of(service)
        replicas = replicas_of(wanted)
        if len(of_it) < replicas:
            lacking = f"{replicas - len(of_it)} of {replicas} containers of {service} are missing."
            found.append(problem(f"containers.{service}", lacking, UP))
        for container in of_it:
            finding = judge_container(installation, container, ends=wanted.get("restart") == "no")
            if finding:
                found.append(finding)
    orphans = {container.service for container in present} - set(services)
    if orphans:
        message = f"Containers are left of services that there are no more: {listed(orphans)}."
        found.append(warning("containers.orphans", message, f"{UP}"))
    yield from found or [ok("containers", f"All {len(present)} containers are as they should be.")]


def judge_container(installation: Installation, container: Container, *, ends: bool) -> Finding | None:
    """Judge the state of one container; None where it is what it should be. ``ends``: it does its work and exits."""
    state, name, service = container.state, container.name, container.service
    identity = f"containers.{name.removeprefix(installation.project() + '-')}"
    health = state.get("Health", {}).get("Status", "")
    log = f"docker compose logs --tail 50 {service}"
    if state["Paused"]:
        return problem(identity, f"{name} is paused.", f"docker compose unpause {service}")
    if state["Restarting"] or (not state["Running"] and (not ends or state["ExitCode"])):
        return _judge_end(installation, container, identity)
    if state["OOMKilled"]:
        return problem(identity, f"{name} has hit its memory limit.", f"{UP}  # after raising its *_MEMORY_MB in .env")
    if health == "unhealthy":
        return problem(identity, f"{name} is unhealthy.", f"{log}; docker compose restart {service}")
    if health == "starting":
        return warning(identity, f"{name} is starting.", "sleep 30; ./scripts/doctor")
    return None


def _judge_end(installation: Installation, container: Container, identity: str) -> Finding:
    state, name, service = container.state, container.name, container.service
    how = "starts again and again" if state["Restarting"] else f"is {state['Status']}"
    said = run("docker", "logs", "--tail", "60", container.id)
    written = said.stdout + said.stderr
    if service == "db" and INTERRUPTED in written:
        message = f"{name} {how}: its first start was interrupted, and it holds no data yet."
        return problem(identity, message, "./scripts/down --volumes --yes && ./scripts/up --detach")
    if state["ExitCode"] == REFUSED:
        # Only the names: the sentences are the application's, but what is in a log may be anybody's.
        names = set(re.findall(r"(?m)^  - ([A-Z][A-Z0-9_]{2,60})\b", written))
        message = f"{name} {how}: it refuses the configuration{f' ({listed(names)})' if names else ''}."
        return problem(identity, message, f"docker compose logs --tail 30 {service}; {EDIT}")
    if state["OOMKilled"]:
        message = f"{name} {how}: it hit its memory limit."
        return problem(identity, message, f"{UP}  # after raising its *_MEMORY_MB in .env")
    return problem(
        identity, f"{name} {how}, exit status {state['ExitCode']}; `docker compose logs {service}` says why.", UP
    )


# What was not applied -------------------------------------------------------------------------------------------------


def applied(installation: Installation) -> Findings:
    """Compare what runs with what the files say now."""
    found = []
    anything = False
    for name, service in installation.services.items():
        serving = installation.serving(name)
        if not serving:
            continue
        anything = True
        differences = {item for container in serving for item in compare(installation, container, service)}
        if differences:
            message = f"{name} runs with other values than .env and docker-compose.yml say now: {listed(differences)}."
            found.append(warning(f"applied.{name}", message, UP))
        # The database reads passwords when it is made, never again.
        changed = _changed_secrets(installation, serving, service) if name != "db" else set()
        if changed:
            message = f"{name} was started before {listed(changed)} changed, and reads it only at its start."
            found.append(
                warning(f"applied.{name}.secrets", message, f"docker compose up --detach --force-recreate {name}")
            )
    found += _networks(installation) if anything else []
    if not anything:
        raise NotSeen("no container runs")
    yield from found or [ok("applied", "What runs is what .env, secrets/ and docker-compose.yml say.")]


def compare(installation: Installation, container: Container, service: dict[str, Any]) -> set[str]:
    """Return what differs between a container and its service; names, never values."""
    about = container.about
    differences = set()
    of_the_image = variables_of(installation.images().get(about["Image"], {}))
    given = {name: value for name, value in (service.get("environment") or {}).items() if value is not None}
    wanted = {**of_the_image, **{name: unescaped(str(value)) for name, value in given.items()}}
    running = container.environment
    differences |= {name for name in wanted.keys() | running.keys() if wanted.get(name) != running.get(name)}
    command = service.get("command")
    if command is not None and [unescaped(word) for word in command] != about["Config"]["Cmd"]:
        differences.add("the command")
    if about["Config"]["Image"] != service["image"]:
        differences.add("the image")
    limit = int(service.get("deploy", {}).get("resources", {}).get("limits", {}).get("memory", 0))
    if limit != about["HostConfig"]["Memory"]:
        differences.add("the memory limit")
    if _published(service) != _bound(about):
        differences.add("the published port")
    return differences


def _published(service: dict[str, Any]) -> set[tuple[str, str, str]]:
    ports = service.get("ports", [])
    return {(str(port["target"]), port.get("host_ip", ""), str(port.get("published", ""))) for port in ports}


def _bound(about: dict[str, Any]) -> set[tuple[str, str, str]]:
    bindings = about["HostConfig"]["PortBindings"] or {}
    return {
        (target.partition("/")[0], bound["HostIp"], bound["HostPort"])
        for target, many in bindings.items()
        for bound in many or []
    }


def _changed_secrets(installation: Installation, serving: list[Container], service: dict[str, Any]) -> set[str]:
    """Return the secrets of a service that were written after its containers had started."""
    mounted = {item["source"] for item in service.get("secrets", [])}
    started = min(_moment(container.state["StartedAt"]) for container in serving)
    changed = set()
    for path in wanted_secrets(installation):
        try:
            if path.name in mounted and path.stat().st_mtime > started:
                changed.add(f"secrets/{path.name}")
        except OSError:
            continue  # permissions says it
    return changed


def _moment(stamp: str) -> float:
    # Nine digits of a second are more than Python reads.
    return datetime.fromisoformat(re.sub(r"\.(\d{1,6})\d*", r".\1", stamp).replace("Z", "+00:00")).timestamp()


def _networks(installation: Installation) -> list[Finding]:
    found = []
    for name, network in installation.configuration().get("networks", {}).items():
        done = run("docker", "network", "inspect", "--format", "{{.Internal}}", str(network["name"]))
        if done.status == 0 and done.stdout.strip() != str(bool(network.get("internal", False))).lower():
            message = f"The network {name} was made when .env said otherwise, and is not changed while it is there."
            found.append(warning(f"applied.network.{name}", message, f"./scripts/down && {UP}"))
    return found


# The images -----------------------------------------------------------------------------------------------------------

IN_THE_IMAGE = {
    "backend": (("/app", "backend"),),
    "nginx": (
        ("/etc/nginx/nginx.conf", "nginx/nginx.conf"),
        ("/etc/nginx/servers", "nginx/servers"),
        ("/etc/nginx/snippets", "nginx/snippets"),
        ("/entrypoint.sh", "nginx/entrypoint.sh"),
    ),
    "db": (
        ("/usr/local/bin/transactions-db", "db/entrypoint.sh"),
        ("/usr/local/share/transactions/roles.sql", "db/roles.sql"),
    ),
}
"""Where the Dockerfiles put what is in the checkout."""

# What runs in the image is in both; the builder's own files are in neither.
COMPARED = r"(?:^(?!static/).*\.(?:py|html|css|conf|template|sh|sql|txt)|transactions-db)$"


def images(installation: Installation) -> Findings:
    """Compare the files in the running images with those of the checkout, whatever the dates say."""
    found, seen = [], 0
    for service, pairs in IN_THE_IMAGE.items():
        try:
            if service == "db" and not installation.starts_database:
                continue
            container = installation.one_of(service)
            differing = _differing(installation, container, pairs)
        except NotSeen as reason:
            found.append(unknown(f"images.{service}", str(reason)))
            continue
        seen += 1
        if differing:
            message = (
                f"The image of {service} was not built from this checkout:"
                f" {len(differing)} files differ, {sorted(differing)[0]} for one."
            )
            found.append(warning(f"images.{service}", message, UP))
            continue
        named = installation.images().get(str(installation.service(service)["image"]), {})
        if named and named["Id"] != container.about["Image"]:
            message = f"A newer image of {service} was built, and does not run yet."
            found.append(warning(f"images.{service}", message, UP))
    if seen and not any(finding.mend for finding in found):
        yield ok("images", "The images that run hold what this checkout holds.")
    yield from found


def _differing(installation: Installation, container: Container, pairs: tuple[tuple[str, str], ...]) -> set[str]:
    inside = [place for place, _here in pairs]
    listing = 'find "$@" -type f -not -path "*/__pycache__/*" -exec sha256sum {} +'
    done = installation.execute(container, "sh", "-c", listing, "sh", *inside)
    there = {path: digest for digest, _two, path in (line.partition("  ") for line in done.stdout.splitlines())}
    if not there:
        raise NotSeen(f"{container.service} did not list its files: {done.last_line()}")
    differing = set()
    for place, here in pairs:
        source = installation.root / here
        if source.is_file():
            if there.get(place) != _digest(source):
                differing.add(here)
            continue
        of_the_image = {
            path.removeprefix(f"{place}/"): digest for path, digest in there.items() if path.startswith(f"{place}/")
        }
        of_the_checkout = {path.relative_to(source).as_posix(): path for path in source.rglob("*") if path.is_file()}
        for name in of_the_image.keys() | of_the_checkout.keys():
            if not re.search(COMPARED, name) or "__pycache__" in name or name.startswith("requirements-"):
                continue
            path = of_the_checkout.get(name)
            if path is None or of_the_image.get(name) != _digest(path):
                differing.add(f"{here}/{name}")
    return differing


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Ports and names ------------------------------------------------------------------------------------------------------


PORTS = ("HTTP_PORT", "HTTPS_PORT")


def ports(installation: Installation) -> Findings:
    """Look whether each port that is to be published is free, or ours."""
    try:
        installation.containers()
        installation.configuration()
    except NotSeen:
        # What the embedded stack would take.
        port = installation.setting("HTTP_PORT", "8080")
        if installation.embedded_runs():
            yield ok(f"ports.{port}", f"The embedded stack of this checkout has port {port}.")
        else:
            yield _judge_port(
                installation, f"ports.{port}", installation.setting("BIND_ADDRESS", "127.0.0.1"), int(port)
            )
        return
    for service, configured in installation.services.items():
        for target, address, port in sorted(_published(configured)):
            if not port:
                continue
            ours = [item for item in installation.all_of(service) if (target, address, port) in _bound(item.about)]
            identity = f"ports.{port}"
            # A paused one holds it as well.
            if any(container.state["Running"] for container in ours):
                yield ok(identity, f"{service} of this stack has port {port}.")
            elif installation.embedded_runs():
                yield ok(identity, f"Port {port} is the embedded stack's while that runs.")
            else:
                yield _judge_port(installation, identity, address, int(port))


def _judge_port(installation: Installation, identity: str, address: str, port: int) -> Finding:
    try:
        _bind(address, port).close()
    except PermissionError:
        return ok(identity, f"Port {port} is no port that this account could try.")
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            mend = f"{installation.assignment('BIND_ADDRESS', '127.0.0.1')} && {UP}"
            return problem(identity, f"This host has no address {address} to publish port {port} at.", mend)
        variable = next((name for name in PORTS if installation.setting(name) == str(port)), PORTS[0])
        with _bind(address, 0) as free:
            other = str(free.getsockname()[1])
        message = f"Port {port} is in use by {_holder(installation, port)}."
        return problem(identity, message, f"{installation.assignment(variable, other)} && {UP}")
    return ok(identity, f"Port {port} is free.")


def _bind(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address.strip("[]"), port), family=family)


def _holder(installation: Installation, port: int) -> str:
    try:
        installation.engine()
        names = run("docker", "ps", "--filter", f"publish={port}", "--format", "{{.Names}}").stdout.split()
    except NotSeen:
        names = []
    return f"the container {names[0]}" if names else _process_with(port) or "another process"


def _process_with(port: int) -> str:
    """Return the process that listens on a port, where this account may see it."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        try:
            rows = [row.split() for row in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
        except OSError:
            continue
        inodes |= {row[9] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")}
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(link) in wanted for link in (folder / "fd").iterdir()):
                return f"{(folder / 'comm').read_text().strip()} (process {folder.name})"
        except OSError:
            continue
    return ""


RESOLVE = "import json, socket, sys; print(json.dumps([item[4][0] for item in socket.getaddrinfo(sys.argv[1], None)]))"


def names(installation: Installation) -> Findings:
    """Resolve the names by which the services reach each other, where they do it."""
    # A server of somebody else is found, or not, when a backend signs in there.
    pairs = [("backend", "db")] if installation.starts_database else []
    for asker, name in [*pairs, ("nginx", "backend")]:
        identity = f"dns.{name}"
        try:
            container = installation.one_of(asker)
            expected = {address for other in installation.serving(name) for address in other.addresses}
            if not expected:
                raise NotSeen(f"{name} does not run")
            if asker == "backend":
                done = installation.execute(container, "python", "-c", RESOLVE, name)
                found = set(json.loads(done.stdout)) if done.status == 0 else set()
            else:
                done = installation.execute(container, "getent", "ahosts", name)
                found = {line.split()[0] for line in done.stdout.splitlines()}
        except NotSeen as reason:
            yield unknown(identity, str(reason))
            continue
        yield judge_name(identity, asker, name, found, expected)


def judge_name(identity: str, asker: str, name: str, found: set[str], expected: set[str]) -> Finding:
    """Judge the addresses that one service found for another."""
    recreate = f"docker compose up --detach --force-recreate {asker} {name}"
    if not found:
        return problem(identity, f"{asker} cannot resolve the name {name}.", recreate)
    if not found <= expected:
        message = f"{asker} resolves {name} to {listed(found - expected)}, which is no container of that service."
        return problem(identity, message, recreate)
    return ok(identity, f"{asker} resolves {name}.")
