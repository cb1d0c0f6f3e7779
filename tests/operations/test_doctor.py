"""scripts/doctor on a running stack: nothing is wrong, then one thing at a time is, and what it says mends it."""

import hashlib
import json
import os
import re
import socket
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from subprocess import DEVNULL, Popen

import pytest

from tests.stack.containers import SERVERS, Stack, docker, eventually, free_port, run
from tests.stack.people import Person, connect, unique

pytestmark = pytest.mark.timeout(400)

OF_THE_HOST = {"disk.checkout", "disk.engine", "memory", "clock.host"}
"""What a machine that tests run on may lack, through no fault of the stack."""

Finding = dict[str, str]


def examine(stack: Stack, **variables: str) -> dict[str, Finding]:
    """Return what the doctor finds, by id."""
    done = run(
        str(stack.checkout / "scripts/doctor"), "--json", check=False, timeout=200, env={**os.environ, **variables}
    )
    assert done.stderr == ""
    found = json.loads(done.stdout)["findings"]
    assert done.returncode == int(any(item["level"] == "problem" for item in found))
    assert len({item["id"] for item in found}) == len(found)
    return {item["id"]: item for item in found}


def wrong(found: dict[str, Finding]) -> dict[str, Finding]:
    return {identity: item for identity, item in found.items() if item["level"] != "ok" and identity not in OF_THE_HOST}


def mend(stack: Stack, finding: Finding) -> None:
    """Paste the command, as a person would."""
    run("bash", "-c", finding["mend"], timeout=300, cwd=stack.checkout, stdin=DEVNULL)


def assert_mended(stack: Stack, identity: str, **variables: str) -> None:
    """The finding is gone, and nothing else is wrong."""
    stack.wait_until_whole()
    left = wrong(examine(stack, **variables))
    assert left == {}, f"after mending {identity}"


@pytest.fixture
def configured(disturbed: Stack) -> Iterator[Stack]:
    """The stack, for a test that changes files of the checkout; as they were afterwards."""
    kept = [disturbed.checkout / name for name in (".env", "nginx/snippets/errors.conf")]
    before = {path: (path.read_bytes(), path.stat()) for path in kept}
    yield disturbed
    for path, (content, about) in before.items():
        path.write_bytes(content)
        path.chmod(about.st_mode)
        os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    disturbed.compose("up", "--detach", "--build", "--wait", timeout=240)


def write_env(stack: Stack, line: str) -> None:
    with (stack.checkout / ".env").open("a") as file:
        file.write(f"\n{line}\n")


def state_of(stack: Stack) -> dict[str, str]:
    """Return what must not change while somebody only looks."""
    files = [path for path in stack.checkout.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    found = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    for service in SERVERS:
        for container in stack.containers(service):
            found[container.id] = container.inspect()["State"]["StartedAt"]
    return found


# Nothing is wrong -----------------------------------------------------------------------------------------------------


def test_a_healthy_stack_has_no_finding_and_is_not_changed(disturbed: Stack) -> None:
    disturbed.wait_until_whole()
    before = state_of(disturbed)

    started = time.monotonic()
    found = examine(disturbed)

    assert wrong(found) == {}
    assert time.monotonic() - started < 90
    assert state_of(disturbed) == before
    for name in ("engine", "values", "applied", "images", "containers", "dns.db", "dns.backend", "clock.db", "volume",
                 "durability", "connections", "connections.taken", "migrations", "api", "proxy"):  # fmt: skip
        assert found[name]["level"] == "ok", name


def test_people_read_the_same(stack: Stack) -> None:
    done = run(str(stack.checkout / "scripts/doctor"), check=False, timeout=200)

    assert "\x1b" not in done.stdout
    assert re.search(r"(?m)^ok +proxy +\S", done.stdout)
    assert re.search(r"(?m)^0 problems, ", done.stdout), done.stdout


def test_a_stack_that_is_down_is_no_problem_and_says_what_was_not_looked_at(stack: Stack) -> None:
    name = unique(f"{stack.name()}-none")

    found = examine(stack, COMPOSE_PROJECT_NAME=name, HTTP_PORT=str(free_port()))

    assert found["containers"]["level"] == "warning"
    assert found["containers"]["mend"] == "./scripts/up --detach"
    assert {item["level"] for item in found.values()} <= {"ok", "warning", "unknown"}
    assert found["migrations"]["level"] == found["api"]["level"] == "unknown"


# Containers -----------------------------------------------------------------------------------------------------------


def test_a_stopped_database_is_found_and_mended(disturbed: Stack) -> None:
    disturbed.compose("stop", "db")

    found = examine(disturbed)
    first = next(iter(wrong(found)))
    mend(disturbed, found["containers.db-1"])

    assert first == "containers.db-1", "the cause comes before what follows from it"
    assert found["containers.db-1"]["level"] == "problem"
    assert found["api"]["level"] == "problem"
    # It is read from the volume, for which no server is needed.
    assert found["volume"]["level"] == "ok"
    assert_mended(disturbed, "containers.db-1")


def test_paused_containers_are_found_and_mended(disturbed: Stack) -> None:
    disturbed.compose("pause", "backend")

    found = examine(disturbed)
    mend(disturbed, found["containers.backend-1"])

    assert "is paused" in found["containers.backend-1"]["message"]
    assert {"containers.backend-1", "containers.backend-2", "api"} <= set(wrong(found))
    assert_mended(disturbed, "containers.backend-1")


def test_a_missing_replica_is_found_and_mended(disturbed: Stack) -> None:
    docker("rm", "--force", disturbed.containers("backend")[1].id)

    found = examine(disturbed)
    mend(disturbed, found["containers.backend"])

    assert "1 of 2 containers" in found["containers.backend"]["message"]
    assert_mended(disturbed, "containers.backend")


@contextmanager
def planted(stack: Stack, script: str) -> Iterator[Stack]:
    """Another stack of the same checkout, whose database finds on its volume what a script has put there."""
    other = Stack(stack.checkout, stack.base_url, project=unique(f"{stack.name()}-broken"))
    try:
        other.compose("run", "--rm", "--no-deps", "--no-TTY", "--entrypoint", "sh", "db", "-c", script)
        other.compose("up", "--detach", "--no-build", "--no-deps", "db")
        yield other
    finally:
        other.compose("down", "--volumes", "--timeout", "0")


@pytest.fixture
def interrupted(stack: Stack) -> Iterator[Stack]:
    """A stack whose database holds the remains of a first start."""
    with planted(stack, "mkdir -p $PGDATA/base") as interrupted:
        yield interrupted


@pytest.fixture
def older(stack: Stack) -> Iterator[Stack]:
    """A stack whose data was written by PostgreSQL 17."""
    with planted(
        stack, "mkdir -p $PGDATA && echo 17 >$PGDATA/PG_VERSION && touch $PGDATA/first-start-finished"
    ) as older:
        yield older


def test_an_interrupted_first_start_is_named(interrupted: Stack) -> None:
    def named() -> bool:
        found = examine(interrupted, COMPOSE_PROJECT_NAME=interrupted.project)
        return "./scripts/down --volumes --yes" in found.get("containers.db-1", {}).get("mend", "")

    eventually(named, within=30, what="the doctor says what to do")


def test_data_of_another_version_is_named(older: Stack) -> None:
    found = examine(older, COMPOSE_PROJECT_NAME=older.project)["volume"]

    assert found["level"] == "problem"
    assert found["message"] == "The data was written by PostgreSQL 17; the image is PostgreSQL 18."
    assert "POSTGRES_IMAGE=postgres:17-trixie" in found["mend"]


# The configuration ----------------------------------------------------------------------------------------------------


def test_a_misspelt_variable_and_one_that_is_not_applied_are_found_and_mended(configured: Stack) -> None:
    write_env(configured, "JWT_ACESS_LIFETIME_MINUTES=21")
    misspelt = examine(configured)["variables.JWT_ACESS_LIFETIME_MINUTES"]
    mend(configured, misspelt)
    spelt = configured.container("backend").execute("printenv", "JWT_ACCESS_LIFETIME_MINUTES").stdout.strip()
    write_env(configured, "JWT_ACCESS_LIFETIME_MINUTES=22")
    edited = examine(configured)
    mend(configured, edited["applied.backend"])

    assert misspelt["level"] == "problem"
    assert "Did you mean JWT_ACCESS_LIFETIME_MINUTES?" in misspelt["message"]
    assert spelt == "21"
    assert set(wrong(edited)) == {"applied.backend", "applied.upkeep"}
    assert edited["applied.backend"]["message"].endswith(": JWT_ACCESS_LIFETIME_MINUTES.")
    assert_mended(configured, "applied.backend")


def test_a_value_that_the_application_would_refuse_is_named_and_not_shown(configured: Stack) -> None:
    write_env(configured, "WEB_CONCURRENCY=canary-value")

    found = examine(configured)

    assert found["values.WEB_CONCURRENCY"]["level"] == "problem"
    assert "canary-value" not in json.dumps(found)


def test_a_value_that_up_would_refuse_is_found_and_mended(configured: Stack) -> None:
    """The backend does not read it, so it could not say."""
    write_env(configured, "UPKEEP_INTERVAL_SECONDS=canary-value")

    found = wrong(examine(configured))
    editor = "export EDITOR='sed -i /^UPKEEP_INTERVAL_SECONDS=/d';"
    mend(configured, {"mend": f"{editor} {found['values.UPKEEP_INTERVAL_SECONDS']['mend']}"})

    assert list(found) == ["values.UPKEEP_INTERVAL_SECONDS", "applied.upkeep"], "the cause comes first"
    assert "Accepted: 1 to 86400" in found["values.UPKEEP_INTERVAL_SECONDS"]["message"]
    assert "canary-value" not in json.dumps(found)
    assert_mended(configured, "values.UPKEEP_INTERVAL_SECONDS")


def test_a_limit_that_is_not_applied_is_found(configured: Stack) -> None:
    write_env(configured, "NGINX_MEMORY_MB=96")

    found = wrong(examine(configured))

    assert set(found) == {"applied.nginx"}
    assert "the memory limit" in found["applied.nginx"]["message"]


def test_a_secret_that_containers_cannot_read_is_found_and_mended(disturbed: Stack) -> None:
    path = disturbed.checkout / "secrets/jwt_signing_key"
    path.chmod(0o600)

    found = wrong(examine(disturbed))
    mend(disturbed, found["permissions.jwt_signing_key"])

    assert next(iter(found)) == "permissions.jwt_signing_key", "the cause comes before what follows from it"
    assert "values.JWT_SIGNING_KEY" in found, "the application could not start again"
    assert path.stat().st_mode & 0o777 == 0o644
    assert_mended(disturbed, "permissions.jwt_signing_key")


def test_a_secret_that_changed_after_the_start_is_found_and_mended(disturbed: Stack) -> None:
    path = disturbed.checkout / "secrets/email_url"
    before = path.stat()
    os.utime(path)

    found = wrong(examine(disturbed))
    mend(disturbed, found["applied.upkeep.secrets"])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert set(found) == {"applied.upkeep.secrets"}, "no other service mounts it"
    assert_mended(disturbed, "applied.upkeep.secrets")


def test_an_image_that_is_not_of_this_checkout_is_found_and_mended(configured: Stack) -> None:
    with (configured.checkout / "nginx/snippets/errors.conf").open("a") as file:
        file.write("# one more line\n")

    found = wrong(examine(configured))
    mend(configured, found["images.nginx"])

    assert set(found) == {"images.nginx"}
    assert "nginx/snippets/errors.conf" in found["images.nginx"]["message"]
    assert_mended(configured, "images.nginx")


def test_a_port_that_is_taken_is_found_and_mended(disturbed: Stack, base_url: str) -> None:
    port = base_url.rpartition(":")[2]
    disturbed.compose("stop", "nginx")
    with socket.create_server(("127.0.0.1", int(port))):
        found = examine(disturbed)
        mend(disturbed, found[f"ports.{port}"])
        other = re.search(r"HTTP_PORT=(\d+)", found[f"ports.{port}"]["mend"])
        assert other
        with connect(f"http://127.0.0.1:{other[1]}") as client:
            answer = client.get("/readyz")

    assert found[f"ports.{port}"]["level"] == "problem"
    assert "in use by" in found[f"ports.{port}"]["message"]
    assert answer.status_code == HTTPStatus.OK


# The database ---------------------------------------------------------------------------------------------------------


def test_a_migration_that_is_not_applied_is_found_and_mended(disturbed: Stack) -> None:
    back = ("python", "manage.py", "migrate", "--no-input", "transactions", "0003")
    disturbed.compose("run", "--rm", "--no-deps", "--no-TTY", "migrate", *back)

    found = examine(disturbed)
    mend(disturbed, found["migrations"])

    assert found["migrations"]["level"] == found["api"]["level"] == "problem"
    assert "transactions.0004" in found["migrations"]["message"]
    assert_mended(disturbed, "migrations")


def start_database(stack: Stack, connections: int) -> None:
    """Start the database again, with other bounds than .env says."""
    bounds = {**os.environ, "POSTGRES_MAX_CONNECTIONS": str(connections)}
    command = ("docker", "compose", "up", "--detach", "--no-build", "--no-deps", "--wait", "db")
    run(*command, timeout=120, cwd=stack.checkout, env=bounds)
    stack.wait_until_whole()


def test_a_database_that_accepts_too_few_connections_is_found_and_mended(disturbed: Stack) -> None:
    # For the one worker in each of two replicas, the fewest there are, it would have to be 18.
    start_database(disturbed, 16)

    found = examine(disturbed)
    mend(disturbed, found["connections"])

    assert found["connections"]["level"] == "problem"
    assert re.search(r"= \d+ connections, and the database accepts 16\.", found["connections"]["message"])
    assert_mended(disturbed, "connections")


@pytest.fixture
def crowd(disturbed: Stack) -> Iterator[Stack]:
    """A database that accepts 64 connections, of which 50 and more are taken."""
    start_database(disturbed, 64)
    taken = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    asleep = f"{taken} AND query LIKE 'SELECT pg_sleep%'"
    # The application may take more meanwhile, but never the three that are reserved to whoever looks.
    wanted = 50 - int(disturbed.sql(taken).stdout)
    sleep = "psql -X -h 127.0.0.1 -U postgres -d postgres -c 'SELECT pg_sleep(300)'"
    held = f"for number in $(seq {wanted}); do {sleep} & done; wait"
    command = ["docker", "exec", disturbed.container("db").id, "bash", "-c", held]
    with Popen(command, stdout=DEVNULL, stderr=DEVNULL) as holder:
        eventually(lambda: int(disturbed.sql(asleep).stdout) == wanted, within=30, what="the connections are held")
        yield disturbed
        disturbed.sql(asleep.replace("count(*)", "pg_terminate_backend(pid)"), check=False)
        holder.kill()


def test_connections_that_are_taken_are_found_and_mended(crowd: Stack) -> None:
    found = examine(crowd)
    mend(crowd, found["connections.taken"])
    left = examine(crowd)

    assert found["connections.taken"]["level"] in {"warning", "problem"}
    assert left["connections.taken"]["level"] == "ok"
    mend(crowd, left["applied.db"])
    assert_mended(crowd, "connections.taken")


def test_a_database_that_may_forget_is_found_and_mended(disturbed: Stack) -> None:
    disturbed.sql("ALTER SYSTEM SET fsync = off")
    disturbed.sql("SELECT pg_reload_conf()")

    found = wrong(examine(disturbed))
    mend(disturbed, found["durability"])

    assert set(found) == {"durability"}
    assert "fsync" in found["durability"]["message"]
    assert_mended(disturbed, "durability")


# The way in -----------------------------------------------------------------------------------------------------------


def test_a_name_that_does_not_resolve_is_found_and_mended(disturbed: Stack) -> None:
    names = {container.id: container.inspect()["Name"] for container in disturbed.containers("backend")}
    first = min(names, key=lambda identity: names[identity])
    docker("network", "disconnect", f"{disturbed.name()}_data", first)

    found = examine(disturbed)
    mend(disturbed, found["dns.db"])

    assert found["dns.db"]["level"] == "problem"
    assert_mended(disturbed, "dns.db")


def test_an_nginx_that_believes_its_clients_is_found_and_mended(disturbed: Stack) -> None:
    believe = "s|^set_real_ip_from .*|set_real_ip_from 0.0.0.0/0;|"
    nginx = disturbed.container("nginx")
    nginx.execute("sed", "-i", believe, "/tmp/nginx/snippets/trusted-proxies.conf")
    nginx.execute("nginx", "-e", "stderr", "-s", "reload")
    time.sleep(2)

    found = wrong(examine(disturbed))
    mend(disturbed, found["proxy.address"])

    assert set(found) == {"proxy.address"}
    assert_mended(disturbed, "proxy.address")


# The archive ----------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*")
def test_archive_holds_what_helps_and_no_secret(configured: Stack, alice: Person, tmp_path: Path) -> None:
    write_env(configured, "SOME_PASWORD=canary-dotenv")
    token = alice.access
    with connect(configured.base_url) as client:
        client.post("/auth/jwt/create/", json={"username": "canary-user", "password": "canary-password"})
        client.get("/api/transactions/", params={"token": "canary-query", "search": "canary-search"})
        client.get("/api/transactions/", headers={"Authorization": "Bearer canary-bearer", "Cookie": "a=canary-cookie"})
        client.get(f"/no/{token}/such/", headers={"User-Agent": "canary.person@example.org"})
        refused = client.post("/auth/jwt/create/?password=canary-error", content=b"x" * 3_000_000)
    said = "for canary.reader@example.org at 203.0.113.9: password=canary-db Bearer canary-sql postgres://u:canary-u@h/"
    configured.sql(f"DO $$BEGIN RAISE LOG '{said} kept words'; END$$")
    configured.sql("SELECT 'canary-cast'::integer", check=False)
    archive = tmp_path / "it.tar.gz"

    done = run(str(configured.checkout / "scripts/doctor"), "--bundle", str(archive), timeout=200)

    assert done.stdout.strip() == str(archive)
    assert archive.stat().st_mode & 0o777 == 0o600
    with tarfile.open(archive) as tar:
        files = {item.name.partition("/")[2]: held.read().decode() for item in tar if (held := tar.extractfile(item))}
    project = configured.name()
    assert refused.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    assert refused.headers["X-Request-ID"] in files[f"logs/{project}-nginx-1.log"]
    assert "kept words" in files[f"logs/{project}-db-1.log"]
    assert "max_connections" in files["postgres.json"]
    assert json.loads(files["variables.json"])["SOME_PASWORD"] == "[redacted]"
    assert {item["service"] for item in json.loads(files["containers.json"])} == {"migrate", *SERVERS}
    secrets = {path.read_text().strip() for path in (configured.checkout / "secrets").iterdir()} - {""}
    assert len(secrets) >= 5
    for name, text in files.items():
        for leak in {*secrets, token, token.split(".")[1], "canary", "203.0.113.9", str(configured.checkout)}:
            assert leak not in text, (name, leak[:12])
