"""Opening, continuing and ending sessions."""

import logging
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import update_last_login
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.token_blacklist.models import OutstandingToken

from accounts.models import Session, SessionQuerySet, User
from accounts.tokens import SESSION_CLAIM, AnySessionToken, SessionRefreshToken
from config.clients import client_address
from config.upkeep import delete_in_batches

logger = logging.getLogger(__name__)

SPENT = "Token is invalid or spent"
"""The one answer to a refresh token that is not good any more, whatever the reason."""


def open_session(*, user: User, request: Request | HttpRequest) -> dict[str, Any]:
    """Open a session of ``user``, who has just been authenticated, for the client that asks; return its first pair.

    Raises ``AuthenticationFailed`` where the password was changed or the account closed meanwhile.
    """
    with transaction.atomic():
        # The lock of the account: a password that changes right now ends this session too, or this login fails.
        unchanged = User.objects.select_for_update().filter(pk=user.pk, password=user.password, is_active=True)
        if not unchanged.exists():
            raise AuthenticationFailed("No active account found with the given credentials", "no_active_account")
        session = Session.objects.create(
            user=user,
            expires_at=timezone.now() + timedelta(days=settings.JWT_SESSION_LIFETIME_DAYS),
            client_address=client_address(request),
            user_agent=request.headers.get("User-Agent", "")[:200].replace("\0", ""),
        )
        update_last_login(User, user)
        pair = SessionRefreshToken.of(session).pair(session)
    logger.info("login: account %s, session %s", user.pk, session.pk)
    return pair


def continue_session(*, refresh: str) -> dict[str, Any]:
    """Exchange a refresh token for the next pair; raise ``TokenError`` where it is not good.

    Whoever exchanges holds the lock of the session, so of any number of uses at once one succeeds. A spent token that
    comes back after the grace was copied by somebody: the session ends, for the thief and for the owner. Within the
    grace it is two tabs of one browser, or a retry, and only refused.
    """
    token = SessionRefreshToken(refresh)
    with transaction.atomic():
        session = _lock(token)
        if session is None:
            raise TokenError(SPENT)
        spent_at = token.spent_at()
        if spent_at is None:
            token.spend()
            session.last_used_at = timezone.now()
            session.save(update_fields=["last_used_at"])
            return SessionRefreshToken.of(session).pair(session)
    # Outside the block, which would undo the end of the session.
    raise _refusal(session, spent_at)


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
        # A session that was ended early is kept for its natural life: its owner may ask what happened, and
        # accounts.attempts looks there for the addresses that an account is used from.
        "sessions": delete_in_batches(Session.objects.filter(expires_at__lt=now)),
        "refresh tokens": delete_in_batches(OutstandingToken.objects.filter(expires_at__lt=now)),
    }


def _refusal(session: Session, spent_at: datetime) -> TokenError:
    """Return the answer to a spent token; where it comes back after the grace, end its session."""
    reused = timezone.now() - spent_at > timedelta(seconds=settings.JWT_REUSE_GRACE_SECONDS)
    if reused and Session.objects.live().filter(pk=session.pk).end():
        logger.warning("refresh token used again: account %s, session %s ended", session.user_id, session.pk)
    return TokenError(SPENT)


def _lock(token: SessionRefreshToken) -> Session | None:
    live = Session.objects.live().select_related("user").select_for_update(of=("self",))
    return live.filter(pk=token[SESSION_CLAIM], user_id=token["user_id"], user__is_active=True).first()
