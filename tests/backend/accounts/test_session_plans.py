"""How PostgreSQL executes what opens and what continues a session: by indexes, however many there are."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone

from accounts.models import User
from accounts.sessions import EXCHANGE, OPEN
from tests.backend.transactions.plans import plan_of

pytestmark = pytest.mark.django_db

MANY = """
INSERT INTO accounts_user
    (username, password, email, first_name, last_name, is_superuser, is_staff, is_active, date_joined)
SELECT 'n' || n, '', '', '', '', false, false, true, now() FROM generate_series(1, 3000) AS n;
INSERT INTO accounts_session (id, user_id, created_at, last_used_at, expires_at, user_agent)
SELECT gen_random_uuid(), id, now(), now(), now() + interval '1 day', '' FROM accounts_user, generate_series(1, 5);
INSERT INTO token_blacklist_outstandingtoken (user_id, jti, token, created_at, expires_at)
SELECT id, md5(id::text), '', now(), now() + interval '1 day' FROM accounts_user;
INSERT INTO token_blacklist_blacklistedtoken (token_id, blacklisted_at)
SELECT id, now() FROM token_blacklist_outstandingtoken WHERE id % 2 = 0;
ANALYZE accounts_user, accounts_session, token_blacklist_outstandingtoken, token_blacklist_blacklistedtoken;
"""


@pytest.fixture
def given(alice: User) -> dict[str, Any]:
    """Return what the statements are given, among 3,000 accounts with five sessions and a refresh token each."""
    with connection.cursor() as cursor:
        cursor.execute(MANY)
        cursor.execute("SELECT id FROM accounts_session WHERE user_id = %s LIMIT 1", [alice.pk])
        [session] = cursor.fetchone()
    now = timezone.now()
    of_open = {"password": alice.password, "session_ends_at": now, "token": uuid4().hex, "token_ends_at": now}
    of_exchange = {"spent": uuid4().hex, "next": uuid4().hex, "expires_at": now + timedelta(days=1)}
    known = {"now": now, "account": alice.pk, "session": session, "client_address": None, "user_agent": ""}
    return {**known, **of_open, **of_exchange}


@pytest.mark.parametrize(
    ("statement", "indexes"),
    [
        (OPEN, ["accounts_user_pkey on accounts_user"]),
        (
            EXCHANGE,
            [
                "accounts_session_pkey on accounts_session session",
                "accounts_user_pkey on accounts_user account",
                "accounts_session_pkey on accounts_session",
                "jti",
            ],
        ),
    ],
    ids=["open", "exchange"],
)
def test_a_session_is_opened_and_continued_by_indexes(
    statement: str, indexes: list[str], given: dict[str, Any]
) -> None:
    plan = plan_of(statement, **given)

    assert "Seq Scan" not in plan
    for index in indexes:
        assert any(index in line and "Index" in line and "Scan using" in line for line in plan.splitlines()), plan
