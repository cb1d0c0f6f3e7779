"""What the tests of the running stack share."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx
import pytest

from tests.stack.containers import SERVERS, Nginx, Stack, another_nginx, docker
from tests.stack.people import Person, connect, sign_up


@pytest.fixture
def client(base_url: str) -> Iterator[httpx.Client]:
    """A client without an account."""
    with connect(base_url) as client:
        yield client


@pytest.fixture
def alice(base_url: str) -> Iterator[Person]:
    """The owner."""
    with closing((person := sign_up(base_url, "alice")).client):
        yield person


@pytest.fixture
def bob(base_url: str) -> Iterator[Person]:
    """A stranger to what alice owns."""
    with closing((person := sign_up(base_url, "bob")).client):
        yield person


@pytest.fixture(scope="session")
def stack(checkout: Path, base_url: str) -> Stack:
    """The containers behind the base URL; a test that changes them takes ``disturbed`` instead."""
    return Stack(checkout, base_url)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Remove what a run that was killed has left of the stacks and containers that tests make beside the running one.

    Before any test runs: tests run side by side, and what one of them has made is not left over.
    """
    checkout, base_url = (session.config.getoption(option) for option in ("--checkout", "--base-url"))
    if hasattr(session.config, "workerinput") or not (checkout and base_url):
        return
    name = Stack(checkout, base_url).name()
    prefixes = tuple(
        f"{name}-{purpose}-" for purpose in ("first-start", "broken", "squatter", "own", "managed", "alone")
    )
    project = '{{.Label "com.docker.compose.project"}}'
    listings = {
        "container": ("ps", "--all", "--format", f"{{{{.Names}}}} {project}"),
        "network": ("network", "ls", "--format", f"{{{{.Name}}}} {project}"),
        "volume": ("volume", "ls", "--format", f"{{{{.Name}}}} {project}"),
    }
    for kind, listing in listings.items():
        for line in docker(*listing).stdout.splitlines():
            found, *labels = line.split()
            if any(word.startswith(prefixes) for word in (found, *labels)):
                docker(kind, "rm", *(["--force", "--volumes"] if kind == "container" else []), found)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the file that takes longest: it runs beside the others, instead of after them."""
    items.sort(key=lambda item: item.path.name != "test_schemathesis.py")


@pytest.fixture
def disturbed(stack: Stack) -> Iterator[Stack]:
    """The containers, for a test that stops, pauses or replaces some: whole again for the next one."""
    yield stack
    for service in SERVERS:
        stack.compose("unpause", service, check=False)
    stack.compose("up", "--detach", "--no-build", "--wait", check=False)
    stack.wait_until_whole()


@pytest.fixture
def start_nginx(stack: Stack) -> Iterator[Nginx]:
    """Return a function that starts an nginx with variables of its own."""
    with ExitStack() as started:
        yield lambda **variables: started.enter_context(another_nginx(stack, **variables))
