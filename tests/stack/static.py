"""The files that a page of the documentation names."""

from html.parser import HTMLParser
from http import HTTPStatus
from urllib.parse import urljoin

import httpx

PAGES = {"/api/docs/": 5, "/api/redoc/": 3}
"""The pages of the documentation, and how many static files each loads."""


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href") and value]


def links_of(client: httpx.Client, page: str) -> list[str]:
    """Return every address that ``page`` loads, whole."""
    answer = client.get(page)
    assert answer.status_code == HTTPStatus.OK, answer.text
    links = _Links()
    links.feed(answer.text)
    assert links.found, "the page loads nothing"
    return [urljoin(str(answer.url), link) for link in links.found]


def assets_of(client: httpx.Client, page: str) -> list[str]:
    """Return the paths of the static files that ``page`` loads."""
    paths = [httpx.URL(link).path for link in links_of(client, page)]
    return [path for path in paths if path.startswith("/static/")]
