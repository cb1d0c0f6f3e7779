"""Static files and the pages that use them: hashed, compressed, and from this host alone."""

import gzip
import json
import re
from html.parser import HTMLParser
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.files.base import ContentFile
from django.test import override_settings
from rest_framework.test import APIClient

from config.storage import StaticStorage

HASHED = re.compile(r"\.[0-9a-f]{12}(\.|$)")
PAGES = ["/api/docs/", "/api/redoc/"]


class References(HTMLParser):
    """Everything that a page loads, and its inline scripts and styles."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.urls: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Remember what the tag loads."""
        values = dict(attrs)
        self.urls += [url for name in ("src", "href", "spec-url", "action", "data") if (url := values.get(name))]
        if tag == "style" or (tag == "script" and "src" not in values):
            self.inline.append(tag)
        self.inline += [name for name in values if name.startswith("on") or name == "style"]


def references(page: bytes) -> References:
    parser = References()
    parser.feed(page.decode())
    return parser


@pytest.fixture
def page(anonymous: APIClient, static_root: Path, request: pytest.FixtureRequest) -> bytes:
    """Return the page at the path that the test is parametrized with."""
    response = anonymous.get(request.param)
    assert response.status_code == HTTPStatus.OK
    assert response["Content-Type"].startswith("text/html")
    return bytes(response.content)


@pytest.fixture(scope="module")
def manifest(static_root: Path) -> dict[str, str]:
    """Return the hashed name of every file."""
    return dict(json.loads((static_root / "staticfiles.json").read_text())["paths"])


# Files ----------------------------------------------------------------------------------------------------------------


def test_every_file_has_a_hashed_name(static_root: Path, manifest: dict[str, str]) -> None:
    assert len(manifest) > 20
    for hashed in manifest.values():
        assert HASHED.search(hashed), hashed
        assert (static_root / hashed).is_file()


def test_text_files_have_a_compressed_copy_that_is_the_same(static_root: Path, manifest: dict[str, str]) -> None:
    compressible = [name for name in manifest.values() if name.endswith((".js", ".css"))]
    assert len(compressible) > 5
    for name in compressible:
        plain, copy = static_root / name, static_root / f"{name}.gz"
        if copy.exists():
            assert gzip.decompress(copy.read_bytes()) == plain.read_bytes()
            assert copy.stat().st_size < plain.stat().st_size
        else:
            assert plain.stat().st_size < 1000, f"{name} is large and has no compressed copy"


@pytest.mark.parametrize(
    "name",
    [
        "drf_spectacular_sidecar/swagger-ui-dist/swagger-ui-bundle.js",
        "drf_spectacular_sidecar/redoc/bundles/redoc.standalone.js",
    ],
)
def test_large_scripts_are_compressed(static_root: Path, manifest: dict[str, str], name: str) -> None:
    assert (static_root / f"{manifest[name]}.gz").is_file()


def test_no_file_loads_anything_from_a_content_delivery_network(static_root: Path) -> None:
    for path in static_root.rglob("*"):
        if path.suffix in {".js", ".css", ".html"}:
            content = path.read_bytes()
            assert b"cdn.redoc.ly" not in content, path
            assert not re.search(rb"https?://(cdn|unpkg|fonts)\.", content), path
            assert not re.search(rb"@import\s+(url\()?['\"]?(https?:)?//", content), path
            assert not re.search(rb"url\(['\"]?(https?:)?//", content), path


def test_new_redoc_that_loads_another_logo_fails_the_build(tmp_path: Path) -> None:
    with override_settings(STATIC_ROOT=tmp_path), pytest.raises(ImproperlyConfigured, match="address of its logo"):
        StaticStorage().save("redoc.standalone.js", ContentFile(b"a bundle without the address"))


# Pages ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, indirect=True)
def test_page_refers_to_this_host_only(page: bytes) -> None:
    urls = references(page).urls

    assert len(urls) > 3
    for url in urls:
        assert urlsplit(url)[:2] == ("", ""), url
        assert not url.startswith("//"), url
    assert b"cdn." not in page
    assert not re.search(rb"https?://", page)


@pytest.mark.parametrize("page", PAGES, indirect=True)
def test_page_refers_to_hashed_files_that_are_there(page: bytes, static_root: Path) -> None:
    static = [url for url in references(page).urls if url.startswith(settings.STATIC_URL)]

    assert static
    for url in static:
        assert HASHED.search(url), url
        assert (static_root / url.removeprefix(settings.STATIC_URL)).is_file()


@pytest.mark.parametrize("page", PAGES, indirect=True)
def test_page_has_no_inline_script_or_style(page: bytes) -> None:
    assert references(page).inline == []


def test_swagger_page_loads_its_own_script(anonymous: APIClient, static_root: Path) -> None:
    (script,) = (url for url in references(anonymous.get("/api/docs/").content).urls if "script" in url)

    response = anonymous.get(f"/api/docs/{script}" if script.startswith("?") else script)

    assert response.status_code == HTTPStatus.OK
    assert response["Content-Type"].startswith("application/javascript")
    assert b'"/api/schema/"' in response.content
    assert not re.search(rb"https?://", response.content)


@pytest.fixture
def policy(anonymous: APIClient, static_root: Path) -> dict[str, dict[str, str]]:
    """Return the Content-Security-Policy of each page, by directive."""
    return {
        path: dict(part.strip().split(" ", 1) for part in anonymous.get(path)["Content-Security-Policy"].split(";"))
        for path in PAGES
    }


def test_policy_of_pages_allows_this_host_only(policy: dict[str, dict[str, str]]) -> None:
    for directives in policy.values():
        assert directives["default-src"] == "'none'"
        assert directives["script-src"] == "'self'"
        assert directives["connect-src"] == "'self'"
        assert directives["frame-ancestors"] == "'none'"
        assert not re.search(r"https?:|\*|unsafe-eval", str(directives))


def test_policy_is_wider_for_redoc_only(policy: dict[str, dict[str, str]]) -> None:
    assert policy["/api/docs/"]["style-src"] == "'self'"
    assert "'unsafe-inline'" in policy["/api/redoc/"]["style-src"]
    assert policy["/api/redoc/"]["worker-src"] == "blob:"


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("accept", ["image/png", "application/xml"])
def test_page_in_another_format_is_refused_in_json(
    anonymous: APIClient, static_root: Path, path: str, accept: str
) -> None:
    response = anonymous.get(path, headers={"Accept": accept})

    assert response.status_code == HTTPStatus.NOT_ACCEPTABLE
    assert response["Content-Type"] == "application/json"


@pytest.mark.parametrize("path", [*PAGES, "/api/schema/"])
def test_page_refuses_other_methods_in_json(anonymous: APIClient, static_root: Path, path: str) -> None:
    response = anonymous.post(path, {})

    assert response.status_code == HTTPStatus.METHOD_NOT_ALLOWED
    assert response["Content-Type"] == "application/json"
