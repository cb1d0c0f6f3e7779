"""Making the account of an administrator, the first one above all."""

import sys
from argparse import ArgumentParser
from getpass import getpass
from secrets import token_urlsafe
from typing import Any

from django.apps import apps
from django.contrib.auth.password_validation import password_validators_help_texts, validate_password
from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import IntegrityError, transaction

from accounts.models import User

ATTEMPTS = 3


class Command(BaseCommand):
    """Make the account of an administrator."""

    help = (
        "Makes the account of an administrator. The password is asked for, or made with --generate; never an argument."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the name and the options."""
        parser.add_argument("username", nargs="?", help="the name of the account; without one it is asked for")
        parser.add_argument("--email", default="", help="its address")
        parser.add_argument(
            "--generate", action="store_true", help="make a password and print it, once, as the only line on stdout"
        )

    def handle(self, *args: Any, username: str | None, email: str, generate: bool, **options: Any) -> None:
        """Make it, or say that it is there."""
        if username is None:
            username = self.ask_name()
        account = User(
            username=User.normalize_username(username), email=User.objects.normalize_email(email),
            is_staff=True, is_superuser=True,
        )  # fmt: skip
        if self.exists(account.username):
            return
        _check(account)
        password = token_urlsafe(18) if generate else self.ask(account)
        account.set_password(password)
        try:
            with transaction.atomic():
                account.save()
        except IntegrityError:  # somebody was quicker
            if self.exists(account.username):
                return
            raise
        if generate:
            self.stdout.write(password)
        self.stderr.write(f"{account.username} is an administrator now.")
        if not apps.is_installed("django.contrib.admin"):
            self.stderr.write("The admin site is off: set DJANGO_ADMIN_ENABLED=true in .env, then ./scripts/up.")

    def exists(self, username: str) -> bool:
        """Return whether the administrator is there already; raise where the name is somebody else's."""
        try:
            account = User.objects.get_by_natural_key(username)
        except User.DoesNotExist:
            return False
        if not (account.is_superuser and account.is_staff and account.is_active):
            raise CommandError("The name is taken by an account that is no administrator. Choose another name.")
        self.stderr.write(f"{account.username} is an administrator already; nothing was changed.")
        return True

    def ask_name(self) -> str:
        """Return the name that was typed; the question is not on stdout, which is for a password that was made."""
        if not sys.stdin.isatty():
            raise CommandError(
                "No name was given, and there is no terminal to ask for one at. Add it: create_admin NAME."
            )
        self.stderr.write("Name: ", ending="")
        self.stderr.flush()
        return sys.stdin.readline().strip()

    def ask(self, account: User) -> str:
        """Return a password that was typed twice and is accepted."""
        if not sys.stdin.isatty():
            raise CommandError("There is no terminal to ask for the password at. Use --generate.")
        for _ in range(ATTEMPTS):
            try:
                password = getpass("Password: ")
                again = getpass("Password, once more: ")
            except (EOFError, KeyboardInterrupt):
                break
            if password != again:
                self.stderr.write("These were two different ones.")
                continue
            try:
                validate_password(password, account)
            except ValidationError as error:
                self.stderr.write("\n".join(error.messages))
            else:
                return password
        raise CommandError("No password was chosen; nothing was changed. " + " ".join(password_validators_help_texts()))


def _check(account: User) -> None:
    try:
        account.full_clean(exclude=["password"])
    except ValidationError as error:
        said = " ".join(f"{name}: {' '.join(messages)}" for name, messages in error.message_dict.items())
        raise CommandError(f"{said} Nothing was changed.") from None
