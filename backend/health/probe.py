"""The health check of the backend container: ``python -m health.probe``.

Asks this container's own server as nginx would, without a shell, curl or a start of Django.
"""

import http.client
import sys


def main() -> int:
    """Return 0 when ``/readyz`` answers 200 within 4 seconds, 1 otherwise."""
    connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=4)
    try:
        connection.request("GET", "/readyz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer: {error}")
        return 1
    print(f"/readyz answered {status}")
    return 0 if status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
