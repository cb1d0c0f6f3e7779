"""Documentation and admin, each behind its switch, in a process that was started with it."""

import json
from http import HTTPStatus
from pathlib import Path

import pytest
from django.conf import settings

from tests.backend.conftest import Ask, Python

pytestmark = pytest.mark.django_db(transaction=True)

DOCS = ["/", "/api/schema/", "/api/docs/", "/api/redoc/"]
ADMIN = ["/admin/", "/admin/login/", "/admin/accounts/user/", "/admin/transactions/transaction/"]


def test_docs_are_on_unless_they_are_switched_off(ask: Ask, static_root: Path) -> None:
    on = ask(*DOCS)
    off = ask(*DOCS, "/api/docs/?script=", DJANGO_DOCS_ENABLED="false")

    assert [answer.status for answer in on] == [HTTPStatus.FOUND, HTTPStatus.OK, HTTPStatus.OK, HTTPStatus.OK]
    for answer in off:
        assert answer.status == HTTPStatus.NOT_FOUND
        assert json.loads(answer.body) == {"detail": "Not found."}


def test_root_leads_to_the_docs(ask: Ask, static_root: Path) -> None:
    (answer,) = ask("/")

    assert answer.headers["Location"] == "/api/docs/"


def test_admin_is_off_unless_it_is_switched_on(ask: Ask, static_root: Path) -> None:
    off = ask(*ADMIN)
    on = ask(*ADMIN, DJANGO_ADMIN_ENABLED="true")

    assert {answer.status for answer in off} == {HTTPStatus.NOT_FOUND}
    assert [answer.status for answer in on] == [HTTPStatus.FOUND, HTTPStatus.OK, HTTPStatus.FOUND, HTTPStatus.FOUND]
    assert on[0].headers["Location"] == "/admin/login/?next=/admin/"


def test_admin_that_is_off_leaves_no_trace_in_the_settings() -> None:
    assert "django.contrib.admin" not in settings.INSTALLED_APPS
    assert "django.contrib.sessions" not in settings.INSTALLED_APPS
    assert not [name for name in settings.MIDDLEWARE if "session" in name.lower()]


def test_forwarded_headers_are_believed_behind_nginx_only(ask: Ask, static_root: Path) -> None:
    request = {"path": "/", "headers": {"X-Forwarded-Proto": "https", "X-Request-ID": "0" * 32}}

    (behind,) = ask(request)
    (direct,) = ask(request, DJANGO_PROXY_ENABLED="false")

    assert behind.headers["X-Request-ID"] == "0" * 32
    assert direct.headers["X-Request-ID"] != "0" * 32


def test_static_files_are_served_without_nginx_and_left_to_it_otherwise(ask: Ask, static_root: Path) -> None:
    (name,) = (path.name for path in (static_root / "docs").glob("swagger.*.css"))

    (direct,) = ask(f"/static/docs/{name}", DJANGO_PROXY_ENABLED="false")
    (behind,) = ask(f"/static/docs/{name}")

    assert direct.status == HTTPStatus.OK
    assert "immutable" in direct.headers["Cache-Control"]
    assert "Access-Control-Allow-Origin" not in direct.headers
    assert behind.status == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize(("debug", "expected"), [("false", "False False"), ("true", "False True")])
def test_nothing_is_done_around_a_request_for_what_is_not_there(manage: Python, debug: str, expected: str) -> None:
    """In a process of its own: whoever counts queries connects the receiver again."""
    code = (
        "from django.core import cache, signals; from django import db;"
        " print(signals.request_finished.disconnect(cache.close_caches),"
        " signals.request_started.disconnect(db.reset_queries))"
    )

    done = manage("shell", "--no-imports", "-c", code, DJANGO_DEBUG=debug, DJANGO_ENVIRONMENT="development")

    assert done.stdout.strip() == expected, done.stderr


def test_debug_needs_to_be_asked_for_twice(ask: Ask, static_root: Path) -> None:
    (answer,) = ask("/nothing", DJANGO_DEBUG="true", DJANGO_ENVIRONMENT="development")

    assert answer.status == HTTPStatus.NOT_FOUND
    assert not settings.DEBUG
