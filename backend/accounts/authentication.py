"""Who is asking: the access token, its session and its account, in one query."""

import time
from datetime import timedelta
from hashlib import sha256

from django.db import connection
from django.utils import timezone
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.exceptions import AuthenticationFailed
from rest_framework_simplejwt.tokens import Token

from accounts.models import Session, User
from accounts.signing import token_backend
from accounts.tokens import SESSION_CLAIM
from config.postgresql import prepared_cursor

NOTED_EVERY = timedelta(minutes=5)
"""How exactly a session's last use is known; to the minute it would cost every request a write."""

MOST_KEPT = 4096
"""Tokens that each process remembers as verified: some 4 MB."""

COLUMNS = [field.attname for field in User._meta.concrete_fields]

LIVE_SESSION = f"""
    SELECT account.{", account.".join(COLUMNS)}, session.last_used_at < %(now)s - %(noted_every)s
    FROM accounts_session AS session JOIN accounts_user AS account ON account.id = session.user_id
    WHERE session.id = %(session)s AND session.user_id = %(account)s
        AND session.ended_at IS NULL AND session.expires_at > %(now)s AND account.is_active
"""  # noqa: S608 # names of columns
"""Returns no row where the session is over or the account is not active.

``Session.objects.live().select_related("user")`` in SQL, prepared: three times as fast, at every request
(docs/decisions/0048). Index Scan using accounts_session_pkey, then accounts_user_pkey.
"""


class SessionAuthentication(JWTAuthentication):
    """An access token opens the API as long as its session is live and its account active."""

    def get_validated_token(self, raw_token: bytes) -> Token:
        """Return the token; raise ``InvalidToken`` for one that is forged, expired or of another kind.

        A token is sent with every request of a quarter of an hour, and verified at the first of them. Its signature,
        issuer, audience and kind stay what they are as long as its bytes and the keys do; what does not is looked at
        each time: its end here, the session in ``get_user``.
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
        """Return the account; raise ``AuthenticationFailed`` where the session is over or the account is not active."""
        session, now = validated_token[SESSION_CLAIM], timezone.now()
        given = {"session": session, "account": validated_token["user_id"], "now": now, "noted_every": NOTED_EVERY}
        with prepared_cursor() as cursor:
            cursor.execute(LIVE_SESSION, given)
            row = cursor.fetchone()
        if row is None:
            raise AuthenticationFailed("The session of this token is over.", code="session_over")
        *values, note = row
        if note:
            Session.objects.filter(pk=session).update(last_used_at=now)
        return User.from_db(connection.alias, COLUMNS, values)
