"""The account and its sessions."""

from typing import Any, ClassVar
from uuid import uuid4

from django.contrib.auth.models import AbstractUser
from django.contrib.auth.models import UserManager as DjangoUserManager
from django.db import models, transaction
from django.db.models.functions import Lower
from django.utils import timezone


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
    sessions: "models.Manager[Session]"

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

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the account; a new password, or an end of being active, ends every session.

        Here and not in a view, so that it holds for the admin site and the command line as well. Django sets
        ``_password`` for a change of password and not for a stronger hash of the same one.
        """
        password_changed = self._password is not None  # type: ignore[attr-defined] # the base class of Django has it
        with transaction.atomic():
            super().save(*args, **kwargs)
            if password_changed or not self.is_active:
                Session.objects.live().filter(user=self).end()

    def close(self) -> None:
        """Close the account: nobody can log in, what identified its owner is gone, its transactions stay."""
        self.is_active = False
        # With a colon, which no name that is registered may have: nobody can hold it already.
        self.username = f"closed:{self.pk}"
        self.email = self.first_name = self.last_name = ""
        self.set_unusable_password()
        self.save()


class SessionQuerySet(models.QuerySet["Session"]):
    """Sessions, above all those that still open something."""

    def live(self) -> "SessionQuerySet":
        """Return the sessions that have neither been ended nor run out."""
        return self.filter(ended_at=None, expires_at__gt=timezone.now())

    def end(self) -> int:
        """End these sessions and return how many: none of their tokens works at the next request."""
        return self.update(ended_at=timezone.now())


class Session(models.Model):
    """What one login opened: every token that comes of it names it, and none outlives it."""

    id = models.UUIDField(primary_key=True, default=uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="sessions")
    created_at = models.DateTimeField(default=timezone.now)
    last_used_at = models.DateTimeField(default=timezone.now)
    # The absolute end: rotation prolongs tokens, never the session.
    expires_at = models.DateTimeField(db_index=True)
    ended_at = models.DateTimeField(null=True)
    client_address = models.GenericIPAddressField(null=True)
    user_agent = models.CharField(max_length=200, blank=True)

    objects = SessionQuerySet.as_manager()

    class Meta:
        ordering = ["-last_used_at", "id"]

    def __str__(self) -> str:
        return f"session {self.pk} of account {self.user_id}"


models.CharField.register_lookup(Lower)
