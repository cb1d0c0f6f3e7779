"""PostgreSQL: the data it finds, the schema, the connections."""

from __future__ import annotations

import re
from typing import Any

from config.sizing import least

from scripts.diagnosis.commands import run
from scripts.diagnosis.configuration import EDIT
from scripts.diagnosis.findings import Finding, Findings, Level, NotSeen, ok, problem, unknown, warning
from scripts.diagnosis.installation import UP, Installation

VOLUME = "/var/lib/postgresql"
MAJORS = range(12, 31)

OF_SOMEBODY_ELSE = "The database is a server of somebody else (DB_REPLICAS=0)"


def volume(installation: Installation) -> Findings:
    """Compare the PostgreSQL of the image with the one that wrote the data; also while the database is down."""
    if not installation.starts_database:
        yield ok("volume", f"{OF_SOMEBODY_ELSE}: there is no volume whose version could differ.")
        return
    there = installation.all_of("db")
    if not there:
        raise NotSeen("the database has no container")
    environment = there[0].environment
    folder = environment.get("PGDATA", "")
    image = environment.get("PG_MAJOR") or next(iter(re.findall(r"/(\d+)/", folder)), "")
    if not image:
        raise NotSeen("the database image does not say its version")
    written = installation.read(there[0], f"{folder}/PG_VERSION")
    others = {}
    if written is None:
        places = {str(major): f"{VOLUME}/{major}/docker/PG_VERSION" for major in MAJORS}
        found = {place: installation.read(there[0], place) for place in [*places.values(), f"{VOLUME}/data/PG_VERSION"]}
        others = {place: version.decode().strip() for place, version in found.items() if version}
    yield judge_volume(image, written.decode().strip() if written else None, others)


def judge_volume(image: str, written: str | None, others: dict[str, str]) -> Finding:
    """Judge the version in the volume; ``others`` are versions found where this image does not look."""
    if written == image:
        return ok("volume", f"The data was written by PostgreSQL {image}, which is what runs.")
    if written is not None:
        message = f"The data was written by PostgreSQL {written}; the image is PostgreSQL {image}."
    elif others:
        place, version = next(iter(others.items()))
        folder = place.removesuffix("/PG_VERSION")
        message = f"The data, of PostgreSQL {version}, is in {folder}, where PostgreSQL {image} does not look."
        written = version
    else:
        return warning("volume", "The volume holds no database yet.", UP)
    back = f"POSTGRES_IMAGE=postgres:{written}-trixie"
    return problem("volume", message, f"sed -i '/^POSTGRES_IMAGE=/d' .env && printf '\\n%s\\n' {back} >>.env && {UP}")


def migrations(installation: Installation) -> Findings:
    """Ask a running backend for the migrations that the database lacks."""
    backend = installation.one_of("backend")
    if installation.starts_database:
        installation.one_of("db")
    done = installation.execute(backend, "python", "manage.py", "showmigrations", "--plan", seconds=30)
    if done.status:
        raise NotSeen(f"the backend could not compare the schema: {done.last_line()}")
    pending = re.findall(r"(?m)^\[ \]\s+(\S+)", done.stdout)
    if pending:
        message = f"{len(pending)} migrations are not applied, {pending[0]} first: the backends are not ready."
        yield problem("migrations", message, UP)
    else:
        yield ok("migrations", "Every migration is applied.")


def connections(installation: Installation) -> Findings:
    """Compare what the running backends may take with what the running database gives, and with what is taken."""
    backends = installation.serving("backend")
    if not backends:
        raise NotSeen("backend does not run")
    environment = backends[0].environment
    figures = {
        name: int(environment.get(name) or installation.registry()[name].default or 0)
        for name in ("GUNICORN_THREADS", "POSTGRES_RESERVED_CONNECTIONS", "BACKEND_REPLICAS")
    }
    workers = wanted = environment.get("WEB_CONCURRENCY", "")
    if not workers.isdigit():
        # It depends on the quota of the container.
        workers = installation.execute(backends[0], "python", "-m", "config.sizing").stdout.strip()
    if not workers.isdigit():
        raise NotSeen("backend does not say how many workers it has")
    try:
        settings, taken = _of_the_server(installation)
    except NotSeen as reason:
        if not re.search("too many clients|connection slots", str(reason)):
            raise
        if installation.starts_database:
            message = "Every connection is taken, those that are reserved to the superuser too."
            yield problem("connections.taken", message, "docker compose restart db")
        else:
            message = "Every connection that the server gives to this stack is taken."
            yield problem("connections.taken", message, "docker compose restart backend upkeep")
        return
    common: dict[str, Any] = {
        "threads": figures["GUNICORN_THREADS"],
        "reserved": figures["POSTGRES_RESERVED_CONNECTIONS"],
        "available": settings["max_connections"],
        "ours": installation.starts_database,
    }
    judged = judge_arithmetic(installation, workers=int(workers), replicas=len(backends), **common)
    yield judged
    replicas = figures["BACKEND_REPLICAS"]
    beside = int(wanted) if wanted.isdigit() else least(replicas)
    if judged.level is Level.OK:
        yield from judge_deployment(installation, workers=int(workers), beside=beside, replicas=replicas, **common)
    available = settings["max_connections"] - settings["superuser_reserved_connections"]
    yield judge_usage(taken, available, END_OTHERS if installation.starts_database else NAME_THEM)


def _of_the_server(installation: Installation) -> tuple[dict[str, int], int]:
    rows = installation.sql(
        "SELECT name, setting FROM pg_settings WHERE name IN ('max_connections', 'superuser_reserved_connections')"
        " UNION ALL SELECT 'taken', count(*)::text FROM pg_stat_activity"
        # Of the sessions of other roles the application's sees the user only, and of the server's own not even that.
        " WHERE coalesce(backend_type = 'client backend', usesysid IS NOT NULL) AND pid <> pg_backend_pid()"
    )
    figures = {name: int(value) for name, value in rows}
    return figures, figures.pop("taken")


def judge_arithmetic(
    installation: Installation,
    *,
    workers: int,
    threads: int,
    replicas: int,
    reserved: int,
    available: int,
    ours: bool = True,
) -> Finding:
    """Judge whether every thread that runs can have its connection; ``ours``: it can be told to accept more."""
    needed = workers * threads * replicas + reserved
    said = (
        f"{workers} workers x {threads} threads x {replicas} replicas + {reserved} reserved = {needed} connections,"
        f" and the database accepts {available}"
    )
    if needed > available:
        return problem("connections", f"{said}.", _make_room(installation, needed, ours=ours))
    return ok("connections", f"{said}.")


def judge_deployment(
    installation: Installation,
    *,
    workers: int,
    beside: int,
    threads: int,
    replicas: int,
    reserved: int,
    available: int,
    ours: bool = True,
) -> Findings:
    """Judge whether a second set of backends, of ``beside`` workers each, finds room; as ./scripts/deploy asks."""
    needed = threads * replicas * (workers + beside) + reserved
    if needed > available:
        message = (
            f"A deployment would be refused: old and new backends together may hold {needed} connections, and the"
            f" database accepts {available}."
        )
        yield warning("connections.deployment", message, _make_room(installation, needed, ours=ours))


def _make_room(installation: Installation, needed: int, *, ours: bool) -> str:
    """Return the command after which the database accepts so many connections."""
    if not ours:
        return f"{EDIT}  # lower WEB_CONCURRENCY, GUNICORN_THREADS or BACKEND_REPLICAS"
    # What .env says may be enough, and only not be applied.
    if int(installation.setting("POSTGRES_MAX_CONNECTIONS", "0")) >= needed:
        return UP
    return f"{installation.assignment('POSTGRES_MAX_CONNECTIONS', str(needed))} && {UP}"


CROWDED = 0.8

END_OTHERS = (
    'docker compose exec db psql -U postgres -c "SELECT pg_terminate_backend(pid) FROM pg_stat_activity'
    " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    " AND usename <> 'transactions_app' AND usename <> 'transactions_migrator'\""
)
# The address as ./scripts/shell says it.
NAME_THEM = (
    'psql "$(cat secrets/migrator_database_url)" -c "SELECT usename, count(*) FROM pg_stat_activity GROUP BY 1"'
    "  # then end those that nobody needs"
)


def judge_usage(taken: int, available: int, mend: str = END_OTHERS) -> Finding:
    """Judge how many connections are taken now."""
    said = f"{taken} of {available} connections are taken"
    if taken >= available:
        return problem("connections.taken", f"{said}: requests are refused.", mend)
    if taken > available * CROWDED:
        return warning("connections.taken", f"{said}.", mend)
    return ok("connections.taken", f"{said}.")


DURABLE = {"fsync": "on", "full_page_writes": "on", "data_checksums": "on"}


def durability(installation: Installation) -> Findings:
    """Ask the database whether it keeps what it has acknowledged."""
    if not installation.starts_database:
        # What stands in its settings is not all: some services keep their data safe in another way.
        yield ok("durability", f"{OF_SOMEBODY_ELSE}, who answers for what it keeps.")
        return
    wanted = ", ".join(f"'{name}'" for name in [*DURABLE, "synchronous_commit"])
    settings = dict(installation.sql(f"SELECT name, setting FROM pg_settings WHERE name IN ({wanted})"))  # noqa: S608
    wrong = [name for name, value in DURABLE.items() if settings.get(name) != value]
    if settings.get("synchronous_commit") in {"off", "local"}:
        wrong.append("synchronous_commit")
    if wrong:
        reset = "; ".join(f"ALTER SYSTEM RESET {name}" for name in wrong)
        mend = " && ".join(
            f'docker compose exec -T db psql -U postgres -c "{statement}"'
            for statement in [*reset.split("; "), "SELECT pg_reload_conf()"]
        )
        yield problem("durability", f"A crash may lose acknowledged writes: {', '.join(wrong)}.", mend)
    else:
        yield ok("durability", "The database keeps what it has acknowledged, and would notice a damaged page.")


def release(installation: Installation) -> Findings:
    """Ask the engine which PostgreSQL really runs; a version in the environment is only what the image says."""
    try:
        rows = installation.sql("SHOW server_version")
    except NotSeen as reason:
        # Nothing else says that a server of somebody else is away; where no backend runs, `containers` has said that.
        if not installation.starts_database and installation.serving("backend"):
            mend = "${EDITOR:-vi} secrets/database_url && docker compose up --detach --force-recreate backend upkeep"
            yield problem("postgres", f"A backend cannot use the database: {reason}.", mend)
        else:
            yield unknown("postgres", str(reason))
        return
    yield ok("postgres", f"PostgreSQL {rows[0][0].split()[0]} answers.")


def version_of(program: str) -> str:
    """Return the version of a program on this host, or nothing."""
    try:
        return run(program, "--version").stdout.strip()
    except NotSeen:
        return ""
