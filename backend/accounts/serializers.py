"""The wire format of accounts and tokens."""

from typing import Any

from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import IntegrityError, transaction
from djoser.serializers import UserCreateSerializer, UserSerializer
from rest_framework import serializers
from rest_framework.exceptions import AuthenticationFailed
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.serializers import (
    TokenObtainPairSerializer,
    TokenRefreshSerializer,
    TokenVerifySerializer,
)

from accounts.models import User
from accounts.tokens import SingleUseRefreshToken


class UniqueInAnyCaseMixin:
    """Check the account's constraints before the database does, so that the answer names the field."""

    instance: User | None

    def validate_username(self, value: str) -> str:
        """Refuse a name that is taken, in any case."""
        return self._check(value, field="username", constraint="user_username_unique_in_any_case")

    def validate_email(self, value: str) -> str:
        """Refuse an address that is taken, in any case."""
        return self._check(value, field="email", constraint="user_email_unique_in_any_case")

    def _check(self, value: str, *, field: str, constraint: str) -> str:
        rule = next(item for item in User._meta.constraints if item.name == constraint)
        account = User(pk=self.instance.pk if self.instance else None, **{field: value})
        account._state.adding = self.instance is None  # what is there already is no rival of itself
        try:
            rule.validate(User, account)
        except DjangoValidationError as error:
            raise serializers.ValidationError(error.messages) from None
        return value


class AccountSerializer(UniqueInAnyCaseMixin, UserSerializer):  # type: ignore[misc] # djoser ships no types
    """The account as its owner sees it."""

    def update(self, instance: User, validated_data: dict[str, Any]) -> User:
        """Change the account; two changes to one address at once end in one 400, not in a 500."""
        try:
            with transaction.atomic():
                return super().update(instance, validated_data)  # type: ignore[no-any-return]
        except IntegrityError:
            raise serializers.ValidationError({"email": ["A user with that email address already exists."]}) from None


class RegistrationSerializer(UniqueInAnyCaseMixin, UserCreateSerializer):  # type: ignore[misc]
    """A new account: a name, a password and, if wanted, an address."""


class LoginSerializer(TokenObtainPairSerializer):
    """A name and a password for a pair of tokens."""

    token_class = SingleUseRefreshToken


class RefreshSerializer(TokenRefreshSerializer):
    """A refresh token for the next pair; it works once."""

    token_class = SingleUseRefreshToken

    def validate(self, attrs: dict[str, Any]) -> dict[str, str]:
        """Spend the token and return the next pair, both or neither."""
        try:
            with transaction.atomic():
                return super().validate(attrs)
        except User.DoesNotExist:
            raise AuthenticationFailed(self.error_messages["no_active_account"], "no_active_account") from None


class VerifySerializer(TokenVerifySerializer):
    """A token of either kind, to be checked."""

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return nothing for a good token; a spent one is as unauthorized as an expired one, 400 to simplejwt."""
        try:
            return super().validate(attrs)
        except serializers.ValidationError:
            raise TokenError("Token is blacklisted") from None
