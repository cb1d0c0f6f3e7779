"""The machine: space, memory, time, who may read what."""

from __future__ import annotations

import ctypes
import os
import stat
import time
from pathlib import Path

from scripts.diagnosis.findings import Finding, Findings, NotSeen, ok, problem, unknown, warning
from scripts.diagnosis.installation import UP, Installation, replicas_of

GB = 1024**3
MB = 1024**2

LITTLE_SPACE = 5 * GB
"""A build of the images takes about 2 GB; below this there is room for one more and some growth of the data."""
NO_SPACE = 1 * GB
"""PostgreSQL stops when it cannot write its log, of which it keeps up to 1 GB (max_wal_size)."""
FEW_INODES = 0.02
"""The share of free inodes below which files cannot be made soon."""


def disk(installation: Installation) -> Findings:
    """Look for room where the clone, the images and the data are."""
    places = {"checkout": installation.root}
    try:
        places["engine"] = Path(str(installation.engine_host()["DockerRootDir"]))
    except NotSeen as reason:
        yield unknown("disk.engine", str(reason))
    for subject, place in places.items():
        try:
            figures = os.statvfs(place)
        except OSError as error:
            yield unknown(f"disk.{subject}", f"{place} cannot be read: {error.strerror}")
            continue
        inodes = figures.f_favail / figures.f_files if figures.f_files else 1.0
        yield judge_disk(subject, figures.f_bavail * figures.f_frsize, inodes)


def judge_disk(subject: str, free: int, inodes: float) -> Finding:
    """Judge the free bytes and the share of free inodes of one file system."""
    identity, whose = f"disk.{subject}", "this checkout" if subject == "checkout" else "the engine's data"
    mend = "docker builder prune" if subject == "engine" else "rm -rf var/log var/test"
    room = f"{free / GB:.1f} GB are free for {whose}"
    if free < NO_SPACE:
        return problem(identity, f"Only {room}: PostgreSQL stops when it can write no more.", mend)
    if inodes < FEW_INODES:
        return problem(identity, f"Only {inodes:.1%} of the inodes are free for {whose}.", mend)
    if free < LITTLE_SPACE:
        return warning(identity, f"Only {room}.", mend)
    return ok(identity, f"{room[0].upper()}{room[1:]}.")


def memory(installation: Installation) -> Findings:
    """Compare what the containers may use together with what there is."""
    allowed = 0
    for service in installation.services.values():
        if service.get("restart") == "no":
            continue  # ends before the others need theirs
        limit = int(service.get("deploy", {}).get("resources", {}).get("limits", {}).get("memory", 0))
        allowed += limit * replicas_of(service)
    try:
        total = int(installation.engine_host()["MemTotal"])
    except NotSeen:
        total = meminfo()["MemTotal"]
    yield judge_memory(allowed, total, meminfo().get("MemAvailable", total))


def meminfo() -> dict[str, int]:
    """Return what Linux says about its memory, in bytes."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError as error:
        raise NotSeen(f"/proc/meminfo cannot be read: {error.strerror}") from None
    return {name: int(rest.split()[0]) * 1024 for name, _colon, rest in (line.partition(":") for line in lines)}


def judge_memory(allowed: int, total: int, available: int) -> Finding:
    """Judge the sum of the limits against the memory of the machine."""
    sums = f"the containers may use {allowed / MB:.0f} MB together, of {total / MB:.0f} MB"
    mend = f"{UP}  # after lowering *_MEMORY_MB, BACKEND_REPLICAS or WEB_CONCURRENCY in .env"
    if available < total * 0.03:
        return problem("memory", f"Only {available / MB:.0f} MB of memory are available; {sums}.", mend)
    if allowed > total:
        return warning("memory", f"{sums[0].upper()}{sums[1:]}: the host may run out before a limit holds.", mend)
    return ok("memory", f"{sums[0].upper()}{sums[1:]}; {available / MB:.0f} MB are available.")


TOLERABLE_SKEW = 1.0
"""Seconds. Tokens are signed and checked to the second, by containers that may run on different hosts."""
HARMFUL_SKEW = 5.0


UNSYNCHRONISED = 16.0
"""Seconds. The kernel's bound of the error grows up to here, and no further, once nothing sets the clock any more. The
flag STA_UNSYNC would say less: chrony without `rtcsync` leaves it on. (As in systemd's ntp_synced().)"""

CONTAINER_MARKS = ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")


def clock(installation: Installation) -> Findings:
    """Ask whether this host's clock is kept right, and compare it with those of the database and a backend."""
    try:
        yield judge_synchronisation(clock_error(), in_container=any(Path(mark).exists() for mark in CONTAINER_MARKS))
    except NotSeen as reason:
        yield unknown("clock.host", str(reason))
    asked = 0
    for service, command in (
        ("db", ("date", "+%s.%N")),
        ("backend", ("python", "-c", "import time; print(time.time())")),
    ):
        try:
            if service == "db" and not installation.starts_database:
                before = time.time()
                said = installation.sql("SELECT extract(epoch FROM clock_timestamp())")[0][0]
            else:
                container = installation.one_of(service)
                before = time.time()
                said = installation.execute(container, *command).stdout.strip()
            after = time.time()
            there = float(said)
        except NotSeen as reason:
            yield unknown(f"clock.{service}", str(reason))
            continue
        except ValueError:
            yield unknown(f"clock.{service}", f"{service} did not say what time it is")
            continue
        asked += 1
        yield judge_clock(service, before, there, after)


class Timex(ctypes.Structure):
    """The beginning of `struct timex`, and room for the rest: https://man7.org/linux/man-pages/man2/adjtimex.2.html."""

    _fields_ = (
        ("modes", ctypes.c_uint),  # 0: change nothing, which everybody may
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("rest", ctypes.c_char * 512),
    )


def clock_error() -> float:
    """Return by how many seconds this host's clock may be wrong, as the kernel counts it."""
    figures = Timex()
    try:
        failed = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(figures)) < 0
    except (AttributeError, OSError):
        raise NotSeen("this system does not say whether its clock is synchronised") from None
    if failed:
        reason = os.strerror(ctypes.get_errno())
        raise NotSeen(f"the kernel does not say whether the clock is synchronised: {reason}")
    return int(figures.maxerror) / 1e6


def judge_synchronisation(error: float, *, in_container: bool) -> Finding:
    """Judge by how many seconds the clock may be wrong."""
    if error < UNSYNCHRONISED:
        return ok("clock.host", f"This host's clock is synchronised, to {error:.1f} s or better.")
    if in_container:
        return unknown("clock.host", "whoever runs this container keeps the clock, perhaps in a way of their own")
    message = "Nothing keeps this host's clock right: tokens and logs go wrong with it."
    return warning("clock.host", message, SYNCHRONISE)


SYNCHRONISE = "sudo timedatectl set-ntp true  # not supported? sudo apt-get install systemd-timesyncd"


def judge_clock(service: str, before: float, there: float, after: float) -> Finding:
    """Judge what a clock showed at some moment between two moments of this one."""
    skew = max(before - there, there - after, 0.0)
    identity, mend = f"clock.{service}", SYNCHRONISE
    said = f"The clock of {service} is {skew:.1f} s away from this host's"
    if skew > HARMFUL_SKEW:
        return problem(identity, f"{said}: tokens are refused or live too long.", mend)
    if skew > TOLERABLE_SKEW:
        return warning(identity, f"{said}.", mend)
    return ok(identity, f"The clock of {service} is this host's.")


# Who may read what ----------------------------------------------------------------------------------------------------


def permissions(installation: Installation) -> Findings:
    """Look at the modes of .env, secrets/ and the files in it."""
    found = [*_env_file(installation), *_secrets(installation)]
    yield from found or [ok("permissions", "Nobody else on this host can read .env or secrets/; the containers can.")]


def _env_file(installation: Installation) -> Findings:
    mend = "chmod 0600 .env"
    try:
        mode = (installation.root / ".env").stat().st_mode
    except FileNotFoundError:
        yield problem("permissions.env", ".env is missing.", "./scripts/init")
        return
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield problem("permissions.env", "Others on this host can change .env.", mend)
    elif mode & (stat.S_IRGRP | stat.S_IROTH):
        yield warning("permissions.env", "Others on this host can read .env, which may hold a secret.", mend)


def _secrets(installation: Installation) -> Findings:
    folder = installation.root / "secrets"
    if not folder.is_dir():
        yield problem("permissions.secrets", "secrets/ is missing.", "./scripts/init")
        return
    if folder.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield problem("permissions.secrets", "Others on this host can pass into secrets/.", "chmod 0700 secrets")
    for path in wanted_secrets(installation):
        name = path.relative_to(installation.root) if path.is_relative_to(installation.root) else path
        identity = f"permissions.{path.name}"
        try:
            about = path.stat()
        except FileNotFoundError:
            yield problem(identity, f"{name} is missing, and Compose starts nothing without it.", "./scripts/init")
            continue
        except PermissionError:
            yield unknown(identity, f"{name} belongs to somebody else; run ./scripts/doctor as its owner")
            continue
        if not about.st_size and path.name not in MAY_BE_EMPTY:
            yield problem(identity, f"{name} is empty.", f"rm {name} && ./scripts/init && {UP}")
        elif about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            yield problem(identity, f"Others can change {name}.", f"chmod 0644 {name}")
        elif not about.st_mode & stat.S_IROTH:
            # The processes in the containers are no users of this host; the folder keeps its users out.
            yield problem(identity, f"{name} cannot be read by the containers' own users.", f"chmod 0644 {name}")


MAY_BE_EMPTY = {"email_url", "database_url", "migrator_database_url", "database_root_certificate"}
"""What ./scripts/init makes empty, for a person to fill."""


def wanted_secrets(installation: Installation) -> list[Path]:
    """Return the files that Compose mounts as secrets or, where that cannot be known, those that are there."""
    try:
        secrets = installation.configuration().get("secrets", {}).values()
    except NotSeen:
        return sorted(path for path in (installation.root / "secrets").iterdir() if path.is_file())
    return [Path(secret["file"]) for secret in secrets if "file" in secret]


# Without containers ---------------------------------------------------------------------------------------------------


UP_EMBEDDED = "./scripts/up --embedded --detach"


def embedded(installation: Installation) -> Findings:
    """Look at the embedded stack."""
    pid_file = installation.root / "var/embedded/pid"
    if installation.embedded_runs():
        try:
            both = any(container.serves for container in installation.containers())
        except NotSeen:
            both = False
        if both:
            yield problem(
                "embedded", "The embedded stack and the containers run at once, each with data of its own.",
                f"./scripts/down && {UP}",
            )  # fmt: skip
        else:
            yield ok("embedded", "The embedded stack of this checkout runs.")
    elif pid_file.exists():
        yield problem("embedded", "The embedded stack ended by itself; var/embedded/log says why.", UP_EMBEDDED)
    else:
        yield ok("embedded", "The embedded stack does not run.")
