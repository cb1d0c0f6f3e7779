"""The two probes, and the health check of the container, each of which can go red."""

import re
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from rest_framework.test import APIClient

from health import probe

pytestmark = pytest.mark.django_db

HOSTS = ["testserver", "172.18.0.5:8000", "[::1]:8000", "backend:8000", "evil.example", "_", ""]


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(("path", "body"), [("/healthz", {"status": "ok"}), ("/readyz", {"status": "ready"})])
def test_probe_is_answered_whatever_host_it_names(
    anonymous: APIClient, host: str, path: str, body: dict[str, str]
) -> None:
    response = anonymous.get(path, headers={"Host": host})

    assert response.status_code == HTTPStatus.OK
    assert response.json() == body
    assert re.fullmatch("[0-9a-f]{32}", response["X-Request-ID"])


def test_healthz_needs_no_database(anonymous: APIClient, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert anonymous.get("/healthz").status_code == HTTPStatus.OK


def test_readyz_costs_two_queries(anonymous: APIClient, django_assert_max_num_queries: Any) -> None:
    with django_assert_max_num_queries(2):
        assert anonymous.get("/readyz").status_code == HTTPStatus.OK


def assert_not_ready(response: Any) -> None:
    assert response.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert response["Content-Type"] == "application/json"
    assert response["Retry-After"] == "5"
    assert re.fullmatch("[0-9a-f]{32}", response["X-Request-ID"])
    assert response.json() == {"detail": "The service is not ready."}, "strangers learn nothing more"


@pytest.mark.parametrize("app", ["accounts", "transactions", "auth", "token_blacklist"])
def test_readyz_is_red_while_a_migration_is_missing(
    anonymous: APIClient, caplog: pytest.LogCaptureFixture, app: str
) -> None:
    newest = MigrationRecorder.Migration.objects.filter(app=app).order_by("name").last()
    assert newest is not None
    newest.delete()

    assert_not_ready(anonymous.get("/readyz"))

    assert f"not ready: migrations are not applied: {app}.{newest.name}" in caplog.text


def test_readyz_is_red_on_an_empty_database(anonymous: APIClient) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE django_migrations")

    assert_not_ready(anonymous.get("/readyz"))


def test_readyz_is_green_on_a_schema_that_is_newer_than_the_code(anonymous: APIClient) -> None:
    MigrationRecorder.Migration.objects.create(app="transactions", name="0099_of_the_next_release")

    assert anonymous.get("/readyz").status_code == HTTPStatus.OK


@pytest.mark.parametrize("path", ["/healthz/", "/readyz/", "/healthzX", "/readyz/foo", "/health", "/api/healthz"])
def test_probe_has_one_path(anonymous: APIClient, path: str) -> None:
    assert anonymous.get(path).status_code == HTTPStatus.NOT_FOUND


# The container's check: ``python -m health.probe`` ------------------------------------------------------------------


class Server(HTTPServer):
    """Answers every request with one status."""

    status = HTTPStatus.OK
    asked: list[str]


class Handler(BaseHTTPRequestHandler):
    """Answer with the server's status."""

    server: Server

    def do_GET(self) -> None:
        """Answer."""
        self.server.asked.append(self.path)
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 # the name in the standard library
        """Keep quiet."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Return a server that stands where the check looks: its port is another, since 8000 may be in use here."""
    server = Server(("127.0.0.1", 0), Handler)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()

    def elsewhere(host: str, port: int, timeout: float) -> HTTPConnection:
        assert (host, port) == ("127.0.0.1", 8000)
        assert timeout < 5, "Docker gives the check five seconds"
        return HTTPConnection(host, server.server_port, timeout=timeout)

    monkeypatch.setattr("http.client.HTTPConnection", elsewhere)
    yield server
    server.shutdown()
    server.server_close()


def test_container_check_is_green_when_ready(server: Server) -> None:
    assert probe.main() == 0
    assert server.asked == ["/readyz"]


@pytest.mark.parametrize("status", [HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.MOVED_PERMANENTLY, HTTPStatus.NOT_FOUND])
def test_container_check_is_red_on_every_other_answer(server: Server, status: HTTPStatus) -> None:
    server.status = status

    assert probe.main() == 1


def test_container_check_is_red_when_nobody_answers(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.shutdown()
    server.server_close()

    assert probe.main() == 1
    assert "no answer" in capsys.readouterr().out
