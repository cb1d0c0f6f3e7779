"""Containers that are replaced, and an nginx that is reloaded, while the stack serves."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus

import httpx
import pytest

from tests.stack.containers import Container, Stack, docker, eventually
from tests.stack.load import Load
from tests.stack.people import Person, connect, unique

MOST_SQUATTERS = 12
RELOADS = 20
CRASHES_SECONDS = 30
FOUND_WITHIN_SECONDS = 2
"""How long nginx may answer 503 after a backend on a new address serves."""

SERVES_SINCE = """
until curl -fs -o /dev/null --max-time 1 -H 'Host: localhost' -H 'X-Forwarded-Proto: https' http://$0:8000/readyz
do sleep 0.05; done
date +%s.%N
"""
"""Asks a backend itself, over the network that nginx reaches it by."""


@pytest.fixture
def squatters(stack: Stack) -> Iterator[list[str]]:
    """Names of containers that hold addresses; gone afterwards."""
    names: list[str] = []
    yield names
    for name in names:
        docker("rm", "--force", name, check=False)


def take(stack: Stack, squatters: list[str], addresses: set[str]) -> None:
    """Let containers that serve nothing have the addresses that backends have had."""
    network = f"{stack.name()}_application"
    image = stack.container("nginx").inspect()["Image"]
    taken: set[str] = set()
    while not addresses <= taken and len(squatters) < MOST_SQUATTERS:
        squatters.append(unique(f"{stack.name()}-squatter"))
        options = ("--init", "--network", network, "--name", squatters[-1], "--entrypoint", "sleep")
        docker("run", "--detach", *options, image, "300")
        taken.add(Container(squatters[-1]).address(network))
    assert addresses <= taken, "the old addresses are not held, so this test shows nothing"


@pytest.mark.timeout(240)
def test_backends_on_new_addresses_are_found_within_2_seconds_and_without_a_restart_of_nginx(
    disturbed: Stack, squatters: list[str], base_url: str, alice: Person
) -> None:
    network = f"{disturbed.name()}_application"
    row = alice.record("before")
    before = {backend.address(network) for backend in disturbed.containers("backend")}
    nginx = disturbed.container("nginx")
    started = nginx.inspect()["State"]["StartedAt"]

    disturbed.compose("rm", "--stop", "--force", "backend")
    take(disturbed, squatters, before)
    disturbed.compose("up", "--detach", "--no-build", "--no-deps", "backend")
    addresses = {backend.address(network) for backend in disturbed.containers("backend")}
    asked = [
        subprocess.Popen(
            ["docker", "exec", nginx.id, "sh", "-c", SERVES_SINCE, address], stdout=subprocess.PIPE, text=True
        )
        for address in addresses
    ]
    while not disturbed.is_ready():
        time.sleep(0.02)
    found = time.time()
    serve = min(float(one.communicate(timeout=60)[0]) for one in asked)

    print(f"found {found - serve:.2f} s after the first of them served")
    assert found - serve < FOUND_WITHIN_SECONDS
    with connect(base_url) as client:
        assert [client.get("/readyz").status_code for _ in range(20)] == [HTTPStatus.OK] * 20
    assert not before & addresses
    assert nginx.inspect()["State"]["StartedAt"] == started
    assert alice.client.get(f"/api/transactions/{row['id']}/").json() == row


@pytest.mark.timeout(240)
def test_one_backend_on_a_new_address_costs_503_for_2_seconds_at_most(disturbed: Stack, squatters: list[str]) -> None:
    network = f"{disturbed.name()}_application"
    leaves, stays = disturbed.containers("backend")
    before = leaves.address(network)

    with Load(disturbed) as load:
        docker("stop", leaves.id)
        docker("rm", leaves.id)
        take(disturbed, squatters, {before})
        disturbed.compose("up", "--detach", "--no-build", "--no-deps", "--no-recreate", "--wait", "backend")
        time.sleep(2)

    # Mostly none: it takes the address of the one that has just gone, and a list that changes in the same second.
    load.assert_whole(refused_for=FOUND_WITHIN_SECONDS)
    (new,) = set(disturbed.containers("backend")) - {stays}
    assert new.address(network) != before


WORKERS = """
for one in /proc/[0-9]*
do [ "$(tr -d '\\0' <$one/cmdline)" != 'nginx: worker process' ] || echo $one; done
"""
"""Those that are shutting down have another name."""


@pytest.mark.timeout(240)
def test_nginx_that_is_reloaded_20_times_costs_no_request(disturbed: Stack) -> None:
    nginx = disturbed.container("nginx")

    def workers() -> set[str]:
        return set(nginx.execute("sh", "-c", WORKERS).stdout.split())

    with Load(disturbed) as load:
        for _ in range(RELOADS):
            old = workers()
            nginx.execute("nginx", "-e", "stderr", "-s", "reload")
            time.sleep(0.5)
            while not (new := workers()) or new & old:
                time.sleep(0.1)

    print(f"{load.asked.total()} requests")
    load.assert_whole()


@pytest.mark.timeout(180)
def test_recreated_backends_cost_503_at_most(disturbed: Stack, base_url: str, alice: Person) -> None:
    before = disturbed.containers("backend")

    disturbed.compose("up", "--detach", "--no-build", "--no-deps", "--force-recreate", "backend")
    answers: list[httpx.Response] = []

    def is_back() -> bool:
        with suppress(httpx.RemoteProtocolError), connect(base_url) as client:
            answers.append(client.get("/readyz"))
        return [answer.status_code for answer in answers[-5:]] == [HTTPStatus.OK] * 5

    eventually(is_back, within=20, what="the new backends serve")

    assert not set(before) & set(disturbed.containers("backend"))
    assert {answer.status_code for answer in answers} <= {HTTPStatus.OK, HTTPStatus.SERVICE_UNAVAILABLE}
    assert all("Retry-After" in answer.headers for answer in answers if answer.is_server_error)
    assert alice.descriptions() == []


def test_data_outlives_the_container(disturbed: Stack, alice: Person) -> None:
    row = alice.record("kept")
    before = disturbed.container("db")

    disturbed.compose("up", "--detach", "--no-build", "--no-deps", "--force-recreate", "--wait", "db")

    assert disturbed.container("db") != before
    assert alice.client.get(f"/api/transactions/{row['id']}/").json() == row
    volume = docker("volume", "inspect", f"{disturbed.name()}_database").stdout
    assert "com.docker.compose.volume" in volume


def test_a_backend_that_refuses_is_started_again_ever_more_seldom_and_floods_no_log(stack: Stack) -> None:
    backend = stack.container("backend").inspect()
    policy, log = (backend["HostConfig"][name] for name in ("RestartPolicy", "LogConfig"))
    name = unique(f"{stack.name()}-own")
    bounds = [option for key, value in log["Config"].items() for option in ("--log-opt", f"{key}={value}")]
    docker(
        *("run", "--detach", "--name", name, "--restart", policy["Name"], "--log-driver", log["Type"], *bounds),
        *("--read-only", "--network", "none", "--env", "GUNICORN_THREADS=none", backend["Image"]),
    )
    try:
        time.sleep(CRASHES_SECONDS)
        about = Container(name).inspect()
        said = docker("logs", name)
    finally:
        docker("rm", "--force", name)
    lines = (said.stdout + said.stderr).splitlines()

    assert policy["Name"] == "unless-stopped"
    # Docker waits 0.1 s before the first time and twice as long before each further one.
    assert 2 <= about["RestartCount"] <= 10
    starts = [line for line in lines if "The configuration has " in line]
    assert 2 <= len(starts) <= about["RestartCount"] + 1
    assert len(lines) <= 15 * (about["RestartCount"] + 1)
    assert bounds, "nothing bounds the log"
