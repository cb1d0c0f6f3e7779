"""A page in a real browser, and everything that went on behind it."""

import os
import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request, sync_playwright

from tests.browser.chromium import VAR, launched
from tests.stack.containers import Stack
from tests.stack.people import Person, sign_up

SCREENSHOTS = VAR / "log" / "browser"

FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Note that a test has failed, for the fixture that takes its screenshot."""
    report: pytest.TestReport = yield  # type: ignore[assignment] # what the hook's other implementations return
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report  # type: ignore[return-value]


@dataclass
class Visit:
    """A page, what it asked for and what it complained about."""

    page: Page
    base_url: str
    requested: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen from before the first request."""
        self.page.on("request", self._note_request)
        self.page.on("requestfailed", self._note_failure)
        self.page.on("pageerror", self._note_error)
        self.page.on("console", self._note_message)

    def _note_request(self, request: Request) -> None:
        self.requested.append(request.url)

    def _note_failure(self, request: Request) -> None:
        self.complaints.append(f"{request.url}: {request.failure}")

    def _note_error(self, error: Error) -> None:
        self.complaints.append(str(error))

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def assert_quiet(self) -> None:
        """Every request went to this server, and neither the console nor the page had anything to complain about."""
        loaded = [urlsplit(address) for address in self.requested]
        hosts = {address.netloc for address in loaded if address.scheme not in ("data", "blob")}
        assert hosts == {urlsplit(self.base_url).netloc}
        assert self.complaints == []


@pytest.fixture(scope="session")
def stack(checkout: Path, base_url: str) -> Stack:
    """The containers behind the base URL."""
    return Stack(checkout, base_url)


@pytest.fixture(scope="session")
def browser(stack: Stack) -> Iterator[Browser]:
    """A Chromium for all tests."""
    # Within the checkout: nothing of this host is changed.
    os.environ.setdefault("PLAYWRIGHT_BROWSERS_PATH", str(VAR / "playwright"))
    with sync_playwright() as playwright, launched(playwright, stack) as browser:
        yield browser


@pytest.fixture
def visit(browser: Browser, base_url: str, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """A new window without cookies or cache; its picture is kept when the test fails."""
    context = browser.new_context(base_url=base_url, viewport={"width": 1280, "height": 1400})
    context.set_default_timeout(20_000)
    visit = Visit(context.new_page(), base_url)
    yield visit
    if request.node.stash.get(FAILED, False):
        visit.page.screenshot(
            path=SCREENSHOTS / f"{re.sub(r'[^a-z0-9_]+', '-', request.node.name)}.png", full_page=True
        )
    context.close()


@pytest.fixture
def alice(base_url: str) -> Iterator[Person]:
    """The owner."""
    with closing((person := sign_up(base_url, "alice")).client):
        yield person
