"""The two kinds of token. Each names its session (``sid``), its account, its key, its issuer and its audience."""

from datetime import datetime
from typing import Any
from uuid import UUID

from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken, Token, UntypedToken
from rest_framework_simplejwt.utils import datetime_to_epoch

from accounts.models import Session
from accounts.signing import KeyRingBackend, token_backend

SESSION_CLAIM = "sid"


class SessionToken(Token):
    """A token of a session, signed by the key ring."""

    def __init__(self, token: str | None = None, verify: bool = True) -> None:
        # simplejwt's annotation asks for a Token; its code wants the encoded one.
        super().__init__(token, verify)  # type: ignore[arg-type]

    @property
    def token_backend(self) -> KeyRingBackend:
        """Return the backend that signs and verifies."""
        return token_backend()

    def verify(self) -> None:
        """Raise ``TokenError`` for a token that names no session or account: no part of this API has made it."""
        super().verify()
        try:
            UUID(self[SESSION_CLAIM])
            int(self["user_id"])
        except (KeyError, ValueError, AttributeError, TypeError):
            raise TokenError("Token has no session") from None


class SessionAccessToken(SessionToken, AccessToken):
    """Opens the API for some minutes."""


class AnySessionToken(SessionToken, UntypedToken):
    """A token of either kind, for asking whether it is still good."""

    def verify_token_type(self) -> None:
        """Raise ``TokenError`` for a token of a third kind, or of none: nothing would accept it."""
        if self.payload.get("token_type") not in (SessionAccessToken.token_type, SessionRefreshToken.token_type):
            raise TokenError("Token has wrong type")


class SessionRefreshToken(SessionToken, RefreshToken):  # type: ignore[misc] # so are simplejwt's own
    """Is exchanged, once, for the next pair.

    simplejwt's own class looks for the token in the blacklist, then adds it, and lets everybody through who looked
    in between; and it stores each token in clear. Here ``accounts.sessions`` decides under the lock of the session,
    and what is stored is the token's id.
    """

    access_token_class = SessionAccessToken  # type: ignore[assignment] # annotated by its first value

    def belong_to(self, session: Session) -> None:
        """Name ``session`` and its account in the token, and let it expire no later than the session."""
        self[SESSION_CLAIM], self["user_id"] = str(session.pk), str(session.user_id)
        self["exp"] = min(self["exp"], datetime_to_epoch(session.expires_at))

    def check_blacklist(self) -> None:
        """Leave it to ``accounts.sessions``, which looks under the lock of the session."""

    def spent_at(self) -> datetime | None:
        """Return when this token was exchanged, or None."""
        record = BlacklistedToken.objects.filter(token__jti=self["jti"]).first()
        return record.blacklisted_at if record else None

    def pair(self, session: Session) -> dict[str, Any]:
        """Return this token and an access token, as a client gets them; both end with ``session`` at the latest."""
        access = self.access_token
        access["exp"] = min(access["exp"], datetime_to_epoch(session.expires_at))
        return {"refresh": str(self), "access": str(access)}
