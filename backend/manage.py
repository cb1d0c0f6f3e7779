#!/usr/bin/env python
"""Django's command line."""

import os
import sys

from django.core.management import execute_from_command_line
from django.db import OperationalError

from config.postgresql.base import RefusedPasswordError


def main() -> None:
    """Run a command; a password that the database refuses ends it with one line instead of a traceback."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    try:
        execute_from_command_line(sys.argv)
    except OperationalError as error:
        if not isinstance(error.__cause__, RefusedPasswordError):
            raise
        sys.exit(f"The database is unavailable: {error}.")


if __name__ == "__main__":
    main()
