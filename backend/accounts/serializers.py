"""The wire format of accounts and tokens."""

import unicodedata
from typing import Any, ClassVar

from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import IntegrityError, transaction
from djoser.serializers import SetPasswordSerializer as DjoserSetPasswordSerializer
from djoser.serializers import UserCreateSerializer, UserDeleteSerializer, UserSerializer
from rest_framework import serializers
from rest_framework_simplejwt.serializers import TokenObtainSerializer

from accounts.models import Session, User
from accounts.sessions import check_token, continue_session, end_session_of, open_session
from accounts.tokens import SESSION_CLAIM
from accounts.validators import MaximumLengthValidator
from config.fields import TEXT_FIELDS, VISIBLE, PasswordField, TextField


class UsernameField(TextField):
    """A name, brought into the form in which it is stored.

    Django brings a name into this form after it was checked: U+FDFA becomes 18 characters, and 150 of them more than
    the column holds.
    """

    pattern: ClassVar[str | None] = None  # that of its validator

    def to_internal_value(self, data: Any) -> str:
        """Return the name in Unicode's form NFKC."""
        return unicodedata.normalize("NFKC", super().to_internal_value(data))


class LoginNameField(UsernameField):
    """A name that may be anybody's: what no account can have is refused like what none has."""

    pattern = VISIBLE


class NewPasswordField(PasswordField):
    """A password to be. AUTH_PASSWORD_VALIDATORS judge it as well: whether it is common, or like the name."""

    pattern = r"^[^\u0000]*[^0-9\u0000][^\u0000]*$"  # not digits alone
    default_error_messages = {
        "min_length": "This password is too short. It must contain at least {min_length} characters.",
        "max_length": "Your password can contain at most {max_length} characters.",
    }

    def __init__(self, **options: Any) -> None:
        # As in AUTH_PASSWORD_VALIDATORS.
        super().__init__(min_length=8, max_length=MaximumLengthValidator.max_length, **options)


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

    serializer_field_mapping = TEXT_FIELDS

    def update(self, instance: User, validated_data: dict[str, Any]) -> User:
        """Change the account; two changes to one address at once end in one 400, not in a 500."""
        try:
            with transaction.atomic():
                return super().update(instance, validated_data)  # type: ignore[no-any-return]
        except IntegrityError:
            raise serializers.ValidationError({"email": ["A user with that email address already exists."]}) from None


class RegistrationSerializer(UniqueInAnyCaseMixin, UserCreateSerializer):  # type: ignore[misc]
    """A new account: a name, a password and, if wanted, an address."""

    serializer_field_mapping = TEXT_FIELDS
    username = UsernameField(
        max_length=150,
        validators=[UnicodeUsernameValidator()],
        help_text="150 characters or fewer: letters, digits and @ . + - _ only.",
    )
    password = NewPasswordField(write_only=True)


class SetPasswordSerializer(DjoserSetPasswordSerializer):  # type: ignore[misc]
    """The password that is, and the one to be. Not write-only: djoser's view reads the new one from the output."""

    new_password = NewPasswordField()
    current_password = PasswordField()


class CloseAccountSerializer(UserDeleteSerializer):  # type: ignore[misc]
    """The password, so that a token alone cannot close an account."""

    current_password = PasswordField()


class LoginSerializer(TokenObtainSerializer):
    """A name and a password for a pair of tokens."""

    user: User

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # simplejwt's own turn numbers into text, and trim the password.
        self.fields["username"] = LoginNameField(write_only=True)
        self.fields["password"] = PasswordField(write_only=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Open a session and return its first pair."""
        super().validate(attrs)
        return open_session(user=self.user, request=self.context["request"])


class RefreshSerializer(serializers.Serializer[Any]):
    """A refresh token for the next pair; it works once."""

    refresh = TextField(write_only=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Spend the token and return the next pair, both or neither."""
        return continue_session(refresh=attrs["refresh"])


class BlacklistSerializer(serializers.Serializer[Any]):
    """A refresh token whose session is to end."""

    refresh = TextField(write_only=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """End the session."""
        end_session_of(refresh=attrs["refresh"])
        return {}


class VerifySerializer(serializers.Serializer[Any]):
    """A token of either kind."""

    token = TextField(write_only=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse a token that would not be accepted."""
        check_token(token=attrs["token"])
        return {}


class SessionSerializer(serializers.ModelSerializer[Session]):
    """A session as its owner sees it."""

    current = serializers.SerializerMethodField(help_text="Whether this request belongs to it.")

    class Meta:
        model = Session
        fields = ["id", "created_at", "last_used_at", "expires_at", "client_address", "user_agent", "current"]
        read_only_fields = fields
        extra_kwargs = {
            "last_used_at": {"help_text": "Exact to five minutes."},
            "expires_at": {"help_text": "The session ends then at the latest, however often it is refreshed."},
        }

    def get_current(self, session: Session) -> bool:
        """Return whether the request's own token is of this session."""
        return bool(self.context["request"].auth[SESSION_CLAIM] == str(session.pk))
