"""Secrets that an operator has chosen, each beginning with what a shell, Compose or a library takes for a reference."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import closing
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.operations.test_rotation import accepts
from tests.stack.containers import Stack, free_port, run
from tests.stack.people import connect, sign_up, unique

pytestmark = pytest.mark.timeout(300)

REFERENCES = {
    "django_secret_key": "$DJANGO_ALLOWED_HOSTS",
    "jwt_signing_key": "${POSTGRES_DB}",
    "postgres_superuser_password": "$(id)",
    "postgres_migrator_password": "$$PATH",
    "postgres_app_password": "$POSTGRES_PASSWORD",
}
ACCOUNTS = {"postgres": "superuser", "transactions_migrator": "migrator", "transactions_app": "app"}


@pytest.fixture
def chosen(stack: Stack, tmp_path: Path) -> Iterator[tuple[Stack, dict[str, str]]]:
    """A stack of its own, from its first start on with such secrets, each in a file that ends with a newline."""
    folder = tmp_path / "checkout"
    shutil.copytree(stack.checkout, folder, ignore=shutil.ignore_patterns("secrets", "var"))
    project = unique(f"{stack.name()}-first-start")
    environment = {
        **os.environ,
        "COMPOSE_PROJECT_NAME": project,
        "HTTP_PORT": str(free_port()),
        "BACKEND_REPLICAS": "1",
        "NGINX_AUTH_RATE": "99999r/s",
    }
    run(str(folder / "scripts/init"), env=environment)
    values = {name: f"{start}-{secrets.token_urlsafe(48)}" for name, start in REFERENCES.items()}
    for name, value in values.items():
        (folder / "secrets" / name).write_text(f"{value}\n")
    try:
        run(str(folder / "scripts/up"), "--detach", env=environment, timeout=240)
        yield Stack(folder, f"http://127.0.0.1:{environment['HTTP_PORT']}", project), values
    finally:
        run(str(folder / "scripts/down"), "--volumes", "--yes", env=environment, timeout=120, check=False)


def test_secrets_that_look_like_references_are_taken_as_they_are(chosen: tuple[Stack, dict[str, str]]) -> None:
    stack, values = chosen

    with closing((person := sign_up(stack.base_url, "alice")).client):
        row = person.record("as it is")
    with connect(stack.base_url) as client:
        ready = client.get("/readyz").status_code
    ask = "from django.conf import settings; print(settings.SECRET_KEY); print(settings.SIMPLE_JWT['SIGNING_KEY'])"
    keys = stack.container("backend").execute("python", "manage.py", "shell", "--no-imports", "-c", ask).stdout.split()

    assert ready == HTTPStatus.OK
    assert row["description"] == "as it is"
    assert keys == [values["django_secret_key"], values["jwt_signing_key"]]
    for account, name in ACCOUNTS.items():
        assert accepts(stack, account, values[f"postgres_{name}_password"]), account
        assert not accepts(stack, account, values[f"postgres_{name}_password"].partition("-")[2]), account
