"""Refresh tokens under attack by many hands at once, over both backends."""

from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from threading import Barrier

import httpx
import pytest

from tests.stack.people import Person, connect

HANDS = 16


@pytest.mark.parametrize("attempt", range(4))
def test_a_refresh_token_works_once_whoever_is_quickest(attempt: int, base_url: str, alice: Person) -> None:
    start = Barrier(HANDS)

    def refresh(_hand: int) -> httpx.Response:
        with connect(base_url) as client:
            client.get("/healthz")  # the connection is there before the start
            start.wait(timeout=30)
            return client.post("/auth/jwt/refresh/", json={"refresh": alice.refresh})

    with ThreadPoolExecutor(HANDS) as hands:
        answers = list(hands.map(refresh, range(HANDS)))

    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [HTTPStatus.OK] + [HTTPStatus.UNAUTHORIZED] * (HANDS - 1)
