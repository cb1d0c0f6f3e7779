"""Who is asking: the access token, its session and its account, in one query."""

from datetime import timedelta

from django.utils import timezone
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.exceptions import AuthenticationFailed
from rest_framework_simplejwt.tokens import Token

from accounts.models import Session, User
from accounts.tokens import SESSION_CLAIM

NOTED_EVERY = timedelta(minutes=5)
"""How exactly a session's last use is known; to the minute it would cost every request a write."""


class SessionAuthentication(JWTAuthentication):
    """An access token opens the API as long as its session is live and its account active."""

    def get_user(self, validated_token: Token) -> User:  # type: ignore[override]
        """Return the account; raise ``AuthenticationFailed`` where the session is over or the account is not active."""
        now = timezone.now()
        try:
            session = Session.objects.select_related("user").get(
                pk=validated_token[SESSION_CLAIM],
                user_id=validated_token["user_id"],
                ended_at=None,
                expires_at__gt=now,
                user__is_active=True,
            )
        except Session.DoesNotExist:
            raise AuthenticationFailed("The session of this token is over.", code="session_over") from None
        if now - session.last_used_at > NOTED_EVERY:
            Session.objects.filter(pk=session.pk).update(last_used_at=now)
        return session.user
