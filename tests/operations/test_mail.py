"""Mail, configured as an operator would: who sends it, to whom, and what is in the logs.

The mail server is a program of the tests in a container on the network for mail.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest

from tests.stack.containers import Stack, docker, eventually
from tests.stack.people import PASSWORD, Person, sign_up, unique

pytestmark = pytest.mark.timeout(240)

NEXT = "another long passphrase"
PROGRAM = Path(__file__).parents[1] / "backend/accounts/mail_server.py"
HOST = "mail.internal"
ROUTES = {"/auth/users/reset_password/", "/auth/users/reset_password_confirm/"}


@dataclass(frozen=True)
class MailServer:
    """The mail server's container."""

    name: str

    def mails(self, address: str) -> list[str]:
        """Return the text of each mail to ``address``."""
        lines = map(json.loads, docker("logs", self.name).stdout.splitlines())
        return [line["text"] for line in lines if line["to"] == [address]]

    def wait_for(self, address: str, number: int = 1) -> str:
        """Return the newest mail to ``address`` once there are so many."""
        eventually(lambda: len(self.mails(address)) >= number, within=40, what=f"mail {number} to {address}")
        return self.mails(address)[-1]


def reconfigure(stack: Stack) -> None:
    stack.compose("up", "--detach", "--no-build", "--wait", timeout=180)
    # A file that changes is no reason for Compose to make a new container.
    stack.compose("up", "--detach", "--no-build", "--no-deps", "--wait", "--force-recreate", "upkeep")
    stack.wait_until_whole()


@pytest.fixture(scope="module")
def mail_server(stack: Stack) -> Iterator[MailServer]:
    """Mail is configured; afterwards it is not."""
    server = MailServer(unique(f"{stack.name()}-own"))
    image = stack.container("backend").inspect()["Image"]
    network = ("--network", f"{stack.name()}_mail", "--network-alias", HOST)
    docker("run", "--detach", "--init", *network, "--name", server.name, image, "python", "-c", PROGRAM.read_text())
    environment, secret = stack.checkout / ".env", stack.checkout / "secrets/email_url"
    before = environment.read_text()
    try:
        secret.write_text(f"smtp://{HOST}:2525\n")
        environment.write_text(
            f"{before}\nDJANGO_PASSWORD_RESET_URL=https://app.example.com/reset/{{uid}}/{{token}}\n"
            "EMAIL_FROM=Transactions <noreply@example.com>\n"
        )
        reconfigure(stack)
        yield server
    finally:
        environment.write_text(before)
        secret.write_text("")
        docker("rm", "--force", server.name)
        reconfigure(stack)


@pytest.fixture
def carol(base_url: str, mail_server: MailServer) -> Iterator[tuple[Person, str]]:
    """A person with an address."""
    person = sign_up(base_url, "carol")
    address = f"{person.name}@example.com"
    given = {"email": address, "current_password": PASSWORD}
    assert person.client.patch("/auth/users/me/", json=given).status_code == HTTPStatus.OK
    yield person, address
    person.client.close()


def ask(client: httpx.Client, address: str) -> None:
    assert client.post("/auth/users/reset_password/", json={"email": address}).status_code == HTTPStatus.NO_CONTENT


def link(text: str) -> dict[str, str]:
    found = re.search(r"https://app\.example\.com/reset/([^/\s]+)/([^/\s]+)", text)
    assert found, text
    return {"uid": found[1], "token": found[2]}


def test_without_mail_there_is_no_reset(client: httpx.Client, alice: Person) -> None:
    answer = client.post("/auth/users/reset_password/", json={"email": "alice@example.com"})

    assert answer.status_code == HTTPStatus.NOT_FOUND
    assert not ROUTES & client.get("/api/schema/", headers={"Accept": "application/json"}).json()["paths"].keys()


def test_a_forgotten_password_is_replaced_over_a_mail(
    carol: tuple[Person, str], mail_server: MailServer, client: httpx.Client, stack: Stack
) -> None:
    person, address = carol
    assert client.get("/api/schema/", headers={"Accept": "application/json"}).json()["paths"].keys() >= ROUTES
    ask(client, address)
    given = link(mail_server.wait_for(address))

    answer = client.post("/auth/users/reset_password_confirm/", json={**given, "new_password": NEXT})

    assert answer.status_code == HTTPStatus.NO_CONTENT, answer.text
    logins = [
        client.post("/auth/jwt/create/", json={"username": person.name, "password": password}).status_code
        for password in (PASSWORD, NEXT)
    ]
    assert logins == [HTTPStatus.UNAUTHORIZED, HTTPStatus.OK]
    assert person.client.get("/auth/users/me/").status_code == HTTPStatus.UNAUTHORIZED, "an old session goes on"
    written = "".join(stack.logs(service) for service in ("nginx", "backend", "upkeep", "db"))
    for hidden in (PASSWORD, NEXT, given["token"], address):
        assert hidden not in written


def test_the_mail_that_a_request_asked_for_is_found_by_its_id_in_the_log(
    carol: tuple[Person, str], mail_server: MailServer, client: httpx.Client, stack: Stack
) -> None:
    answer = client.post("/auth/users/reset_password/", json={"email": carol[1]})
    mail_server.wait_for(carol[1])

    line = next(line for line in stack.logs("upkeep").splitlines() if answer.headers["X-Request-ID"] in line)

    assert "(password_reset): sent to account" in line


def test_nobody_gets_mail_who_has_no_account(
    carol: tuple[Person, str], mail_server: MailServer, client: httpx.Client
) -> None:
    nobody = f"{unique('nobody')}@example.com"
    ask(client, nobody)
    ask(client, carol[1])
    mail_server.wait_for(carol[1])

    assert mail_server.mails(nobody) == []


def test_a_mail_server_that_was_away_gets_the_mail_later_and_once(
    carol: tuple[Person, str], mail_server: MailServer, client: httpx.Client, stack: Stack
) -> None:
    docker("stop", "--time", "1", mail_server.name)
    ask(client, carol[1])
    eventually(lambda: "failed" in stack.logs("upkeep", "--since", "30s"), within=25, what="the failure is in the log")
    assert stack.container("upkeep").health() == "healthy", "nothing that a new process would mend"
    docker("start", mail_server.name)

    mail_server.wait_for(carol[1])

    assert len(mail_server.mails(carol[1])) == 1


def test_a_second_upkeep_process_sends_nothing_twice(
    carol: tuple[Person, str], mail_server: MailServer, client: httpx.Client, stack: Stack
) -> None:
    stack.compose("up", "--detach", "--no-build", "--no-deps", "--wait", "--scale", "upkeep=3", "upkeep")
    try:
        for number in range(1, 4):
            ask(client, carol[1])
            mail_server.wait_for(carol[1], number)
        # The others have had a look since.
        ask(client, address := f"{unique('nobody')}@example.com")
        eventually(
            lambda: stack.sql("SELECT count(*) FROM accounts_outgoingmail WHERE due_at IS NOT NULL").stdout == "0\n",
            within=20,
            what=f"nothing is left to send, to {address} neither",
        )
        assert len(mail_server.mails(carol[1])) == 3
    finally:
        stack.compose("up", "--detach", "--no-build", "--no-deps", "--wait", "--scale", "upkeep=1", "upkeep")


def test_only_the_upkeep_process_knows_the_mail_server(mail_server: MailServer, stack: Stack) -> None:
    for service in ("backend", "nginx", "db"):
        shown = json.dumps(stack.container(service).inspect())
        assert HOST not in shown
        assert "email_url" not in shown
