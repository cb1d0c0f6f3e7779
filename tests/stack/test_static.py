"""Static files: hashed, compressed when the image was built, and served by nginx alone."""

import gzip
import hashlib
import re
from http import HTTPStatus
from urllib.parse import urlsplit

import httpx
import pytest

from tests.stack.containers import Stack
from tests.stack.static import PAGES, assets_of, links_of

HASHED = re.compile(r"/static/.+\.[0-9a-f]{12}\.[a-z0-9]+")
WORTH_COMPRESSING = 1_000
"""Bytes; below them a file fits one packet anyway."""

AS_IT_IS = {"Accept-Encoding": "identity"}
COMPRESSED = {"Accept-Encoding": "gzip"}


def raw(client: httpx.Client, path: str, headers: dict[str, str]) -> tuple[httpx.Response, bytes]:
    """Return an answer and its body as it was on the wire."""
    with client.stream("GET", path, headers=headers) as answer:
        return answer, b"".join(answer.iter_raw())


@pytest.mark.parametrize("page", PAGES)
def test_a_page_names_files_of_this_server_alone(page: str, base_url: str, client: httpx.Client) -> None:
    links = links_of(client, page)

    assert {urlsplit(link).netloc for link in links} == {urlsplit(base_url).netloc}
    assert len(assets_of(client, page)) == PAGES[page]


@pytest.mark.parametrize("page", PAGES)
def test_every_file_of_a_page_is_hashed_and_immutable(page: str, client: httpx.Client) -> None:
    for path in assets_of(client, page):
        answer = client.get(path)

        assert answer.status_code == HTTPStatus.OK
        assert HASHED.fullmatch(path), path
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("page", PAGES)
def test_large_text_files_are_sent_compressed_as_the_build_left_them(
    page: str, stack: Stack, client: httpx.Client
) -> None:
    plain = {path: raw(client, path, AS_IT_IS) for path in assets_of(client, page) if path.endswith((".js", ".css"))}
    large = [path for path, (_answer, body) in plain.items() if len(body) > WORTH_COMPRESSING]

    assert large
    for path in large:
        answer, body = raw(client, path, COMPRESSED)
        built = stack.container("nginx").execute("sha256sum", f"/usr/share/nginx{path}.gz").stdout.split()[0]

        assert "Content-Encoding" not in plain[path][0].headers
        assert answer.headers["Content-Encoding"] == "gzip"
        assert answer.headers["Vary"] == "Accept-Encoding"
        assert gzip.decompress(body) == plain[path][1]
        assert hashlib.sha256(body).hexdigest() == built


@pytest.mark.parametrize("name", ["staticfiles.json", "staticfiles.json.gz", "../static/staticfiles.json"])
def test_the_list_of_all_static_files_is_not_served(name: str, stack: Stack, client: httpx.Client) -> None:
    there = stack.container("nginx").execute("ls", "/usr/share/nginx/static").stdout

    answer = client.get(httpx.URL(client.base_url, raw_path=f"/static/{name}".encode()))

    assert "drf_spectacular_sidecar" in there
    assert answer.status_code == HTTPStatus.NOT_FOUND
