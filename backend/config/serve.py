"""Gunicorn, once the configuration has been checked: ``python -m config.serve [gunicorn's own options]``.

Gunicorn reads WEB_CONCURRENCY by itself, while it is imported: without this check before it, a bad value would end in
a traceback that shows it.
"""

import os
import sys

from config.env import load


def main() -> None:
    """Become Gunicorn, or end with what is wrong with the configuration."""
    load()
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *sys.argv[1:]])  # noqa: S606 # no shell is wanted


if __name__ == "__main__":
    main()
