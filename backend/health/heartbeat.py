"""The health check of the upkeep container: ``python -m health.heartbeat FILE SECONDS``.

The process touches the file whenever all is well; a file that is missing or old says that it is not.
"""

import sys
import time
from pathlib import Path


def main(file: str, seconds: str) -> int:
    """Return 0 when ``file`` was touched in the last ``seconds`` seconds, 1 otherwise."""
    try:
        age = time.time() - Path(file).stat().st_mtime
    except OSError as error:
        print(f"no heartbeat: {error.strerror}")
        return 1
    print(f"the last heartbeat is {age:.0f} s old")
    return 0 if age <= float(seconds) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
