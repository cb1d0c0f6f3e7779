"""What a password may be."""

from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ValidationError


class VisibleCharacterValidator:
    """Refuse passwords of spaces alone: whoever looks at one sees none."""

    def validate(self, password: str, user: AbstractBaseUser | None = None) -> None:
        """Raise ``ValidationError`` for a password that shows nothing."""
        if not password.strip():
            raise ValidationError(self.get_help_text(), code="password_invisible")

    def get_help_text(self) -> str:
        """Return the rule in words."""
        return "Your password must contain a character other than spaces."


class MaximumLengthValidator:
    """Refuse passwords of more than 128 characters: each attempt would hash all of it (OWASP ASVS 6.2.9)."""

    max_length = 128

    def validate(self, password: str, user: AbstractBaseUser | None = None) -> None:
        """Raise ``ValidationError`` for a password that is too long."""
        if len(password) > self.max_length:
            raise ValidationError(self.get_help_text(), code="password_too_long")

    def get_help_text(self) -> str:
        """Return the rule in words."""
        return f"Your password can contain at most {self.max_length} characters."
