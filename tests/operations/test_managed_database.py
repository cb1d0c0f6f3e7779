"""A PostgreSQL server that somebody else runs, in place of the stack's own.

Another container of the same image plays it: on a network that no service is on, published to the host's own side of
the engine's bridge, so that the stack has to leave its networks to reach it. Its administrator is no superuser, the
passwords hold every character that a URL gives a meaning to, and its certificate is of an authority that nobody knows
but the operator.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.operations.certificates import Authority
from tests.operations.test_doctor import examine, wrong
from tests.stack.containers import Container, Result, Stack, docker, eventually, free_port, run
from tests.stack.people import connect, sign_up, unique

SPECIAL = "!#$%&'()*+,/:;=?@[]"
ADMINISTRATOR = f"administrator-{SPECIAL}"
PASSWORDS = {"transactions_app": f"application-{SPECIAL}", "transactions_migrator": f"migrator-{SPECIAL}"}
SERVICES = ["backend", "nginx", "upkeep"]
VERIFIED = "sslmode=verify-full&sslrootcert=/run/secrets/database_root_certificate"
"""What docs/runbook.md says that an address ends with."""

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Managed:
    """The server of somebody else."""

    container: Container
    host: str
    port: int
    authority: Authority

    def url(self, user: str, password: str, *, options: str = VERIFIED) -> str:
        return f"postgresql://{user}:{quote(password, safe='')}@{self.host}:{self.port}/ledger?{options}"

    def app_url(self, options: str) -> str:
        return self.url("transactions_app", PASSWORDS["transactions_app"], options=options)

    def switch_tls(self, state: str) -> None:
        self.sql(f"ALTER SYSTEM SET ssl = {state}")
        self.sql("SELECT pg_reload_conf()")
        eventually(lambda: self.sql("SHOW ssl") == state, within=5, what=f"TLS is {state}")

    def sql(self, statement: str) -> str:
        command = ("psql", "-X", "-At", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres", "-d", "ledger")
        return self.container.execute(*command, "-c", statement).stdout.strip()


@pytest.fixture(scope="module")
def managed(stack: Stack) -> Iterator[Managed]:
    """A server with an empty database, whose owner may make roles and is no superuser."""
    image = stack.container("db").inspect()["Config"]["Image"]
    name = unique(f"{stack.name()}-managed")
    gateway = "{{(index .IPAM.Config 0).Gateway}}"
    docker("network", "create", name)
    host = docker("network", "inspect", "--format", gateway, "bridge").stdout.strip()
    port = free_port(host)
    try:
        started = docker(
            *("run", "--detach", "--name", name, "--network", name, "--publish", f"{host}:{port}:5432"),
            *("--env", f"POSTGRES_PASSWORD={secrets.token_urlsafe(24)}", "--env", "POSTGRES_USER=postgres"),
            *("--entrypoint", "docker-entrypoint.sh", "--tmpfs", "/docker-entrypoint-initdb.d", image, "postgres"),
        )
        server = Managed(Container(started.stdout.strip()), host, port, Authority())
        ready = ("pg_isready", "-q", "-h", "127.0.0.1")
        eventually(
            lambda: server.container.execute(*ready, check=False).returncode == 0, within=60, what="the server answers"
        )
        administrator = ["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres"]
        server.container.feed(
            f"CREATE ROLE administrator LOGIN CREATEROLE CREATEDB PASSWORD $${ADMINISTRATOR}$$;\n"
            "CREATE DATABASE ledger OWNER administrator;\n",
            *administrator,
        )
        pair = server.authority.sign(address=host)
        server.container.feed(pair.certificate_pem().decode(), "sh", "-c", 'cat >"$PGDATA/server.crt"')
        server.container.feed(pair.key_pem().decode(), "sh", "-c", 'umask 077; cat >"$PGDATA/server.key"')
        server.switch_tls("on")
        yield server
    finally:
        docker("rm", "--force", "--volumes", name, check=False)
        docker("network", "rm", name, check=False)


@dataclass(frozen=True)
class Started:
    """A stack that uses it."""

    stack: Stack
    environment: dict[str, str]


@pytest.fixture(scope="module")
def started(stack: Stack, managed: Managed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """A stack of its own checkout, made as docs/runbook.md says it is."""
    folder = tmp_path_factory.mktemp("managed") / "checkout"
    shutil.copytree(stack.checkout, folder, ignore=shutil.ignore_patterns("secrets", "var"))
    environment = {
        **os.environ,
        "COMPOSE_PROJECT_NAME": unique(f"{stack.name()}-managed"),
        "HTTP_PORT": str(free_port()),
        "BACKEND_REPLICAS": "1",
        "NGINX_AUTH_RATE": "99999r/s",
    }
    environment["PGPASSWORD"] = ADMINISTRATOR
    run(str(folder / "scripts/init"), env=environment)
    with (folder / ".env").open("a", encoding="utf-8") as file:
        file.write("DB_REPLICAS=0\nDATABASE_NETWORK_INTERNAL=false\n")
    for role, url in (("app", "database_url"), ("migrator", "migrator_database_url")):
        password = PASSWORDS[f"transactions_{role}"]
        (folder / f"secrets/postgres_{role}_password").write_text(password + "\n")
        (folder / "secrets" / url).write_text(managed.url(f"transactions_{role}", password) + "\n")
    (folder / "secrets/database_root_certificate").write_bytes(managed.authority.certificate_pem())
    own = Stack(folder, f"http://127.0.0.1:{environment['HTTP_PORT']}", environment["COMPOSE_PROJECT_NAME"])
    try:
        run(
            *("docker", "compose", "run", "--rm", "--no-deps", "--no-TTY", "--env", "PGPASSWORD"),
            *("--entrypoint", "/docker-entrypoint-initdb.d/10-roles.sh", "db"),
            f"postgresql://administrator@{managed.host}:{managed.port}/ledger?sslmode=require",
            cwd=folder,
            env=environment,
        )
        run(str(folder / "scripts/up"), "--detach", env=environment, timeout=240)
        yield Started(own, environment)
    finally:
        run(str(folder / "scripts/down"), "--volumes", "--yes", env=environment, timeout=120, check=False)


def test_the_stack_serves_from_it_and_starts_no_database_of_its_own(started: Started, managed: Managed) -> None:
    with closing((person := sign_up(started.stack.base_url, "alice")).client):
        row = person.record("elsewhere")
        read = person.client.get(f"/api/transactions/{row['id']}/").json()
    running = started.stack.compose("ps", "--all", "--format", "{{.Service}} {{.State}}").stdout.split("\n")

    assert managed.sql("SELECT description FROM transactions_transaction") == "elsewhere"
    assert read == row
    assert sorted(filter(None, running)) == sorted(["migrate exited", *(f"{name} running" for name in SERVICES)])


def test_each_service_signs_in_with_its_own_role(started: Started, managed: Managed) -> None:
    sign_up(started.stack.base_url, "bob").client.close()

    owners = managed.sql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
    signed_in = managed.sql("SELECT DISTINCT usename FROM pg_stat_activity WHERE datname = 'ledger' ORDER BY 1")

    assert owners == "transactions_migrator"
    assert signed_in.split() == ["postgres", "transactions_app"]


def test_readiness_follows_it(started: Started, managed: Managed) -> None:
    def readiness() -> int:
        with connect(started.stack.base_url) as client:
            return int(client.get("/readyz").status_code)

    assert readiness() == HTTPStatus.OK
    docker("pause", managed.container.id)
    try:
        eventually(
            lambda: readiness() == HTTPStatus.SERVICE_UNAVAILABLE, within=40, what="/readyz says that it is away"
        )
    finally:
        docker("unpause", managed.container.id)
    eventually(lambda: readiness() == HTTPStatus.OK, within=40, what="/readyz says that it is back")


def test_management_commands_reach_it(started: Started, managed: Managed) -> None:
    name = unique("admin")

    run(str(started.stack.checkout / "scripts/manage"), "create_admin", name, "--generate", env=started.environment)
    plan = run(str(started.stack.checkout / "scripts/manage"), "migrate", "--plan", env=started.environment)

    assert name in managed.sql("SELECT username FROM accounts_user WHERE is_superuser").split()
    assert "No planned migration operations" in plan.stdout


def test_shell_says_how_to_reach_it(started: Started) -> None:
    result = run(str(started.stack.checkout / "scripts/shell"), "db", env=started.environment, check=False)

    assert result.returncode == 1
    assert "DB_REPLICAS is 0" in result.stderr
    assert 'next: psql "$(cat secrets/migrator_database_url)"' in result.stderr


def test_its_passwords_are_left_to_whoever_runs_it(started: Started) -> None:
    files = [started.stack.checkout / f"secrets/postgres_{role}_password" for role in ("app", "migrator", "superuser")]
    before = [file.read_bytes() for file in files]

    command = (str(started.stack.checkout / "scripts/init"), "--rotate", "postgres")
    refused = run(*command, env=started.environment, check=False)

    assert refused.returncode == 1
    assert "the database is not in a container of this stack" in refused.stderr
    assert "next: docs/runbook.md says what to do" in refused.stderr
    assert [file.read_bytes() for file in files] == before


def test_doctor_looks_at_everything_and_finds_nothing_wrong(started: Started) -> None:
    found = examine(started.stack, **started.environment)

    assert wrong(found) == {}
    assert "connections are taken" in found["connections.taken"]["message"]
    for name in ("clock.db", "postgres", "connections", "migrations"):
        assert found[name]["level"] == "ok", name
    for name in ("volume", "durability"):
        assert "DB_REPLICAS=0" in found[name]["message"], name


def test_doctor_says_that_it_is_away(started: Started, managed: Managed) -> None:
    docker("pause", managed.container.id)
    try:
        found = examine(started.stack, **started.environment)
    finally:
        docker("unpause", managed.container.id)
    eventually(started.stack.is_ready, within=40, what="the database is back")

    assert found["postgres"]["level"] == "problem"
    assert "secrets/database_url" in found["postgres"]["mend"]


def test_every_connection_over_the_network_is_encrypted(started: Started, managed: Managed) -> None:
    sign_up(started.stack.base_url, "carol").client.close()

    encrypted = managed.sql(
        "SELECT DISTINCT usename, ssl, version FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
        " WHERE usename LIKE 'transactions%'"
    )

    assert encrypted == "transactions_app|t|TLSv1.3"


def test_another_server_is_not_believed(started: Started, managed: Managed) -> None:
    """One with a certificate of somebody else, one with that of another name, and one without any."""
    of_another_authority = sign_in(started, managed.app_url("sslmode=verify-full&sslrootcert=/tmp/other.pem"))
    under_another_name = sign_in(
        started, managed.app_url(f"{VERIFIED}&hostaddr={managed.host}").replace(f"@{managed.host}", "@db.example.com")
    )
    managed.switch_tls("off")
    try:
        in_clear = sign_in(started, managed.app_url("application_name=x"))
    finally:
        managed.switch_tls("on")

    assert "certificate verify failed" in of_another_authority.stderr
    assert 'does not match host name "db.example.com"' in under_another_name.stderr
    assert "server does not support SSL, but SSL was required" in in_clear.stderr
    assert all(result.returncode != 0 for result in (of_another_authority, under_another_name, in_clear))
    assert sign_in(started, managed.app_url("application_name=x")).returncode == 0


def sign_in(started: Started, url: str) -> Result:
    """Sign in as a backend does, with another authority in /tmp/other.pem."""
    script = (
        'umask 077; IFS= read -r url; printf %s "$url" >/tmp/url; cat >/tmp/other.pem;'
        " exec python manage.py showmigrations"
    )
    return started.stack.compose(
        *("run", "--rm", "--no-deps", "--no-TTY", "--env", "DATABASE_URL_FILE=/tmp/url", "backend", "sh", "-c", script),
        check=False,
        input=f"{url}\n{Authority().certificate_pem().decode()}",
    )


def test_no_password_is_in_a_log_or_in_what_the_engine_shows(started: Started) -> None:
    words = [word for password in PASSWORDS.values() for word in (password, quote(password, safe=""))]
    for service in ("migrate", *SERVICES):
        shown = started.stack.logs(service) + str(started.stack.container(service).inspect())
        assert [word for word in words if word in shown] == [], service


def test_secrets_of_one_service_are_not_in_another(started: Started) -> None:
    def mounted(service: str) -> set[str]:
        mounts = started.stack.container(service).inspect()["Mounts"]
        return {Path(mount["Destination"]).name for mount in mounts if "/run/secrets/" in mount["Destination"]}

    assert "migrator_database_url" in mounted("migrate")
    assert "database_url" not in mounted("migrate")
    for service in ("backend", "upkeep"):
        assert "database_url" in mounted(service)
        assert "migrator_database_url" not in mounted(service)
