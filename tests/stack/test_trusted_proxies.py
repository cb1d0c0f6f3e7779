"""Another proxy in front of nginx: its word about the client counts, and nobody else's."""

from http import HTTPStatus
from ipaddress import ip_network

import httpx
import pytest

from tests.stack.containers import Nginx, Stack, docker
from tests.stack.people import PASSWORD, Person, connect
from tests.stack.test_rate_limits import BURST

CLIENT = "198.51.100.7"
OTHER_CLIENT = "2001:db8:7::1"
PROXY_OF_THE_CLIENT = "203.0.113.9"


@pytest.fixture
def gateway(stack: Stack) -> str:
    """The address that this host has for nginx: here, that of the proxy."""
    ipam = "{{(index .IPAM.Config 0).Gateway}}"
    return docker("network", "inspect", "--format", ipam, f"{stack.name()}_edge").stdout.strip()


def log_in(client: httpx.Client, person: Person, forwarded_for: str) -> httpx.Response:
    body = {"username": person.name, "password": PASSWORD}
    return client.post("/auth/jwt/create/", json=body, headers={"X-Forwarded-For": forwarded_for})


def addresses_of_sessions(base_url: str, pair: dict[str, str]) -> dict[bool, str]:
    with connect(base_url) as client:
        sessions = client.get("/auth/sessions/", headers={"Authorization": f"Bearer {pair['access']}"}).json()
    rows = sessions["results"] if isinstance(sessions, dict) else sessions
    return {row["current"]: row["client_address"] for row in rows}


def test_the_client_behind_a_trusted_proxy_has_its_own_address(start_nginx: Nginx, gateway: str, alice: Person) -> None:
    base_url = start_nginx(NGINX_TRUSTED_PROXIES=f"192.0.2.0/24, {ip_network(f'{gateway}/16', strict=False)}")

    with connect(base_url) as client:
        pair = log_in(client, alice, f"{PROXY_OF_THE_CLIENT}, {CLIENT}").json()

    # What the client itself wrote before it is no matter.
    assert addresses_of_sessions(base_url, pair)[True] == CLIENT


def test_each_client_behind_a_trusted_proxy_has_its_own_limit(start_nginx: Nginx, gateway: str, alice: Person) -> None:
    base_url = start_nginx(NGINX_TRUSTED_PROXIES=gateway, NGINX_AUTH_RATE="1r/m")

    with connect(base_url) as client:
        answers = [log_in(client, alice, f"{number}.0.0.1, {CLIENT}").status_code for number in range(BURST + 2)]
        other = log_in(client, alice, OTHER_CLIENT).status_code

    assert answers[-1] == HTTPStatus.TOO_MANY_REQUESTS
    assert set(answers[:-1]) == {HTTPStatus.OK}
    assert other == HTTPStatus.OK


@pytest.mark.parametrize(("scheme", "secure"), [("https", True), ("http", False), ("gopher", False)])
def test_links_have_the_scheme_that_a_trusted_proxy_names(
    start_nginx: Nginx, gateway: str, alice: Person, scheme: str, secure: bool
) -> None:
    for number in range(11):
        alice.record(str(number))
    base_url = start_nginx(NGINX_TRUSTED_PROXIES=gateway)

    with connect(base_url) as client:
        headers = {"X-Forwarded-Proto": scheme, "Authorization": f"Bearer {alice.access}", "Host": "localhost"}
        answer = client.get("/api/transactions/", headers=headers)

    assert answer.json()["next"].startswith(f"{'https' if secure else 'http'}://localhost/api/transactions/?page=2")
    assert ("Strict-Transport-Security" in answer.headers) is secure


def test_nobody_else_is_believed(start_nginx: Nginx, gateway: str, alice: Person) -> None:
    base_url = start_nginx(NGINX_TRUSTED_PROXIES="192.0.2.10,2001:db8::/48")

    with connect(base_url) as client:
        pair = log_in(client, alice, CLIENT).json()
        answer = client.get(
            "/api/transactions/",
            headers={"X-Forwarded-Proto": "https", "Authorization": f"Bearer {pair['access']}"},
        )

    assert addresses_of_sessions(base_url, pair)[True] == gateway
    assert "Strict-Transport-Security" not in answer.headers
