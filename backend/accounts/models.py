"""The account."""

from typing import ClassVar

from django.contrib.auth.models import AbstractUser
from django.contrib.auth.models import UserManager as DjangoUserManager
from django.db import models
from django.db.models.functions import Lower


class UserManager(DjangoUserManager["User"]):
    """Find accounts by a name in any case."""

    def get_by_natural_key(self, username: str | None) -> "User":
        """Return the account with this name; Django's login looks accounts up here."""
        return self.get(username__lower=Lower(models.Value(username)))


class User(AbstractUser):
    """An account, with a name and, where one was given, an address that no other account has in any case.

    An account that holds transactions is closed, not deleted (docs/decisions/0004).
    """

    objects: ClassVar[UserManager] = UserManager()

    class Meta(AbstractUser.Meta):
        constraints = [
            models.UniqueConstraint(
                Lower("username"),
                name="user_username_unique_in_any_case",
                violation_error_message="A user with that username already exists.",
            ),
            models.UniqueConstraint(
                Lower("email"),
                name="user_email_unique_in_any_case",
                condition=~models.Q(email=""),
                violation_error_message="A user with that email address already exists.",
            ),
        ]

    def close(self) -> None:
        """Close the account: nobody can log in, what identified its owner is gone, its transactions stay."""
        self.is_active = False
        # With a colon, which no name that is registered may have: nobody can hold it already.
        self.username = f"closed:{self.pk}"
        self.email = self.first_name = self.last_name = ""
        self.set_unusable_password()
        self.save()


models.CharField.register_lookup(Lower)
