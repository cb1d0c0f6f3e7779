"""Letting somebody try again before the window of failed attempts is over."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.attempts import unlock
from accounts.models import User


class Command(BaseCommand):
    """Forget the failed attempts on one account."""

    help = "Forgets the failed attempts on an account, so that its owner can log in from anywhere at once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the name."""
        parser.add_argument("username", help="the name of the account, in any case")

    def handle(self, *args: Any, username: str, **options: Any) -> None:
        """Forget them."""
        try:
            account = User.objects.get_by_natural_key(username)
        except User.DoesNotExist:
            raise CommandError("There is no account of that name. Look for it in the admin site.") from None
        forgotten = unlock(name=account.username)
        self.stdout.write(f"{forgotten} failed attempts on this account are forgotten.")
