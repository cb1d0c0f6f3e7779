"""The mistakes of the tutorial sample that this service began as, one test for each: none of them may come back."""

import json
import re
import subprocess
from http import HTTPStatus
from pathlib import Path

import pytest
import yaml
from django.conf import settings
from django.contrib.auth.password_validation import validate_password
from django.core.exceptions import ValidationError
from django.db import connection
from rest_framework.test import APIClient

from accounts.models import User
from config.env import EX_CONFIG
from tests.backend.conftest import BACKEND, ROOT, Operation, Python
from tests.backend.tokens import new_session
from transactions.models import Transaction

pytestmark = pytest.mark.django_db


def test_client_writable_owner(as_alice: APIClient, alice: User, bob: User, coffee: Transaction) -> None:
    body = {"amount": "1.00", "description": "Gift", "user": bob.pk}

    recorded = as_alice.post("/api/transactions/", body)
    replaced = as_alice.put(f"/api/transactions/{coffee.pk}/", body)
    changed = as_alice.patch(f"/api/transactions/{coffee.pk}/", {"user": bob.pk})

    assert [response.json()["user"] for response in (recorded, replaced, changed)] == [alice.pk] * 3
    assert not Transaction.objects.filter(user=bob).exists()


def test_password123_in_the_docs(operations: list[Operation]) -> None:
    described = json.dumps([item.description for item in operations])
    passwords = re.findall(r'"password": "([^"]+)"', described)
    written = [path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]]
    passwords += re.findall(r'"password":\s*"([^"]+)"', "\n".join(written))

    assert len(passwords) >= 3
    for password in passwords:
        validate_password(password, User(username="alice"))
    with pytest.raises(ValidationError):
        validate_password("password123", User(username="alice"))
    assert "password123" not in described + "".join(written)


def test_transactions_path(as_alice: APIClient, anonymous: APIClient) -> None:
    for client in (as_alice, anonymous):
        for path in ("/transactions/", "/transactions/1/", "/transactions"):
            assert client.get(path).status_code == HTTPStatus.NOT_FOUND
    assert as_alice.get("/api/transactions/").status_code == HTTPStatus.OK


def test_500_on_password_reset(anonymous: APIClient, alice: User) -> None:
    answers = [
        anonymous.post(f"/auth/users/{action}/", {"email": email})
        for action in ("reset_password", "reset_username", "resend_activation")
        for email in (alice.email, "nobody@example.com")
    ]

    assert {(answer.status_code, answer.content) for answer in answers} == {
        (HTTPStatus.NOT_FOUND, b'{"detail": "Not found."}')
    }


def test_username_list_in_the_browsable_api(as_alice: APIClient, bob: User) -> None:
    browser = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9"}

    for path in ("/api/transactions/", "/auth/users/me/", "/auth/users/", "/auth/jwt/create/"):
        for response in (as_alice.get(path, headers=browser), as_alice.options(path, headers=browser)):
            assert response["Content-Type"] == "application/json"
            assert "bob" not in response.content.decode()
    assert "bob" not in as_alice.options("/api/transactions/").content.decode()


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete", "head", "options", "trace"])
def test_anonymous_500s(anonymous: APIClient, operations: list[Operation], static_root: Path, method: str) -> None:
    paths = {path for _, path, _ in operations} | {"/", "/api/docs/", "/api/redoc/", "/api/schema/", "/healthz"}

    for path in paths:
        response = getattr(anonymous, method)(path)

        assert response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR, f"{method} {path}"


def test_cdn_assets(anonymous: APIClient, static_root: Path) -> None:
    for path in ("/api/docs/", "/api/redoc/"):
        page = anonymous.get(path).content.decode()
        references = re.findall(r'(?:src|href)="([^"]*)"', page)

        assert references
        assert not [url for url in references if "//" in url]
        assert "cdn" not in page
    scripts = list(static_root.rglob("redoc*.js"))
    assert scripts
    for script in scripts:
        assert b"cdn.redoc.ly" not in script.read_bytes()


@pytest.mark.parametrize("route", ["create", "refresh", "verify"])
def test_unanchored_jwt_routes(anonymous: APIClient, alice: User, password: str, route: str) -> None:
    token = str(new_session(alice))
    body = {"username": "alice", "password": password, "refresh": token, "token": token}

    for tail in ("X", "X/", "/foo", "/foo/", ""):
        assert anonymous.post(f"/auth/jwt/{route}{tail}", body).status_code == HTTPStatus.NOT_FOUND
    assert anonymous.post(f"/auth/jwt/{route}/", body).status_code == HTTPStatus.OK


def test_delete_me_500(as_alice: APIClient, coffee: Transaction, password: str) -> None:
    response = as_alice.delete("/auth/users/me/", {"current_password": password})

    assert response.status_code == HTTPStatus.NO_CONTENT
    assert Transaction.objects.filter(pk=coffee.pk).exists()


def test_default_secret_key(manage: Python, serve: Python) -> None:
    without = manage("check", DJANGO_SECRET_KEY=None)
    of_the_sample = manage("check", DJANGO_SECRET_KEY="django-insecure-" + "9x!k2#v" * 8)
    started = serve(DJANGO_SECRET_KEY=None)

    assert without.returncode == of_the_sample.returncode == started.returncode == EX_CONFIG
    assert "DJANGO_SECRET_KEY is missing" in without.stderr
    assert "DJANGO_SECRET_KEY is easy to guess" in of_the_sample.stderr
    assert "SECRET_KEY =" not in (BACKEND / "config/settings.py").read_text().replace(
        "SECRET_KEY = env.DJANGO_SECRET_KEY", ""
    )


def test_sqlite_in_the_image() -> None:
    assert {database["ENGINE"] for database in settings.DATABASES.values()} == {"config.postgresql"}
    assert connection.vendor == "postgresql"
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    assert "db" in compose["services"]
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "backend", "docker-compose.yml"]
    for name in subprocess.check_output(listed, cwd=ROOT, text=True).splitlines():
        path = ROOT / name
        assert not re.search(r"\.(sqlite3?|db)$", path.name)
        assert not path.read_bytes().startswith(b"SQLite format 3")
        assert "sqlite" not in path.read_text(encoding="utf-8").lower(), path
