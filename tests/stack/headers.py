"""The headers of every answer, whoever made it."""

import re

import httpx

EVERY_ANSWER = {
    "X-Request-ID": r"[0-9a-f]{32}",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": ".+",
    "Content-Security-Policy": ".*default-src 'none'.*",
    "Cache-Control": ".+",
    "Server": "nginx",
}
"""Headers that every answer carries once, and what they say."""


def assert_every_header_once(answer: httpx.Response) -> None:
    """Fail unless the answer has each of them, once, and says in it what it should."""
    for name, pattern in EVERY_ANSWER.items():
        values = answer.headers.get_list(name)
        assert len(values) == 1, f"{name}: {values}"
        assert re.fullmatch(pattern, values[0]), f"{name}: {values[0]}"
    assert len(answer.headers.get_list("Content-Type")) <= 1
    assert len(answer.headers.get_list("Date")) == 1
