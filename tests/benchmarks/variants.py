"""What is compared: each variant with its database, its processes and its tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from uuid import uuid4

from argon2 import PasswordHasher
from psycopg import sql

from tests.benchmarks import data, proxies
from tests.benchmarks.processes import Programs, free_port, run, wait_for
from tests.benchmarks.setting import HERE, ROOT, Setting


class Tokens(NamedTuple):
    """What one login has given."""

    user: int
    access: str
    refresh: str


@dataclass
class Running:
    """A variant that serves."""

    variant: Variant
    url: str
    application: list[int]
    proxy: int
    access_log: Path
    tokens: list[Tokens]


class Variant:
    """One of the things that are compared."""

    name: ClassVar[str]
    title: ClassVar[str]
    served_by: ClassVar[str]
    database: ClassVar[str]
    users: ClassVar[str] = "auth_user"
    """The table of accounts."""

    def __init__(self, setting: Setting, programs: Programs) -> None:
        self.setting = setting
        self.programs = programs

    def prepare(self) -> None:
        """Make the database and its rows."""
        raise NotImplementedError

    def serve(self) -> Running:
        """Start the application and the nginx before it, wait until they answer, and log every user in."""
        raise NotImplementedError

    def tokens(self, users: Sequence[int]) -> list[Tokens]:
        """Return a new pair of tokens for each of ``users``, which lives longer than any run."""
        raise NotImplementedError


HASH = """
import sys
import django
django.setup()
from django.contrib.auth.hashers import make_password
print(make_password(sys.stdin.read()))
"""

SHIPPED_TOKENS = """
import json, sys
import django
django.setup()
from django.db import transaction
from django.test import RequestFactory
from accounts.models import User
from accounts.sessions import open_session
with transaction.atomic():
    users = User.objects.in_bulk()
    for user in json.load(sys.stdin):
        pair = open_session(user=users[user], request=RequestFactory().post("/"))
        print(json.dumps([user, pair["access"], pair["refresh"]]))
"""


class Shipped(Variant):
    """This stack, as docker-compose.yml starts it: its Gunicorn configuration, two replicas, its nginx."""

    name = "shipped"
    title = "this stack"
    served_by = "2 replicas of Gunicorn as configured, nginx as configured"
    database = "transactions"
    users = "accounts_user"
    replicas = 2

    def environment(self, *, role: str = "app", **variables: str) -> dict[str, str]:
        """Return what Compose would hand over."""
        return self.setting.environment(
            DJANGO_SETTINGS_MODULE="config.settings",
            DJANGO_ALLOWED_HOSTS="localhost,127.0.0.1",
            DJANGO_SECRET_KEY=self.setting.secret[::-1],
            JWT_SIGNING_KEY=self.setting.secret,
            POSTGRES_HOST=self.setting.host,
            POSTGRES_PORT=self.setting.port,
            POSTGRES_DB=self.database,
            POSTGRES_USER=f"transactions_{role}",
            POSTGRES_PASSWORD_FILE=str(self.setting.passwords / f"postgres_{role}_password"),
            **variables,
        )

    def migrate(self) -> None:
        """Make the schema as the service ``migrate`` does."""
        env = self.environment(role="migrator", POSTGRES_STATEMENT_TIMEOUT_MS="0")
        run([self.setting.python, "manage.py", "migrate", "--no-input"], env=env, cwd=ROOT / "backend")

    def password_hash(self) -> str:
        """Return the hash of the users' password, as a registration would store it."""
        command: list[str | Path] = [self.setting.python, "-c", HASH]
        return run(command, env=self.environment(), cwd=ROOT / "backend", stdin=data.PASSWORD).strip()

    def prepare(self) -> None:
        """Make the schema with its migrations, and the rows."""
        self.migrate()
        data.load_users(self.setting, self.database, table=self.users, password=self.password_hash())
        data.load_rows(self.setting, self.database)
        data.vacuum(self.setting, self.database)

    def serve(self, users: Sequence[int] = data.EVERYBODY) -> Running:
        """Start the replicas and nginx; log ``users`` in."""
        ports = [free_port() for _ in range(self.replicas)]
        applications = [
            self.programs.start(
                f"{self.name}-{number}",
                [self.setting.python, "-m", "config.serve"],
                env=self.environment(GUNICORN_BIND=f"127.0.0.1:{port}", BACKEND_REPLICAS=str(self.replicas)),
                cwd=ROOT / "backend",
            )
            for number, port in enumerate(ports, 1)
        ]
        for port in ports:
            wait_for(f"http://127.0.0.1:{port}/healthz", self.programs)
        proxy, port, log = proxies.start_shipped(self.setting, self.programs, self.name, applications=ports)
        tokens = self.tokens(users)
        url = f"http://127.0.0.1:{port}"
        wait_for(f"{url}/api/transactions/", self.programs, token=tokens[0].access)
        return Running(self, url, applications, proxy, log, tokens)

    def tokens(self, users: Sequence[int]) -> list[Tokens]:
        """Open a session for each, with the application's own code."""
        lines = self.python(SHIPPED_TOKENS, list(users), JWT_ACCESS_LIFETIME_MINUTES="1440")
        return [Tokens(*json.loads(line)) for line in lines.splitlines()]

    def python(self, code: str, question: Any, **variables: str) -> str:
        """Return what ``code`` prints in the application's environment, with ``question`` on its stdin as JSON."""
        command: list[str | Path] = [self.setting.python, "-c", code]
        env = self.environment(**variables)
        return run(command, env=env, cwd=ROOT / "backend", stdin=json.dumps(question))


BASELINE_TOKENS = """
import json, sys
import django
django.setup()
from datetime import timedelta
from django.contrib.auth.models import User
from django.db import transaction
from rest_framework_simplejwt.tokens import RefreshToken
users = User.objects.in_bulk()
with transaction.atomic():
    for user in json.load(sys.stdin):
        refresh = RefreshToken.for_user(users[user])
        access = refresh.access_token
        access.set_exp(lifetime=timedelta(days=1))
        print(json.dumps([user, str(access), str(refresh)]))
"""


class Usual(Variant):
    """A variant of one server and the nginx that the usual guides put before it."""

    folder: ClassVar[Path]
    connections_kept: ClassVar[bool]
    """By nginx, to the application."""

    def environment(self, **variables: str) -> dict[str, str]:
        """Return what the application reads."""
        return self.setting.environment(
            BENCH_SECRET=self.setting.secret,
            POSTGRES_HOST=self.setting.host,
            POSTGRES_PORT=self.setting.port,
            POSTGRES_DB=self.database,
            POSTGRES_USER="postgres",
            POSTGRES_PASSWORD=self.setting.superuser_password(),
            **variables,
        )

    def command(self, port: int) -> list[str | Path]:
        """Return what serves the application."""
        raise NotImplementedError

    def serve(self) -> Running:
        """Start the application and nginx."""
        port = free_port()
        application = self.programs.start(self.name, self.command(port), env=self.environment(), cwd=self.folder)
        tokens = self.tokens(data.EVERYBODY)
        wait_for(f"http://127.0.0.1:{port}/api/transactions/", self.programs, token=tokens[0].access)
        proxy, public, log = proxies.start_usual(
            self.setting, self.programs, self.name, application=port, keepalive=self.connections_kept
        )
        url = f"http://127.0.0.1:{public}"
        wait_for(f"{url}/api/transactions/", self.programs, token=tokens[0].access)
        return Running(self, url, [application], proxy, log, tokens)


def gunicorn(python: Path, workers: int, port: int) -> list[str | Path]:
    """Return the command of Gunicorn, without the application."""
    return [python, "-m", "gunicorn", "--workers", str(workers), "--bind", f"127.0.0.1:{port}"]


class Baseline(Usual):
    """The sample's code with the settings of the usual guides."""

    name = "baseline"
    title = "the sample as the usual guides deploy it"
    served_by = "Gunicorn, 3 sync workers"
    database = "bench_baseline"
    folder = HERE / "baseline"
    workers = 3
    connections_kept = False

    def environment(self, **variables: str) -> dict[str, str]:
        """Return what the settings read."""
        return super().environment(DJANGO_SETTINGS_MODULE="project.settings", **variables)

    def command(self, port: int) -> list[str | Path]:
        """Return the command of Gunicorn."""
        return [*gunicorn(self.setting.python, self.workers, port), "project.wsgi"]

    def prepare(self) -> None:
        """Make the tables of the models, and the rows, unless a peer has already begun with them."""
        with self.setting.connect("postgres") as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [self.database]).fetchone():
                return
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(self.database)))
        env = self.environment()
        run([self.setting.python, "-m", "django", "migrate", "--no-input"], env=env, cwd=self.folder)
        hashed = run([self.setting.python, "-c", HASH], env=env, cwd=self.folder, stdin=data.PASSWORD)
        data.load_users(self.setting, self.database, table=self.users, password=hashed.strip())
        data.load_rows(self.setting, self.database)
        data.vacuum(self.setting, self.database)

    def tokens(self, users: Sequence[int]) -> list[Tokens]:
        """Make a pair for each, with simplejwt."""
        lines = run(
            [self.setting.python, "-c", BASELINE_TOKENS],
            env=self.environment(),
            cwd=self.folder,
            stdin=json.dumps(list(users)),
        )
        return [Tokens(*json.loads(line)) for line in lines.splitlines()]


PEER_TOKENS = """
import json, sys
from datetime import timedelta
import credentials
for user, jti in json.load(sys.stdin):
    pair = credentials.pair(user, jti, timedelta(days=1))
    print(json.dumps([user, pair["access"], pair["refresh"]]))
"""


class Peer(Usual):
    """Another framework on the same rows, with the index that the order of the page asks for."""

    folder = HERE / "peers"
    connections_kept = True

    def environment(self, **variables: str) -> dict[str, str]:
        """Return what the applications read."""
        return super().environment(PYTHONPATH=f"{self.folder}:{self.folder / 'ninja'}", **variables)

    def prepare(self) -> None:
        """Begin with the sample's database."""
        Baseline(self.setting, self.programs).prepare()
        with self.setting.connect("postgres") as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(self.database), sql.Identifier(Baseline.database)
                )
            )
        hashed = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1).hash(data.PASSWORD)
        with self.setting.connect(self.database) as connection:
            connection.execute("ALTER TABLE transactions_transaction ALTER timestamp SET DEFAULT now()")
            connection.execute('CREATE INDEX ON transactions_transaction (user_id, "timestamp" DESC, id DESC)')
            connection.execute(
                "CREATE TABLE refresh_token (jti text PRIMARY KEY, user_id bigint NOT NULL REFERENCES auth_user (id),"
                " expires_at timestamptz NOT NULL, spent_at timestamptz)"
            )
            connection.execute("UPDATE auth_user SET password = %s", [f"argon2{hashed}"])
        data.vacuum(self.setting, self.database)

    def tokens(self, users: Sequence[int]) -> list[Tokens]:
        """Make a pair for each."""
        wanted = [(user, uuid4().hex) for user in users]
        with self.setting.connect(self.database) as connection:
            connection.cursor().executemany(
                "INSERT INTO refresh_token (jti, user_id, expires_at) VALUES (%s, %s, now() + interval '1 day')",
                [(jti, user) for user, jti in wanted],
            )
        lines = run(
            [self.setting.peers_python, "-c", PEER_TOKENS],
            env=self.environment(),
            cwd=self.folder,
            stdin=json.dumps(wanted),
        )
        return [Tokens(*json.loads(line)) for line in lines.splitlines()]


class Ninja(Peer):
    """django-ninja; workers as Gunicorn's documentation has them: twice the processors, and one."""

    name = "django-ninja"
    title = "django-ninja"
    served_by = "Gunicorn, 5 sync workers (Gunicorn's documentation: 2 x cores + 1), connections kept"
    database = "bench_ninja"

    def command(self, port: int) -> list[str | Path]:
        """Return the command of Gunicorn."""
        command = gunicorn(self.setting.peers_python, 5, port)
        return [*command, "--env", "DJANGO_SETTINGS_MODULE=peer.settings", "peer.wsgi"]


class FastAPI(Peer):
    """FastAPI; one process for each of the two processors, as its documentation of deployments has it."""

    module: ClassVar[str]

    def command(self, port: int) -> list[str | Path]:
        """Return the command of uvicorn; its own access log is off, since nginx writes one."""
        uvicorn: list[str | Path] = [self.setting.peers_python, "-m", "uvicorn", "--workers", "2", "--port", str(port)]
        return [*uvicorn, "--no-access-log", "--proxy-headers", f"{self.module}:app"]


class FastAPISQLAlchemy(FastAPI):
    """FastAPI with SQLAlchemy's ORM."""

    name = "fastapi-sqlalchemy"
    title = "FastAPI with SQLAlchemy"
    served_by = "uvicorn with uvloop, 2 workers; synchronous sessions, as in FastAPI's documentation"
    database = "bench_sqlalchemy"
    module = "fastapi_sqlalchemy"


class FastAPIAsyncpg(FastAPI):
    """FastAPI with SQL by hand."""

    name = "fastapi-asyncpg"
    title = "FastAPI with asyncpg"
    served_by = "uvicorn with uvloop, 2 workers; asyncpg's pool"
    database = "bench_asyncpg"
    module = "fastapi_asyncpg"


VARIANTS: dict[str, type[Variant]] = {
    variant.name: variant for variant in (Shipped, Baseline, Ninja, FastAPISQLAlchemy, FastAPIAsyncpg)
}
