"""Health checks go red when their process is broken, green again by themselves, and say so over HTTP meanwhile."""

import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from threading import Event

import httpx
import pytest

from tests.stack.containers import SERVERS, Container, Stack, eventually
from tests.stack.headers import assert_every_header_once
from tests.stack.people import Person, connect
from tests.stack.static import PAGES, assets_of

THREADS = 4
"""Of each worker; what GUNICORN_THREADS is unless it is set."""

CLIENT_PATIENCE_SECONDS = 15
"""The longest that any request may take, whatever is broken."""

UNHEALTHY_SECONDS = 60
"""Three checks in a row, every 10 s, each given 5 s."""


@contextmanager
def frozen(containers: list[Container]) -> Iterator[None]:
    """Stop every process of the containers where it is: they still hold their ports, and answer nothing."""
    try:
        for container in containers:
            container.execute("sh", "-c", "kill -STOP -1")
        yield
    finally:
        for container in containers:
            container.execute("sh", "-c", "kill -CONT -1")


@contextmanager
def watched(base_url: str, path: str) -> Iterator[list[HTTPStatus | str]]:
    """Ask for ``path`` all the time, and hand over what was answered within 2 seconds, or why nothing was."""
    seen: list[HTTPStatus | str] = []
    done = Event()

    def watch() -> None:
        while not done.wait(0.2):
            try:
                with connect(base_url) as client:
                    seen.append(HTTPStatus(client.get(path, timeout=2).status_code))
            except httpx.TransportError as error:
                seen.append(repr(error))

    with ThreadPoolExecutor(1) as pool:
        watcher: Future[None] = pool.submit(watch)
        try:
            yield seen
        finally:
            done.set()
            watcher.result(timeout=10)


def assert_unavailable(answer: httpx.Response) -> None:
    assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert answer.headers["Content-Type"] == "application/json"
    assert isinstance(answer.json()["detail"], str)
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert_every_header_once(answer)
    assert answer.elapsed.total_seconds() < CLIENT_PATIENCE_SECONDS


def probe(container: Container) -> int:
    """Run the container's own health check now, with its own time limit, and return its exit status."""
    healthcheck = container.inspect()["Config"]["Healthcheck"]
    try:
        return container.execute(*healthcheck["Test"][1:], check=False, timeout=healthcheck["Timeout"] / 1e9).returncode
    except subprocess.TimeoutExpired:
        return 1


@pytest.mark.timeout(420)
def test_docker_sees_that_processes_hang_and_that_they_go_on(disturbed: Stack) -> None:
    # The upkeep process may be silent for longer: tests/operations/test_upkeep.py.
    services = [service for service in SERVERS if service != "upkeep"]
    servers = [container for service in services for container in disturbed.containers(service)]
    assert {server.health() for server in servers} == {"healthy"}

    with frozen(servers):
        eventually(
            lambda: {server.health() for server in servers} == {"unhealthy"},
            within=UNHEALTHY_SECONDS,
            what="every server is unhealthy",
        )

    eventually(lambda: {server.health() for server in servers} == {"healthy"}, within=30, what="all are healthy again")


@pytest.mark.timeout(240)
def test_a_database_that_hangs_makes_the_api_unavailable_and_nothing_else(
    disturbed: Stack, base_url: str, alice: Person
) -> None:
    row = alice.record("before")
    backends = disturbed.containers("backend")
    workers = sum(int(backend.execute("python", "-m", "config.sizing").stdout) for backend in backends)
    questions = [
        ("GET", "/readyz", None),
        ("GET", "/api/transactions/", None),
        ("POST", "/api/transactions/", {"amount": "1.00", "description": "meanwhile"}),
        ("GET", "/auth/users/me/", None),
        ("POST", "/auth/jwt/refresh/", {"refresh": alice.refresh}),
        # More than there are threads: all of them wait for the database.
        *[("GET", "/api/transactions/", None)] * THREADS * workers,
    ]

    with watched(base_url, "/healthz") as healthz:
        disturbed.compose("pause", "db")
        with ThreadPoolExecutor(len(questions)) as pool:
            asked = [pool.submit(alice.client.request, method, path, json=body) for method, path, body in questions]
            answers = [question.result() for question in asked]
        probes = [probe(backend) for backend in backends]
        disturbed.compose("unpause", "db")
        eventually(disturbed.is_ready, within=5, what="ready again")

    for answer in answers:
        assert_unavailable(answer)
    assert probes == [1, 1]
    assert set(healthz) == {HTTPStatus.OK}
    assert alice.client.get(f"/api/transactions/{row['id']}/").json() == row
    assert [probe(backend) for backend in backends] == [0, 0]


@pytest.mark.timeout(180)
def test_a_database_that_is_stopped_makes_the_api_unavailable_until_it_is_back(
    disturbed: Stack, base_url: str, alice: Person
) -> None:
    backends = disturbed.containers("backend")
    started = [backend.inspect()["State"]["StartedAt"] for backend in backends]

    with watched(base_url, "/healthz") as healthz:
        disturbed.compose("stop", "db")
        answers = [
            alice.client.get("/readyz"),
            alice.client.get("/api/transactions/"),
            alice.client.post("/auth/jwt/create/", json={"username": alice.name, "password": "wrong"}),
        ]
        probes = [probe(backend) for backend in backends]
        disturbed.compose("start", "db")
        eventually(disturbed.is_ready, within=10, what="ready again")
    statuses = [alice.client.get("/api/transactions/").status_code for _ in range(40)]

    for answer in answers:
        assert_unavailable(answer)
    assert probes == [1, 1]
    assert set(healthz) == {HTTPStatus.OK}
    # Not one connection of before the restart is used again unchecked.
    assert statuses == [HTTPStatus.OK] * 40
    assert [backend.inspect()["State"]["StartedAt"] for backend in backends] == started


@pytest.mark.timeout(180)
def test_nginx_answers_for_a_backend_that_is_away_and_finds_it_again(
    disturbed: Stack, client: httpx.Client, alice: Person
) -> None:
    nginx = disturbed.container("nginx")
    started = nginx.inspect()["State"]["StartedAt"]
    client.get("/healthz")

    disturbed.compose("stop", "backend")
    answers = [
        client.get("/healthz"),
        alice.client.get("/api/transactions/"),
        alice.client.post("/api/transactions/", json={"amount": "1.00", "description": "x"}),
        client.post("/auth/jwt/create/", json={}),
    ]
    nginx_is_fine = probe(nginx)
    disturbed.compose("start", "backend")
    eventually(disturbed.is_ready, within=15, what="ready again")

    for answer in answers:
        assert_unavailable(answer)
    assert nginx_is_fine == 0
    assert nginx.inspect()["State"]["StartedAt"] == started
    assert alice.descriptions() == []


@pytest.mark.timeout(180)
def test_nginx_starts_without_a_backend_and_says_so(disturbed: Stack, client: httpx.Client) -> None:
    disturbed.compose("stop", "backend")

    disturbed.compose("restart", "--no-deps", "nginx")
    eventually(lambda: disturbed.container("nginx").health() == "healthy", within=15, what="nginx is healthy")

    assert_unavailable(client.get("/readyz"))
    disturbed.compose("start", "backend")
    eventually(disturbed.is_ready, within=15, what="ready again")


@pytest.mark.timeout(180)
def test_a_killed_backend_costs_no_reader_an_answer(disturbed: Stack, base_url: str) -> None:
    victim = disturbed.containers("backend")[0]
    restarts = victim.inspect()["RestartCount"]

    with watched(base_url, "/readyz") as readyz:
        time.sleep(1)
        # The init process itself cannot be signalled from within; its only child can, and takes it along: sometimes
        # before this shell has ended.
        victim.execute("sh", "-c", "kill -KILL -1", check=False)
        eventually(
            lambda: victim.inspect()["RestartCount"] > restarts and victim.inspect()["State"]["Running"],
            within=20,
            what="Docker restarted the backend",
        )
        eventually(lambda: probe(victim) == 0, within=20, what="the new process serves")

    assert len(readyz) >= 5
    assert set(readyz) == {HTTPStatus.OK}


def test_static_files_need_no_backend(disturbed: Stack, client: httpx.Client) -> None:
    paths = [path for page in PAGES for path in assets_of(client, page)]

    disturbed.compose("pause", "backend")

    assert [client.get(path).status_code for path in paths] == [HTTPStatus.OK] * len(paths)
