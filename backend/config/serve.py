"""Gunicorn, once the configuration has been checked: ``python -m config.serve [gunicorn's own options]``.

Gunicorn reads WEB_CONCURRENCY by itself, while it is imported, and takes nothing but a number: without this check
before it, any other value would end in a traceback that shows it.
"""

import os
import sys

from config.env import load

GUNICORNS_OWN = ("GUNICORN_CMD_ARGS", "FORWARDED_ALLOW_IPS", "PORT")
"""What Gunicorn reads besides gunicorn.conf.py: options that no registry declares and nothing checks."""


def main() -> None:
    """Become Gunicorn, or end with what is wrong with the configuration."""
    env = load()
    # A number is left to be read again, by gunicorn.conf.py.
    for name in GUNICORNS_OWN if env.WEB_CONCURRENCY else (*GUNICORNS_OWN, "WEB_CONCURRENCY"):
        os.environ.pop(name, None)
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *sys.argv[1:]])  # noqa: S606 # no shell is wanted


if __name__ == "__main__":
    main()
