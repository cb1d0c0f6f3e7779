"""What the tests of the running stack share."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.stack.containers import Stack
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


@pytest.fixture
def disturbed(stack: Stack) -> Iterator[Stack]:
    """The containers, for a test that stops, pauses or replaces some: whole again for the next one."""
    yield stack
    for service in ("db", "backend", "nginx"):
        stack.compose("unpause", service, check=False)
    stack.compose("up", "--detach", "--no-build", "--wait", check=False)
    stack.wait_until_whole()
