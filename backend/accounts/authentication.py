"""Who is asking: the access token, its session and its account, in one query, or in that of the view."""

import time
from datetime import timedelta
from hashlib import sha256
from typing import Any, cast

from django.db import connection
from django.utils import timezone
from django.utils.functional import SimpleLazyObject
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.tokens import Token

from accounts.models import Session, User
from accounts.signing import token_backend
from accounts.tokens import SESSION_CLAIM
from config.exceptions import SessionOver
from config.postgresql import prepared_cursor

NOTED_EVERY = timedelta(minutes=5)
"""How exactly a session's last use is known; to the minute it would cost every request a write."""

MOST_KEPT = 4096
"""Tokens that each process remembers as verified: some 4 MB."""

ASKING = """
    WITH asking AS (
        SELECT account.id AS account, session.last_used_at < %(noted_before)s AS to_be_noted
        FROM accounts_session AS session JOIN accounts_user AS account ON account.id = session.user_id
        WHERE session.id = %(session)s AND session.user_id = %(account)s
            AND session.ended_at IS NULL AND session.expires_at > %(now)s AND account.is_active
    )
"""
"""What ``fetch_as`` executes begins so: ``asking`` has a row where the session is live and its account active.

Index Scan using accounts_session_pkey, then accounts_user_pkey: 6 buffers, 0.02 ms; the plan is at the head of
transactions/statements.py. ``Session.objects.live()`` is the same to the ORM, at
three times the cost, in every request (docs/decisions/0048).
"""

COLUMNS = [field.attname for field in User._meta.concrete_fields]

ACCOUNT = f"""{ASKING}
    SELECT asking.to_be_noted, {", ".join(COLUMNS)} FROM asking JOIN accounts_user ON id = asking.account
"""  # noqa: S608 # names of columns
"""The same, and an Index Scan using accounts_user_pkey once more: 9 buffers, 0.04 ms."""


def fetch_as(token: Token, statement: str, **values: Any) -> list[tuple[Any, ...]]:
    """Return the rows of ``statement`` for who has sent ``token``; raise ``SessionOver`` where there is none.

    It begins with ``ASKING``, has ``asking.to_be_noted`` for its first column, and a row wherever ``asking`` has one.
    """
    now = timezone.now()
    values |= {"session": token[SESSION_CLAIM], "account": token["user_id"]}
    with prepared_cursor() as cursor:
        cursor.execute(statement, {**values, "now": now, "noted_before": now - NOTED_EVERY})
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    if not rows:
        raise SessionOver
    if rows[0][0]:
        Session.objects.filter(pk=token[SESSION_CLAIM]).update(last_used_at=now)
    return rows


def account_of(token: Token) -> User:
    """Return the account of who has sent ``token``; raise ``SessionOver`` where its session is over."""
    ((_, *values),) = fetch_as(token, ACCOUNT)
    return User.from_db(connection.alias, COLUMNS, values)


def lock_asking(account: User) -> User:
    """Return ``account``, which asks, as it is now, locked until the transaction ends.

    Raises ``SessionOver`` where it has another password than the one that was read when it began to ask, was
    disabled or closed, or is gone: all of them end its sessions, and what was allowed before is not any more.
    """
    # No stronger than saving it: a refresh that has locked its session must reach the account (User.close).
    unchanged = User.objects.select_for_update(no_key=True).filter(password=account.password, is_active=True)
    locked = unchanged.filter(pk=account.pk).first()
    if locked is None:
        raise SessionOver
    return locked


class AccountOfToken(SimpleLazyObject):  # type: ignore[type-arg] # generic for the type checker alone
    """The account that a genuine token names. To look at anything else of it is to ask whether the session is live."""

    is_authenticated = True

    def __bool__(self) -> bool:
        return True


class SessionAuthentication(JWTAuthentication):
    """An access token opens the API as long as its session is live and its account active.

    ``later`` is for views that look at the session themselves, with ``fetch_as``, before they answer or change
    anything: one statement less is a tenth of what such a request costs. What they do not look at looks at itself:
    ``request.user`` asks for the session as soon as more of it is wanted than that there is one.
    """

    def __init__(self, *, later: bool = False) -> None:
        super().__init__()
        self.later = later

    def get_validated_token(self, raw_token: bytes) -> Token:
        """Return the token; raise ``InvalidToken`` for one that is forged, expired or of another kind.

        A token is sent with every request of a quarter of an hour, and verified at the first of them. Its signature,
        issuer, audience and kind stay what they are as long as its bytes and the keys do; what does not is looked at
        each time: its end here, the session in ``fetch_as``.
        """
        verified, digest = token_backend().verified, sha256(raw_token).digest()
        token = verified.get(digest)
        if token is None or token["exp"] <= time.time():
            token = super().get_validated_token(raw_token)
            token.token = None  # a credential is not kept
            if len(verified) >= MOST_KEPT:
                verified.clear()
            verified[digest] = token
        return token

    def get_user(self, validated_token: Token) -> User:  # type: ignore[override]
        """Return the account; raise ``SessionOver`` where the session is over or the account is not active."""
        if self.later:
            return cast(User, AccountOfToken(lambda: account_of(validated_token)))
        return account_of(validated_token)
