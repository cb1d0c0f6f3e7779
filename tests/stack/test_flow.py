"""What a person does with the API, from the first request on, through nginx."""

import json
from http import HTTPStatus

import httpx
import pytest

from tests.stack.containers import Stack, eventually
from tests.stack.people import PASSWORD, Person, connect, unique

LIES = {
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Port": "1",
    "X-Forwarded-For": "203.0.113.9",
    "X-Forwarded-Ssl": "on",
    "X-Real-IP": "203.0.113.9",
    "Forwarded": "for=203.0.113.9;host=evil.example;proto=https",
    "X-Request-ID": "f" * 32,
}
"""Headers with which a client claims to be a proxy; nginx knows better."""


def record_two_pages(person: Person) -> None:
    for number in range(12):
        person.record(f"row {number}")


def test_a_person_registers_logs_in_records_lists_and_refreshes(client: httpx.Client) -> None:
    credentials = {"username": unique("alice"), "password": PASSWORD}

    registered = client.post("/auth/users/", json=credentials)
    login = client.post("/auth/jwt/create/", json=credentials)
    authorised = {"Authorization": f"Bearer {login.json()['access']}"}
    created = client.post(
        "/api/transactions/", json={"amount": "-3.20", "description": "Coffee", "user": 1}, headers=authorised
    )
    listed = client.get("/api/transactions/", headers=authorised)
    refreshed = client.post("/auth/jwt/refresh/", json={"refresh": login.json()["refresh"]})
    listed_again = client.get("/api/transactions/", headers={"Authorization": f"Bearer {refreshed.json()['access']}"})

    assert registered.status_code == HTTPStatus.CREATED
    assert "password" not in registered.json()
    assert login.status_code == HTTPStatus.OK
    assert created.status_code == HTTPStatus.CREATED
    assert created.json()["amount"] == "-3.20"
    assert created.json()["user"] == registered.json()["id"]
    assert listed.json() == {
        "count": 1,
        "count_is_exact": True,
        "next": None,
        "previous": None,
        "results": [created.json()],
    }
    assert refreshed.status_code == HTTPStatus.OK
    assert listed_again.json() == listed.json()


def test_a_transaction_is_nobody_elses(alice: Person, bob: Person) -> None:
    row = alice.record("mine")

    stolen = bob.client.get(f"/api/transactions/{row['id']}/")

    assert stolen.status_code == HTTPStatus.NOT_FOUND
    assert bob.descriptions() == []
    assert alice.descriptions() == ["mine"]


def test_links_lead_through_all_pages_and_back(base_url: str, alice: Person) -> None:
    record_two_pages(alice)

    first = alice.client.get("/api/transactions/").json()
    second = alice.client.get(first["next"]).json()
    first_again = alice.client.get(second["previous"]).json()

    assert first["next"] == f"{base_url}/api/transactions/?page=2"
    assert second["previous"] == f"{base_url}/api/transactions/"
    assert second["next"] is None
    assert first_again == first
    found = [row["description"] for row in first["results"] + second["results"]]
    assert found == [f"row {number}" for number in reversed(range(12))]


def test_links_name_the_host_and_port_that_the_client_used(base_url: str, alice: Person) -> None:
    host = f"localhost:{httpx.URL(base_url).port}"
    record_two_pages(alice)

    page = alice.client.get("/api/transactions/", headers={"Host": host}).json()

    assert page["next"] == f"http://{host}/api/transactions/?page=2"


@pytest.mark.parametrize("name", LIES)
def test_a_header_of_a_proxy_changes_nothing_when_a_client_sends_it(name: str, alice: Person) -> None:
    record_two_pages(alice)
    honest = alice.client.get("/api/transactions/")

    answer = alice.client.get("/api/transactions/", headers={name: LIES[name]})

    assert answer.json()["next"]
    assert answer.json() == honest.json()
    assert answer.headers["X-Request-ID"] != LIES["X-Request-ID"]


def test_the_access_log_knows_the_client_better_than_the_client(stack: Stack, client: httpx.Client) -> None:
    honest = client.get("/healthz?honest")
    lying = client.get("/healthz?lying", headers=LIES)

    ids = {"honest": honest.headers["X-Request-ID"], "lying": lying.headers["X-Request-ID"]}

    def logged() -> dict[str, str]:
        entries = [json.loads(line) for line in stack.logs("nginx", "--tail", "200").splitlines()]
        return {entry["request_id"]: entry["remote_addr"] for entry in entries}

    eventually(lambda: set(ids.values()) <= logged().keys(), within=10, what="both requests are in the access log")
    assert logged()[ids["lying"]] == logged()[ids["honest"]]
    assert LIES["X-Request-ID"] not in logged()
    assert LIES["X-Forwarded-For"] not in logged().values()


def test_no_browser_of_another_site_may_read_an_answer(base_url: str) -> None:
    with connect(base_url) as client:
        answer = client.get("/api/transactions/", headers={"Origin": "https://evil.example"})

    assert "Access-Control-Allow-Origin" not in answer.headers
