"""The account, its sessions, failed attempts to get into it, and mail that waits to be sent to it."""

import logging
from typing import Any, ClassVar
from uuid import uuid4

from django.contrib.auth.hashers import check_password
from django.contrib.auth.models import AbstractUser
from django.contrib.auth.models import UserManager as DjangoUserManager
from django.db import models, transaction
from django.db.models.functions import Lower, Now
from django.utils import timezone

logger = logging.getLogger(__name__)


class UserManager(DjangoUserManager["User"]):
    """Find accounts by a name in any case."""

    def get_by_natural_key(self, username: str | None) -> "User":
        """Return the account with this name; Django's login looks accounts up here."""
        return self.get(username__lower=Lower(models.Value(username)))


class User(AbstractUser):
    """An account, with a name and, where one was given, an address that no other account has in any case.

    An account that holds transactions is closed, not deleted (docs/decisions/0004).
    """

    # Set by a registration that has to be confirmed by mail. An account that was disabled has it not, so that no link
    # makes it active again.
    # The default is the database's too: a release that does not know the column goes on registering accounts.
    awaits_activation = models.BooleanField(default=False, db_default=False, editable=False)

    objects: ClassVar[UserManager] = UserManager()
    sessions: "models.Manager[Session]"

    password_was_set = False
    """Whether this object holds a new password, not a stronger hash of the same one, that is still to be saved."""

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

    def set_password(self, raw_password: str | None) -> None:
        """Set the password; None leaves the account without one."""
        super().set_password(raw_password)
        self.password_was_set = True

    def set_unusable_password(self) -> None:
        """Leave the account without a password; the admin site offers it."""
        super().set_unusable_password()
        self.password_was_set = True

    def check_password(self, raw_password: str | None) -> bool:
        """Return whether this is the password; where its hash is weaker than today's, store a stronger one.

        Django's own method saves the stronger hash whatever the row holds by then: a password that was changed in
        between would be the old one again.
        """

        def upgrade(password: str) -> None:
            weaker = self.password
            self.set_password(password)
            self._password, self.password_was_set = None, False  # the same one: nothing that `save` would have to end
            User.objects.filter(pk=self.pk, password=weaker).update(password=self.password)

        return check_password(raw_password, self.password, upgrade)

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Save the account; a new password, or an end of being active, ends every session.

        Here and not in a view, so that it holds for the admin site and the command line as well.
        """
        if self.is_active and self.awaits_activation:
            # Whoever made it active: a link that still comes must not undo a later decision to disable it.
            self.awaits_activation = False
            if kwargs.get("update_fields") is not None:
                kwargs["update_fields"] = {*kwargs["update_fields"], "awaits_activation"}
        with transaction.atomic():
            super().save(*args, **kwargs)
            ended = 0
            if self.password_was_set or not self.is_active:
                ended = Session.objects.live().filter(user=self).end()
        if self.password_was_set:
            logger.info("password changed: account %s, %s sessions ended", self.pk, ended)
            self.password_was_set = False
        elif ended:
            logger.info("account not active: account %s, %s sessions ended", self.pk, ended)

    def close(self) -> None:
        """Close the account: nobody can log in, what identified its owner is gone, its transactions stay."""
        self.is_active = self.awaits_activation = False
        # With a colon, which no name that is registered may have: nobody can hold it already.
        self.username = f"closed:{self.pk}"
        former_address = self.email
        self.email = self.first_name = self.last_name = ""
        self.last_login = None
        self.set_unusable_password()
        with transaction.atomic():
            # A new name locks the account for refreshes as well, which have locked their session by then and look for
            # the account because of a foreign key: each would wait for the other. So first a lock that keeps logins
            # out, but no refresh; then the sessions, so that no refresh is under way when the name changes.
            User.objects.select_for_update(no_key=True).get(pk=self.pk)
            list(Session.objects.live().filter(user=self).select_for_update(no_key=True).values_list("pk"))
            self.save()
            # Where its owner was is of no use to anybody: nobody logs in here any more.
            Session.objects.filter(user=self).update(client_address=None, user_agent="")
            waiting = models.Q(account=self)
            if former_address:
                waiting |= models.Q(address__lower=Lower(models.Value(former_address)))
            OutgoingMail.objects.filter(waiting).update(address="", due_at=None)


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


class FailedAttempts(models.Model):
    """How often somebody tried a password of one account in vain, in the present window of time.

    What identifies the account is a keyed hash of the name that was typed: unknown names are counted like known ones,
    and people type passwords into the field for the name.
    """

    account_key = models.CharField(max_length=64)
    # Empty: from every address that the account has never been used from, together.
    network = models.CharField(max_length=43, blank=True)
    count = models.PositiveIntegerField()
    # How many are being looked at, and until when that is believed; the defaults are the database's too, for a release
    # that does not know the columns.
    in_flight = models.PositiveIntegerField(default=0, db_default=0)
    in_flight_until = models.DateTimeField(default=timezone.now, db_default=Now())
    ends_at = models.DateTimeField(db_index=True)

    class Meta:
        verbose_name_plural = "failed attempts"
        constraints = [
            models.UniqueConstraint(
                fields=["account_key", "network"], name="failed_attempts_unique_by_account_and_network"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.count} failed attempts until {self.ends_at}"


class OutgoingMail(models.Model):
    """A mail that was asked for. Whether anybody gets it is decided when it is sent, not when it is asked for."""

    class Kind(models.TextChoices):
        PASSWORD_RESET = "password_reset"  # noqa: S105 # a kind of mail
        ACTIVATION = "activation"
        ADDRESS_CHANGED = "address_changed"

    kind = models.CharField(max_length=20, choices=Kind.choices)
    # As it was typed; emptied when the mail is done with. The mail goes to the address that the account has; that its
    # address was changed, to the one that it had.
    address = models.EmailField(blank=True)
    created_at = models.DateTimeField(default=timezone.now, db_index=True)
    # None: nothing is to be done about it, because it is being sent, was sent, or was given up.
    due_at = models.DateTimeField(null=True, default=timezone.now)
    attempts = models.PositiveSmallIntegerField(default=0)
    account = models.ForeignKey(User, null=True, on_delete=models.CASCADE)
    sent_at = models.DateTimeField(null=True)
    # Of the request that asked, so that the lines of the log belong together.
    request_id = models.CharField(max_length=32, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["due_at"], condition=models.Q(due_at__isnull=False), name="outgoing_mail_due"),
        ]

    def __str__(self) -> str:
        return f"mail {self.pk} ({self.kind})"


models.CharField.register_lookup(Lower)
