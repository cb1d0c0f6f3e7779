"""Guessing passwords through nginx: what one address may do, and what many may do to one account.

The stack of the tests lets one address do as much as it likes, since everybody in them has the same; the limit is
tested on an nginx of the same image beside it.
"""

import json
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.stack import wire
from tests.stack.containers import Container, Nginx, Stack, another_nginx, docker, eventually, run
from tests.stack.contract import operations_of
from tests.stack.headers import assert_every_header_once
from tests.stack.people import PASSWORD, Person, connect, unique

BURST = 5
ACCOUNT_LIMIT = 10

SECRETS = {"password", "current_password", "new_password", "token", "refresh"}
"""Fields by which an operation takes a password or a token, wherever it is."""

LIMITED = [
    ("POST", "/auth/jwt/create/"),
    ("POST", "/auth/jwt/create"),
    ("POST", "/auth/jwt/createX"),
    ("POST", "/auth/anything/"),
    ("POST", "/admin/login/"),
    ("POST", "/admin/login/?next=/admin/"),
    ("POST", "/admin/password_change/"),
]
FREE = [
    ("GET", "/auth/users/me/"),
    ("GET", "/auth/sessions/"),
    ("OPTIONS", "/auth/jwt/create/"),
    ("GET", "/api/transactions/"),
    ("POST", "/api/transactions/"),
    ("GET", "/readyz"),
]
SAME_ROUTE = [
    "/%61uth/jwt/create/",
    "/auth/jwt/%63reate/",
    "/auth/%6a%77%74/create/",
    "/auth/jwt/create/?",
    "/auth/jwt/create/?x=/api/",
    "/auth/jwt/create/#x",
    "http://localhost/auth/jwt/create/",
]
"""Other ways to write the route of the login, which a backend would take for it."""

NO_ROUTE = [
    "//auth/jwt/create/",
    "/auth//jwt/create/",
    "/./auth/jwt/create/",
    "/auth/./jwt/create/",
    "/api/../auth/jwt/create/",
    "/api/%2e%2e/auth/jwt/create/",
    "/auth%2fjwt/create/",
    "/auth/jwt%2Fcreate/",
    "/AUTH/jwt/create/",
    "/Auth/jwt/create/",
    "/;/auth/jwt/create/",
    "/%2561uth/jwt/create/",
    "/\\auth/jwt/create/",
]
"""What a looser server would take for it."""


@pytest.fixture(scope="module")
def slow_nginx(stack: Stack) -> Iterator[str]:
    """An nginx whose limit, once it is used up, stays so for a minute."""
    with another_nginx(stack, NGINX_AUTH_RATE="1r/m") as base_url:
        yield base_url


@pytest.fixture
def used_up(slow_nginx: str) -> Iterator[httpx.Client]:
    """A client whose address has nothing left."""
    with connect(slow_nginx) as client:
        while guess(client).status_code != HTTPStatus.TOO_MANY_REQUESTS:
            pass
        yield client


def guess(client: httpx.Client) -> httpx.Response:
    """Try an account that nobody has tried before: only the address can be what is limited."""
    return client.post("/auth/jwt/create/", json={"username": unique("nobody"), "password": "wrong"})


def assert_limited(answer: httpx.Response) -> None:
    assert answer.status_code == HTTPStatus.TOO_MANY_REQUESTS
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json() == {"detail": "Too many requests from this address. Try again in a moment."}
    assert_every_header_once(answer)
    assert int(answer.headers["Retry-After"]) > 0


# One address --------------------------------------------------------------------------------------


def test_one_address_may_try_a_few_times_at_once_and_then_30_times_a_minute(start_nginx: Nginx) -> None:
    with connect(start_nginx()) as client:
        answers = [guess(client) for _ in range(20)]
        refused = [answer for answer in answers if answer.status_code == HTTPStatus.TOO_MANY_REQUESTS]

        # One, the burst, and what became free while they were sent.
        assert [answer.status_code for answer in answers[: BURST + 1]] == [HTTPStatus.UNAUTHORIZED] * (BURST + 1)
        assert len(refused) >= 20 - (BURST + 1) - 3
        for answer in refused:
            assert_limited(answer)
        assert refused[-1].headers["Retry-After"] == "2"

        time.sleep(int(refused[-1].headers["Retry-After"]))
        assert guess(client).status_code == HTTPStatus.UNAUTHORIZED


def test_two_processes_of_nginx_count_together(start_nginx: Nginx) -> None:
    base_url = start_nginx(NGINX_AUTH_RATE="1r/m", NGINX_WORKER_PROCESSES="4")
    statuses = []
    for _ in range(30):
        with connect(base_url) as client:
            statuses.append(guess(client).status_code)

    assert statuses.count(HTTPStatus.UNAUTHORIZED) == BURST + 1


def test_every_operation_that_takes_a_password_or_a_token_is_limited(used_up: httpx.Client) -> None:
    document = yaml.safe_load((Path(__file__).parents[2] / "docs/openapi-mail.yaml").read_text())
    takes_one = [
        operation
        for operation in operations_of(document)
        if (operation.path.startswith("/auth/") and operation.method != "GET") or SECRETS & operation.fields.keys()
    ]
    assert {"POST /auth/jwt/create/", "DELETE /auth/sessions/{id}/"} <= {str(operation) for operation in takes_one}
    for operation in takes_one:
        answer = used_up.request(operation.method, operation.url(), json={})

        assert answer.status_code == HTTPStatus.TOO_MANY_REQUESTS, operation
        assert_limited(answer)


@pytest.mark.parametrize(("method", "path"), LIMITED)
def test_every_other_path_that_may_take_one_is_limited(method: str, path: str, used_up: httpx.Client) -> None:
    assert_limited(used_up.request(method, path, json={}))


@pytest.mark.parametrize(("method", "path"), FREE)
def test_no_other_route_is_limited(method: str, path: str, used_up: httpx.Client) -> None:
    answers = [used_up.request(method, path) for _ in range(BURST + 3)]

    assert HTTPStatus.TOO_MANY_REQUESTS not in {answer.status_code for answer in answers}


def send(base_url: str, target: str, *headers: str) -> int:
    """Send a login, with a target as it stands, and return the status."""
    body = json.dumps({"username": unique("nobody"), "password": "wrong"})
    fields = ["Host: localhost", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    lines = [f"POST {target} HTTP/1.1", *fields, "Connection: close", "", body]
    (status,) = wire.converse(base_url, "\r\n".join(lines).encode()).statuses
    return status


@pytest.mark.parametrize("target", SAME_ROUTE)
def test_another_spelling_of_a_route_is_no_way_round(
    target: str, used_up: httpx.Client, base_url: str, slow_nginx: str
) -> None:
    assert send(base_url, target) == HTTPStatus.UNAUTHORIZED, "it is no spelling of this route"

    assert send(slow_nginx, target) == HTTPStatus.TOO_MANY_REQUESTS


@pytest.mark.parametrize("target", NO_ROUTE)
def test_what_only_looks_like_a_route_reaches_none(target: str, base_url: str) -> None:
    assert send(base_url, target) in {HTTPStatus.NOT_FOUND, HTTPStatus.BAD_REQUEST}


@pytest.mark.parametrize(
    "header",
    [
        *["X-Forwarded-For: 203.0.113.9", "X-Real-IP: 203.0.113.9", "Forwarded: for=203.0.113.9"],
        *["X-HTTP-Method-Override: GET", "X-Original-URL: /readyz"],
    ],
)
def test_no_header_is_a_way_round(header: str, used_up: httpx.Client, slow_nginx: str) -> None:
    assert send(slow_nginx, "/auth/jwt/create/", header) == HTTPStatus.TOO_MANY_REQUESTS


# Many addresses, one account ----------------------------------------------------------------------

STRANGER = """
import json, sys, urllib.error, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
for body in json.load(sys.stdin):
    request = urllib.request.Request(sys.argv[1], json.dumps(body).encode(), {
        "Content-Type": "application/json", "Host": "localhost", "X-Forwarded-For": "203.0.113.9"})
    try:
        answer = opener.open(request)
    except urllib.error.HTTPError as error:
        answer = error
    print(answer.status, answer.headers.get("Retry-After", "-"))
"""


def log_in_from_elsewhere(stack: Stack, base_url: str, *credentials: dict[str, Any]) -> list[tuple[int, str]]:
    """Log in from a container, which has an address of its own; return status and Retry-After of each answer."""
    container = Container(
        docker(
            *("run", "--detach", "--init", "--network", f"{stack.name()}_edge"),
            *("--name", unique(f"{stack.name()}-own"), stack.container("backend").inspect()["Image"], "sleep", "120"),
        ).stdout.strip()
    )
    nginx = stack.container("nginx").address(f"{stack.name()}_edge")
    try:
        said = container.feed(
            json.dumps(credentials), "python", "-c", STRANGER, f"http://{nginx}:8080/auth/jwt/create/"
        ).stdout
    finally:
        docker("rm", "--force", container.id)
    return [(int(status), wait) for status, wait in (line.split() for line in said.splitlines())]


def test_whoever_guesses_is_stopped_and_the_owner_comes_in_from_the_usual_place(
    stack: Stack, base_url: str, alice: Person
) -> None:
    wrong = [{"username": alice.name, "password": f"guess {number}"} for number in range(ACCOUNT_LIMIT + 5)]
    right = {"username": alice.name, "password": PASSWORD}

    answers = log_in_from_elsewhere(stack, base_url, *wrong, right)

    statuses = [status for status, _ in answers]
    assert statuses[:ACCOUNT_LIMIT] == [HTTPStatus.UNAUTHORIZED] * ACCOUNT_LIMIT
    assert set(statuses[ACCOUNT_LIMIT:]) == {HTTPStatus.TOO_MANY_REQUESTS}
    assert 0 < int(answers[-1][1]) <= 900
    # She registered and logged in from the address that the tests have.
    assert alice.client.post("/auth/jwt/create/", json=right).status_code == HTTPStatus.OK
    assert alice.client.get("/auth/users/me/").status_code == HTTPStatus.OK


def test_an_operator_unlocks_an_account(stack: Stack, base_url: str, alice: Person) -> None:
    wrong = [{"username": alice.name, "password": f"guess {number}"} for number in range(ACCOUNT_LIMIT + 1)]
    right = {"username": alice.name, "password": PASSWORD}
    assert log_in_from_elsewhere(stack, base_url, *wrong, right)[-1][0] == HTTPStatus.TOO_MANY_REQUESTS

    said = stack.container("backend").execute("python", "manage.py", "unlock", alice.name).stdout

    assert said == f"{ACCOUNT_LIMIT} failed attempts on this account are forgotten.\n"
    assert log_in_from_elsewhere(stack, base_url, right)[-1][0] == HTTPStatus.OK


# IPv6 ---------------------------------------------------------------------------------------------

ON_IPV6 = "sed -i 's/listen 8080/listen [::]:8080/' /etc/nginx/servers/http.conf.template && exec /entrypoint.sh"
NEIGHBOURS = """
import fcntl, http.client, json, socket, struct, sys, time
SIOCSIFADDR = 0x8916
for address, times in json.load(sys.stdin):
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as control:
        loopback = struct.pack("Ii", 128, socket.if_nametoindex("lo"))
        fcntl.ioctl(control, SIOCSIFADDR, socket.inet_pton(socket.AF_INET6, address) + loopback)
    # The kernel calls an address tentative, and refuses to bind to it, until a task in its background has seen it.
    for attempt in range(100):
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as usable:
            try:
                usable.bind((address, 0))
                break
            except OSError:
                time.sleep(0.1)
    for _ in range(times):
        connection = http.client.HTTPConnection("::1", 8080, source_address=(address, 0))
        connection.request("POST", "/auth/jwt/create/", "{}", {"Host": "localhost"})
        print(address, connection.getresponse().status)
"""


@pytest.fixture
def nginx_on_ipv6(stack: Stack) -> Iterator[Container]:
    """An nginx with a slow limit that listens on IPv6, as on a host that has it, alone with its loopback interface."""
    name = unique(f"{stack.name()}-own")
    # As root, who may change the file that says where it listens: the networks of the stack have no IPv6.
    docker(
        *("run", "--detach", "--user", "0", "--name", name, "--network", "none"),
        *("--sysctl", "net.ipv6.conf.all.disable_ipv6=0", "--entrypoint", "sh"),
        *("--env", "DJANGO_ALLOWED_HOSTS=localhost", "--env", "NGINX_AUTH_RATE=1r/m"),
        *(stack.container("nginx").inspect()["Image"], "-c", ON_IPV6),
    )
    try:
        container = Container(docker("inspect", "--format", "{{.Id}}", name).stdout.strip())
        eventually(lambda: container.health() == "healthy", within=20, what="nginx is up")
        yield container
    finally:
        docker("rm", "--force", name)


def test_a_network_of_ipv6_counts_as_one_address(stack: Stack, nginx_on_ipv6: Container) -> None:
    first, neighbour, other = "2001:db8:0:1::10", "2001:db8:0:1:a0a::11", "2001:db8:0:2::10"
    attempts = [(first, BURST + 3), (neighbour, 1), (other, BURST + 1)]
    image = stack.container("backend").inspect()["Image"]

    said = run(
        *("docker", "run", "--rm", "--interactive", "--user", "0", "--cap-add", "NET_ADMIN"),
        *("--network", f"container:{nginx_on_ipv6.id}", image, "python", "-c", NEIGHBOURS),
        input=json.dumps(attempts),
    ).stdout

    # There is no backend behind this one.
    passed, limited = int(HTTPStatus.SERVICE_UNAVAILABLE), int(HTTPStatus.TOO_MANY_REQUESTS)
    assert [(address, int(status)) for address, status in map(str.split, said.splitlines())] == [
        *[(first, passed)] * (BURST + 1),
        *[(first, limited)] * 2,
        (neighbour, limited),
        *[(other, passed)] * (BURST + 1),
    ]
