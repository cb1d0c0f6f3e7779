"""Sends requests to the application in this process, for tests that need another configuration than their own.

Reads ``{"requests": [{"path": ..., "method": ..., "data": ..., "form": ..., "headers": {...}}], "static_root": ...}``
from stdin and writes ``[[status, headers, body], ...]`` to stdout. One client sends them all and keeps its cookies. The
variables of the environment are the configuration.
"""

from __future__ import annotations

import json
import sys
from typing import Any
from urllib.parse import urlencode


def main() -> None:
    """Answer every request."""
    import django  # noqa: PLC0415

    django.setup()
    from django.conf import settings  # noqa: PLC0415
    from rest_framework.test import APIClient, APIRequestFactory  # noqa: PLC0415

    APIRequestFactory.default_format = "json"

    given = json.load(sys.stdin)
    settings.STATIC_ROOT = given["static_root"]
    answers: list[Any] = []
    client = APIClient(raise_request_exception=False)
    for request in given["requests"]:
        if "form" in request:
            data, options = urlencode(request["form"]), {"content_type": "application/x-www-form-urlencoded"}
        else:
            data, options = request.get("data"), {}
        method = getattr(client, request.get("method", "get"))
        response = method(request["path"], data, headers=request.get("headers", {}), **options)
        body = b"".join(response.streaming_content) if response.streaming else response.content
        answers.append([response.status_code, dict(response.items()), body.decode()])
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
