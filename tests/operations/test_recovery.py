"""Containers that are replaced while the stack serves."""

from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus

import httpx
import pytest

from tests.stack.containers import Stack, docker, eventually
from tests.stack.people import Person, connect, unique

MOST_SQUATTERS = 12


@pytest.fixture
def squatters(stack: Stack) -> Iterator[list[str]]:
    """Names of containers that hold addresses; gone afterwards."""
    names: list[str] = []
    yield names
    for name in names:
        docker("rm", "--force", name, check=False)


@pytest.mark.timeout(240)
def test_backends_on_new_addresses_are_found_without_a_restart_of_nginx(
    disturbed: Stack, squatters: list[str], base_url: str, alice: Person
) -> None:
    network = f"{disturbed.name()}_application"
    image = disturbed.container("backend").inspect()["Image"]
    row = alice.record("before")
    before = {backend.address(network) for backend in disturbed.containers("backend")}
    nginx = disturbed.container("nginx").inspect()["State"]

    disturbed.compose("rm", "--stop", "--force", "backend")
    taken: set[str] = set()
    while not before <= taken and len(squatters) < MOST_SQUATTERS:
        squatters.append(unique(f"{disturbed.name()}-squatter"))
        docker("run", "--detach", "--init", "--network", network, "--name", squatters[-1], image, "sleep", "300")
        shown = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
        taken.add(docker("inspect", "--format", shown, squatters[-1]).stdout.strip())
    assert before <= taken, "the old addresses are not held, so this test shows nothing"
    disturbed.compose("up", "--detach", "--no-build", "--no-deps", "--wait", "backend")

    eventually(disturbed.is_ready, within=5, what="nginx found the new backends")
    with connect(base_url) as client:
        assert [client.get("/readyz").status_code for _ in range(20)] == [HTTPStatus.OK] * 20
    assert not before & {backend.address(network) for backend in disturbed.containers("backend")}
    assert disturbed.container("nginx").inspect()["State"]["StartedAt"] == nginx["StartedAt"]
    assert alice.client.get(f"/api/transactions/{row['id']}/").json() == row


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
