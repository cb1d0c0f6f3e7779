"""Opening, continuing and ending sessions."""

import logging
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken
from rest_framework_simplejwt.utils import datetime_from_epoch

from accounts.models import Session, SessionQuerySet, User
from accounts.tokens import SESSION_CLAIM, AnySessionToken, SessionRefreshToken
from config.clients import client_address, header
from config.postgresql import prepared_cursor
from config.upkeep import delete_in_batches

logger = logging.getLogger(__name__)

SPENT = "Token is invalid or spent"
"""The one answer to a refresh token that is not good any more, whatever the reason."""


PLACES_KEPT = timedelta(days=90)
"""How long a session is kept after it has run out, ended early or not.

accounts.attempts looks there for the addresses that an account is used from: whoever logs in once a month is not locked
out at home because somebody guesses the password elsewhere.
"""

OPEN = """
    WITH account AS (
        UPDATE accounts_user SET last_login = %(now)s, awaits_activation = false
        WHERE id = %(account)s AND password = %(password)s AND is_active
        RETURNING id
    ), session AS (
        INSERT INTO accounts_session (id, user_id, created_at, last_used_at, expires_at, client_address, user_agent)
        SELECT %(session)s, id, %(now)s, %(now)s, %(session_ends_at)s, %(client_address)s::inet, %(user_agent)s
        FROM account
    )
    INSERT INTO token_blacklist_outstandingtoken (user_id, jti, token, created_at, expires_at)
    SELECT id, %(token)s, '', %(now)s, %(token_ends_at)s FROM account
    RETURNING id
"""
"""Records a session and its first token, both or neither; returns no row where the account is not what it was.

The update locks the account: a password that changes right now ends this session too, or this login fails. As
``User.save`` does, it notes that an account which is active waits for no activation any more. Of a token its id is
stored, never the token, which is a credential.

It reads accounts_user by its primary key and inserts two rows; of EXPLAIN (ANALYZE, BUFFERS), with 20,000 accounts:

    Insert on token_blacklist_outstandingtoken (actual time=0.055..0.059 rows=1.00 loops=1)
      Buffers: shared hit=21
      CTE account
        ->  Update on accounts_user (actual time=0.026..0.027 rows=1.00 loops=1)
              ->  Index Scan using accounts_user_pkey on accounts_user
                    Buffers: shared hit=3
      CTE session
        ->  Insert on accounts_session (actual time=0.014..0.014 rows=0.00 loops=1)
    Execution Time: 0.099 ms
"""

EXCHANGE = """
    WITH session AS (
        SELECT session.id, session.user_id, session.expires_at
        FROM accounts_session AS session JOIN accounts_user AS account ON account.id = session.user_id
        WHERE session.id = %(session)s AND session.user_id = %(account)s
            AND session.ended_at IS NULL AND session.expires_at > %(now)s AND account.is_active
        FOR NO KEY UPDATE OF session
    ), spent AS (
        INSERT INTO token_blacklist_blacklistedtoken (token_id, blacklisted_at)
        SELECT token.id, %(now)s FROM token_blacklist_outstandingtoken AS token, session WHERE token.jti = %(spent)s
        ON CONFLICT (token_id) DO NOTHING
        RETURNING token_id
    ), successor AS (
        INSERT INTO token_blacklist_outstandingtoken (user_id, jti, token, created_at, expires_at)
        SELECT session.user_id, %(next)s, '', %(now)s, date_trunc('second', least(%(expires_at)s, session.expires_at))
        FROM session, spent
    )
    UPDATE accounts_session SET last_used_at = %(now)s FROM session, spent WHERE accounts_session.id = session.id
    RETURNING accounts_session.expires_at
"""
"""Spends a token and records the next one, both or neither; returns no row where the token is not good.

The lock of the session is the one that whoever ends it takes too. Those who have waited for it see through the unique
index that the token is spent, whatever their statement saw when it began.

It reads three rows, each by an index; of EXPLAIN (ANALYZE, BUFFERS), with 20,000 sessions and as many tokens:

    Update on accounts_session (actual time=0.081..0.085 rows=1.00 loops=1)
      Buffers: shared hit=38
      CTE session
        ->  LockRows (actual time=0.019..0.021 rows=1.00 loops=1)
              ->  Index Scan using accounts_session_pkey on accounts_session session_1
              ->  Index Scan using accounts_user_pkey on accounts_user account
      CTE spent
        ->  Insert on token_blacklist_blacklistedtoken (actual time=0.035..0.037 rows=1.00 loops=1)
              ->  Index Scan using token_blacklist_outstandingtoken_jti_hex_d9bdf6f7_like
                    on token_blacklist_outstandingtoken token
      CTE successor
        ->  Insert on token_blacklist_outstandingtoken (actual time=0.025..0.025 rows=0.00 loops=1)
      ->  Index Scan using accounts_session_pkey on accounts_session
    Execution Time: 0.147 ms
"""


def open_session(*, user: User, request: Request | HttpRequest) -> dict[str, Any]:
    """Open a session of ``user``, who has just been authenticated, for the client that asks; return its first pair.

    Raises ``AuthenticationFailed`` where the password was changed or the account closed meanwhile.
    """
    token = SessionRefreshToken()
    now = token.current_time
    session = Session(user=user, expires_at=now + timedelta(days=settings.JWT_SESSION_LIFETIME_DAYS))
    token.belong_to(session)
    given = {
        "account": user.pk,
        "password": user.password,
        "session": session.pk,
        "session_ends_at": session.expires_at,
        "client_address": client_address(request),
        "user_agent": (header(request, "User-Agent") or "")[:200].replace("\0", ""),
        "token": token["jti"],
        "token_ends_at": datetime_from_epoch(token["exp"]),
        "now": now,
    }
    with prepared_cursor() as cursor:
        cursor.execute(OPEN, given)
        if cursor.fetchone() is None:
            raise AuthenticationFailed("No active account found with the given credentials", "no_active_account")
    logger.info("login: account %s, session %s", user.pk, session.pk)
    return token.pair(session)


def continue_session(*, refresh: str) -> dict[str, Any]:
    """Exchange a refresh token for the next pair; raise ``TokenError`` where it is not good.

    Of any number of uses at once one succeeds. A spent token that comes back after the grace was copied by somebody:
    the session ends, for the thief and for the owner. Within the grace it is two tabs of one browser, or a retry, and
    only refused.
    """
    token, successor = SessionRefreshToken(refresh), SessionRefreshToken()
    given = {
        "session": token[SESSION_CLAIM],
        "account": token["user_id"],
        "spent": token["jti"],
        "next": successor["jti"],
        "now": successor.current_time,
        "expires_at": datetime_from_epoch(successor["exp"]),
    }
    with prepared_cursor() as cursor:
        cursor.execute(EXCHANGE, given)
        exchanged = cursor.fetchone()
    if exchanged is not None:
        session = Session(pk=token[SESSION_CLAIM], user_id=int(token["user_id"]), expires_at=exchanged[0])
        successor.belong_to(session)
        return successor.pair(session)
    live = _live_session_of(token).first()
    if live is None:
        raise TokenError(SPENT)
    spent_at = token.spent_at()
    if spent_at is None:
        # Its record has run out by the clock of the host that removed it.
        raise TokenError("Token is invalid or expired")
    raise _refusal(live, spent_at)


def end_session_of(*, refresh: str) -> None:
    """End the session that a refresh token belongs to; raise ``TokenError`` where the token is not good.

    A spent token that comes back after the grace ends it too, as in ``continue_session``.
    """
    token = SessionRefreshToken(refresh)
    with transaction.atomic():
        session = _lock(token)
        if session is None:
            raise TokenError(SPENT)
        spent_at = token.spent_at()
        if spent_at is None:
            Session.objects.filter(pk=session.pk).end()
    if spent_at is not None:
        raise _refusal(session, spent_at)
    logger.info("logout: account %s, session %s", session.user_id, session.pk)


def end_sessions(*, sessions: SessionQuerySet, account: int) -> None:
    """End ``sessions``, all of one account, which asked for it."""
    logger.info("logout: account %s, %s sessions", account, sessions.end())


def check_token(*, token: str) -> None:
    """Raise ``TokenError`` unless ``token``, of either kind, would be accepted now.

    A question changes nothing: a spent token that is asked about ends no session. Nobody gets anything for it, and
    those who ask, the owner's own programs and other services, ask about tokens that they do not mean to use.
    """
    checked = AnySessionToken(token)
    session = Session.objects.live().filter(pk=checked[SESSION_CLAIM], user__is_active=True).first()
    if session is None:
        raise TokenError(SPENT)
    if checked.get("token_type") == SessionRefreshToken.token_type and SessionRefreshToken(token).spent_at():
        raise TokenError(SPENT)


def remove_expired() -> dict[str, int]:
    """Remove what can open nothing any more, and return how many rows of each kind."""
    now = timezone.now()
    return {
        "sessions": delete_in_batches(Session.objects.filter(expires_at__lt=now - PLACES_KEPT)),
        "refresh tokens": delete_in_batches(OutstandingToken.objects.filter(expires_at__lt=now)),
    }


def _refusal(session: Session, spent_at: datetime) -> TokenError:
    """Return the answer to a spent token; where it comes back after the grace, end its session."""
    reused = timezone.now() - spent_at > timedelta(seconds=settings.JWT_REUSE_GRACE_SECONDS)
    if reused and Session.objects.live().filter(pk=session.pk).end():
        logger.warning("refresh token used again: account %s, session %s ended", session.user_id, session.pk)
    return TokenError(SPENT)


def _live_session_of(token: SessionRefreshToken) -> SessionQuerySet:
    return Session.objects.live().filter(pk=token[SESSION_CLAIM], user_id=token["user_id"], user__is_active=True)


def _lock(token: SessionRefreshToken) -> Session | None:
    return _live_session_of(token).select_related("user").select_for_update(of=("self",)).first()
