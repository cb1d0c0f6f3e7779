"""Refresh tokens under attack by many hands at once, over both backends."""

from http import HTTPStatus

import pytest

from tests.stack.at_once import HANDS, ROUNDS, at_once
from tests.stack.people import Person


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_a_refresh_token_works_once_whoever_is_quickest(round_: int, base_url: str, alice: Person) -> None:
    answers = at_once(base_url, lambda client: client.post("/auth/jwt/refresh/", json={"refresh": alice.refresh}))

    statuses = sorted(answer.status_code for answer in answers)
    assert statuses == [HTTPStatus.OK] + [HTTPStatus.UNAUTHORIZED] * (HANDS - 1)
