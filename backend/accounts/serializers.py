"""The wire format of accounts and tokens."""

import unicodedata
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth.password_validation import validate_password
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import IntegrityError, transaction
from djoser.serializers import SetPasswordSerializer as DjoserSetPasswordSerializer
from djoser.serializers import UserCreateSerializer, UserDeleteSerializer, UserSerializer
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework_simplejwt.serializers import TokenObtainSerializer

from accounts.attempts import attempt, unlock
from accounts.authentication import lock_asking
from accounts.mail import owner_of, tell_former_address
from accounts.models import OutgoingMail, Session, User
from accounts.sessions import check_token, continue_session, end_session_of, open_session
from accounts.tokens import SESSION_CLAIM
from accounts.validators import MaximumLengthValidator
from config.clients import client_address
from config.fields import SPACES, TEXT_FIELDS, VISIBLE, EmailField, PasswordField, TextField


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

    # Neither digits alone nor spaces alone: something else, or some of both.
    pattern = rf"^[^\u0000]*([^0-9\u0000{SPACES}]|[0-9][^\u0000]*[{SPACES}]|[{SPACES}][^\u0000]*[0-9])[^\u0000]*$"
    default_error_messages = {
        "min_length": "This password is too short. It must contain at least {min_length} characters.",
        "max_length": "Your password can contain at most {max_length} characters.",
    }

    def __init__(self, **options: Any) -> None:
        # As in AUTH_PASSWORD_VALIDATORS.
        super().__init__(min_length=8, max_length=MaximumLengthValidator.max_length, **options)


def check_not_taken(*, by: User | None = None, **field: str) -> None:
    """Refuse a name or an address that another account than ``by`` has, in any case, before the database does."""
    (name,) = field
    rule = next(item for item in User._meta.constraints if item.name == f"user_{name}_unique_in_any_case")
    account = User(pk=by.pk if by else None, **field)
    account._state.adding = by is None  # what is there already is no rival of itself
    rule.validate(User, account)


class CurrentPasswordMixin:
    """Check the password of the account that asks, as a login would: with a bound on failed attempts."""

    def validate_current_password(self, value: str) -> str:
        """Refuse a password that is not the present one."""
        request = self.context["request"]  # type: ignore[attr-defined]
        with attempt(name=request.user.username, address=client_address(request)) as current:
            current.succeeded = request.user.check_password(value)
        if not current.succeeded:
            raise serializers.ValidationError("Invalid password.")
        return value


class AccountSerializer(CurrentPasswordMixin, UserSerializer):  # type: ignore[misc] # no types
    """The account as its owner sees it.

    Another address takes the password: with a stolen token alone, and a password reset, it would take the account. So
    does the question whether somebody has that address.
    """

    serializer_field_mapping = TEXT_FIELDS
    current_password = PasswordField(
        write_only=True, required=False, help_text="Needed to change the e-mail address; checked wherever it is given."
    )

    class Meta(UserSerializer.Meta):  # type: ignore[misc]
        fields = (*UserSerializer.Meta.fields, "current_password")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Leave what is to be changed; refuse to change the address without the password, or to one that is taken."""
        known = attrs.pop("current_password", None) is not None
        changes = {name: value for name, value in attrs.items() if value != getattr(self.instance, name)}
        if changes and not known:
            raise serializers.ValidationError(
                {"current_password": ["Give your current password to change the e-mail address."]}
            )
        return changes

    def update(self, instance: User, validated_data: dict[str, Any]) -> User:
        """Change the account; two changes to one address at once end in one 400, not in a 500."""
        if not validated_data:
            return instance
        try:
            check_not_taken(by=instance, **validated_data)
            with transaction.atomic():
                account = lock_asking(instance)
                former, account.email = account.email, validated_data["email"]
                account.save(update_fields=["email"])
                tell_former_address(account=account, address=former)
        except (DjangoValidationError, IntegrityError):
            raise serializers.ValidationError({"email": ["A user with that email address already exists."]}) from None
        return account


class RegistrationSerializer(UserCreateSerializer):  # type: ignore[misc]
    """A new account: a name, a password and an address, which may be left out where it need not be confirmed."""

    serializer_field_mapping = TEXT_FIELDS
    username = UsernameField(
        max_length=150,
        validators=[UnicodeUsernameValidator()],
        help_text="150 characters or fewer: letters, digits and @ . + - _ only.",
    )
    password = NewPasswordField(write_only=True)

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        """Require the address where the account is of no use without it."""
        fields: dict[str, serializers.Field[Any, Any, Any, Any]] = super().get_fields()
        if settings.ACTIVATION_ENABLED:
            fields["email"] = EmailField(max_length=254)
        return fields

    def validate_username(self, value: str) -> str:
        """Refuse a name that is taken."""
        check_not_taken(username=value)
        return value

    def validate_email(self, value: str) -> str:
        """Refuse an address that is taken."""
        check_not_taken(email=value)
        return value


class SetPasswordSerializer(CurrentPasswordMixin, DjoserSetPasswordSerializer):  # type: ignore[misc]
    """The password that is, and the one to be. Not write-only: djoser's view reads the new one from the output."""

    new_password = NewPasswordField()
    current_password = PasswordField()


class CloseAccountSerializer(CurrentPasswordMixin, UserDeleteSerializer):  # type: ignore[misc]
    """The password, so that a token alone cannot close an account."""

    current_password = PasswordField()


class AddressSerializer(serializers.Serializer[Any]):
    """An address, of an account or of nobody."""

    email = EmailField(max_length=254, write_only=True)


class LinkSerializer(serializers.Serializer[Any]):
    """What the link in a mail carries.

    djoser's own says which of the two is wrong, which tells who has an account, and fails on what is not text.
    """

    uid = TextField(max_length=64, write_only=True)
    token = TextField(max_length=128, write_only=True)

    kind = OutgoingMail.Kind.ACTIVATION

    def owner(self) -> User:
        """Return the account that the link is good for, locked."""
        account = owner_of(uid=self.validated_data["uid"], token=self.validated_data["token"], kind=self.kind)
        if account is None:
            raise serializers.ValidationError({"token": ["This link is not valid, or not any more."]})
        return account


class ActivationSerializer(LinkSerializer):
    """The link of a registration."""

    @transaction.atomic
    def save(self, **kwargs: Any) -> User:
        """Make the account active."""
        account = self.owner()
        account.is_active, account.awaits_activation = True, False
        account.save(update_fields=["is_active", "awaits_activation"])
        return account


class PasswordResetSerializer(LinkSerializer):
    """The link of a forgotten password, and the next one."""

    kind = OutgoingMail.Kind.PASSWORD_RESET
    new_password = NewPasswordField(write_only=True)

    @transaction.atomic
    def save(self, **kwargs: Any) -> User:
        """Set the password; of two uses of one link at once, the second finds it spent."""
        account = self.owner()
        try:
            validate_password(self.validated_data["new_password"], account)
        except DjangoValidationError as error:
            raise serializers.ValidationError({"new_password": error.messages}) from None
        account.set_password(self.validated_data["new_password"])
        account.save(update_fields=["password"])
        # Whoever reads the mail is the owner, whatever was tried before.
        unlock(name=account.username)
        return account


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


@extend_schema_field({"type": "string", "maxLength": 39, "nullable": True, "description": "IPv4 or IPv6."})
class ClientAddressField(serializers.IPAddressField):
    """An address, of which the framework would not say how long it may be."""


class SessionSerializer(serializers.ModelSerializer[Session]):
    """A session as its owner sees it."""

    client_address = ClientAddressField(read_only=True)
    user_agent = serializers.CharField(read_only=True, max_length=200)
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
