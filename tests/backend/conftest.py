"""The cast and the stage of the in-process tests: accounts with real tokens, on a real PostgreSQL."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from http import HTTPStatus
from importlib import import_module, reload
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import psycopg
import pytest
from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.db import connection
from django.test import override_settings
from django.urls import clear_url_caches
from psycopg import sql
from pytest_django.plugin import DjangoDbBlocker
from rest_framework.test import APIClient, APIRequestFactory

from accounts.models import User
from tests.backend.tokens import new_session
from transactions.models import Transaction

# The API reads nothing else.
APIRequestFactory.default_format = "json"

ROOT = Path(__file__).resolve().parents[2]
BACKEND = ROOT / "backend"

WITH_MAIL = {
    "EMAIL_URL": "consolemail://",
    "EMAIL_FROM": "noreply@example.com",
    "DJANGO_PASSWORD_RESET_URL": "https://app.example.com/reset/{uid}/{token}",
    "DJANGO_ACTIVATION_ENABLED": "true",
    "DJANGO_ACTIVATION_URL": "https://app.example.com/activate/{uid}/{token}",
}
"""Variables of a server that has every route that needs mail."""

Python = Callable[..., "subprocess.CompletedProcess[str]"]
Ask = Callable[..., list["Answer"]]


class Operation(NamedTuple):
    """One operation of the OpenAPI schema, with a path that can be called."""

    method: str
    path: str
    description: dict[str, Any]


class Answer(NamedTuple):
    """What a process of its own answered."""

    status: HTTPStatus
    headers: dict[str, str]
    body: str


# The cast ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def password() -> str:
    """Return everybody's password."""
    return "correct-horse-battery"


@pytest.fixture(scope="session")
def hashed(password: str) -> str:
    """Return everybody's password as the database has it: for each test anew it would take a minute of all of them."""
    return make_password(password)


@pytest.fixture
def alice(db: None, hashed: str) -> User:
    """Alice, who owns what there is."""
    return User.objects.create(username="alice", email="alice@example.com", password=hashed)


@pytest.fixture
def bob(db: None, hashed: str) -> User:
    """Bob, a stranger to Alice."""
    return User.objects.create(username="bob", email="bob@example.com", password=hashed)


@pytest.fixture
def admin(db: None, hashed: str) -> User:
    """Return the administrator, who has no special right in the API."""
    return User.objects.create(
        username="admin", email="admin@example.com", password=hashed, is_staff=True, is_superuser=True
    )


@pytest.fixture
def sign_in() -> Callable[[User], APIClient]:
    """Return a function that gives an account its client, with an access token as a login would hand it out."""

    def client(account: User) -> APIClient:
        return APIClient(HTTP_AUTHORIZATION=f"Bearer {new_session(account).access_token}")

    return client


@pytest.fixture
def anonymous() -> APIClient:
    """Return a client without a token, which answers 500 where others would raise."""
    return APIClient(raise_request_exception=False)


@pytest.fixture
def as_alice(alice: User, sign_in: Callable[[User], APIClient]) -> APIClient:
    """Return Alice's client."""
    return sign_in(alice)


@pytest.fixture
def as_bob(bob: User, sign_in: Callable[[User], APIClient]) -> APIClient:
    """Return Bob's client."""
    return sign_in(bob)


@pytest.fixture
def coffee(alice: User) -> Transaction:
    """Return the one transaction of Alice."""
    return Transaction.objects.create(user=alice, amount="-3.20", description="Coffee")


# The stage --------------------------------------------------------------------------------------------------------


def route_again() -> None:
    """Let the routes depend on the settings as they are now; a process reads them once, at its start."""
    for name in ("accounts.urls", "config.urls"):
        reload(import_module(name))
    clear_url_caches()


@pytest.fixture
def mail_on(settings: Any) -> Iterator[None]:
    """Configure mail, as its two variables would; Django's own test mailbox takes what is sent."""
    settings.MAIL_ENABLED = True
    settings.PASSWORD_RESET_URL = "https://app.example.com/reset/{uid}/{token}"
    settings.ACTIVATION_URL = "https://app.example.com/activate/{uid}/{token}"
    settings.DEFAULT_FROM_EMAIL = "Transactions <noreply@example.com>"
    route_again()
    yield
    settings.PASSWORD_RESET_URL = ""
    settings.ACTIVATION_ENABLED = False
    route_again()


@pytest.fixture
def activation_on(mail_on: None, settings: Any) -> None:
    """Let registrations be confirmed by mail; ``mail_on`` undoes it."""
    settings.ACTIVATION_ENABLED = True
    route_again()


@pytest.fixture(scope="session")
def operations() -> list[Operation]:
    """Return every operation of the schema; ids in paths are those of rows that do not exist."""
    from config.docs import schema  # noqa: PLC0415 # it needs the settings

    return operations_of(schema())


@pytest.fixture
def operations_with_mail(activation_on: None) -> list[Operation]:
    """Return every operation of the schema of an API to which mail is configured, as it is for this test."""
    return _operations_with_mail()


@cache
def _operations_with_mail() -> list[Operation]:
    from config.docs import schema  # noqa: PLC0415 # it needs the settings

    return operations_of(schema.__wrapped__())


def operations_of(document: dict[str, Any]) -> list[Operation]:
    """Return the operations of a schema."""
    uuid = "00000000-0000-4000-8000-000000000000"
    return [
        Operation(
            method,
            path.replace("sessions/{id}", f"sessions/{uuid}").replace("{id}", "999999"),
            description,
        )
        for path, methods in document["paths"].items()
        for method, description in methods.items()
    ]


@pytest.fixture(scope="session")
def configuration() -> dict[str, str]:
    """Return the environment of this process, which Django accepts, without what would reach another database."""
    return {**os.environ, "PYTHONPATH": str(BACKEND), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture(scope="session")
def static_root(configuration: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the folder of collected static files, with those of the admin site, as the image has it."""
    folder = tmp_path_factory.mktemp("static")
    code = f"from django.conf import settings; settings.STATIC_ROOT = {str(folder)!r}; import manage as m; "
    code += "m.execute_from_command_line(['manage.py', 'collectstatic', '--no-input', '--verbosity', '0'])"
    environment = {**configuration, "DJANGO_ADMIN_ENABLED": "true"}
    subprocess.run([sys.executable, "-c", code], cwd=BACKEND, env=environment, check=True)
    with override_settings(STATIC_ROOT=folder):
        yield folder


@pytest.fixture
def empty_database(django_db_blocker: DjangoDbBlocker, django_db_setup: None) -> Iterator[str]:
    """Return the name of a new, empty database, which processes of their own can migrate."""
    name = f"empty_{uuid4().hex[:12]}"
    with django_db_blocker.unblock():
        parameters = connection.get_connection_params()
        with psycopg.connect(**{**parameters, "dbname": "postgres"}, autocommit=True) as server:
            server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            yield name
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def python(configuration: Mapping[str, str]) -> Python:
    """Return a function that runs Python in backend/, with variables of its own; None removes one."""

    def run(*arguments: str, timeout: float = 60, **variables: str | None) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in {**configuration, **variables}.items() if value is not None}
        command = [sys.executable, *arguments]
        return subprocess.run(
            command, cwd=BACKEND, env=environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    return run


@pytest.fixture
def manage(python: Python) -> Python:
    """Return a function that runs ``manage.py``."""
    return partial(python, "manage.py")


@pytest.fixture
def serve(python: Python) -> Python:
    """Return a function that starts the server, for as long as it runs by itself."""
    return partial(python, "-m", "config.serve")


def free_port() -> int:
    """Return a port of this host that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server_on_the_database_of_tests(
    configuration: Mapping[str, str], log: Path, **variables: str
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Start Gunicorn as the container does, and stop it afterwards; give its port and its process."""
    port = free_port()
    database = {"POSTGRES_DB": str(connection.settings_dict["NAME"])}
    own = {"GUNICORN_BIND": f"127.0.0.1:{port}", "WEB_CONCURRENCY": "1"}
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "config.serve"],
            cwd=BACKEND,
            env={**configuration, **database, **own, **variables},
            stderr=stderr,
        )
        for _ in range(300):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert process.poll() is None, log.read_text()
                time.sleep(0.05)
        yield port, process
        process.terminate()
        assert process.wait(30) == 0


@pytest.fixture
def ask(configuration: Mapping[str, str]) -> Ask:
    """Return a function that sends requests to the application in a process with variables of its own."""

    def run(*requests: str | dict[str, Any], **variables: str) -> list[Answer]:
        database = {"POSTGRES_DB": connection.settings_dict["NAME"]}
        given = [{"path": item} if isinstance(item, str) else item for item in requests]
        done = subprocess.run(
            [sys.executable, "-m", "tests.backend.ask"],
            cwd=ROOT,
            env={**configuration, **database, **variables},
            input=json.dumps({"requests": given, "static_root": str(settings.STATIC_ROOT)}),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [Answer(HTTPStatus(status), headers, body) for status, headers, body in json.loads(done.stdout)]

    return run
