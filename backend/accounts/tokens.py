"""Refresh tokens that work once and are stored nowhere."""

from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction
from django.utils.translation import gettext_lazy as _
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken
from rest_framework_simplejwt.tokens import BlacklistMixin, RefreshToken
from rest_framework_simplejwt.utils import datetime_from_epoch

from accounts.models import User


class SingleUseRefreshToken(RefreshToken):
    """simplejwt's refresh token, without its race and without its copy in the database."""

    @classmethod
    def for_user(cls, user: AbstractBaseUser) -> "SingleUseRefreshToken":  # type: ignore[override]
        """Return a new token for ``user``, recorded as outstanding."""
        # Past BlacklistMixin.for_user, which stores the token itself.
        token: SingleUseRefreshToken = super(BlacklistMixin, cls).for_user(user)
        token.outstand()
        return token

    def outstand(self) -> OutstandingToken:
        """Record this token by its id. The token itself is a credential: a dump must not hold it."""
        record, _created = OutstandingToken.objects.get_or_create(
            jti=self["jti"],
            defaults={
                "user_id": self["user_id"],
                "created_at": self.current_time,
                "token": "",
                "expires_at": datetime_from_epoch(self["exp"]),
            },
        )
        return record

    def blacklist(self) -> Any:
        """Spend this token. Of any number of processes that try at once, one succeeds.

        simplejwt looks first and writes afterwards; here the unique index decides.
        """
        with transaction.atomic():
            record, created = BlacklistedToken.objects.get_or_create(token=self.outstand())
            if not created:
                raise TokenError(_("Token is blacklisted"))
        return record


def end_sessions(*, user: User) -> None:
    """Spend every refresh token of ``user``: none of their sessions can be continued."""
    live = OutstandingToken.objects.filter(user=user, blacklistedtoken=None)
    BlacklistedToken.objects.bulk_create([BlacklistedToken(token=token) for token in live], ignore_conflicts=True)
