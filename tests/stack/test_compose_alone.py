"""Plain Docker Compose starts the stack, once ./scripts/init has made what it reads."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.containers import Stack, free_port, run
from tests.stack.people import unique

pytestmark = pytest.mark.timeout(300)


def init(alone: Stack) -> None:
    """Run ./scripts/init, which looks whether its project already has a database."""
    run(str(alone.checkout / "scripts/init"), env={**os.environ, "COMPOSE_PROJECT_NAME": alone.project})


@pytest.fixture
def initialised(stack: Stack, tmp_path: Path) -> Iterator[Stack]:
    """A copy of the checkout after ./scripts/init, with the images of the stack under test; removed afterwards."""
    checkout = tmp_path / "checkout"
    shutil.copytree(stack.checkout, checkout, ignore=shutil.ignore_patterns(".env", "secrets", "var"))
    alone = Stack(checkout, f"http://127.0.0.1:{free_port()}", project=unique(f"{stack.name()}-alone"))
    init(alone)
    yield alone
    alone.compose("down", "--volumes", "--timeout", "5")


def test_compose_alone_starts_it_once_init_has_made_its_files(initialised: Stack) -> None:
    port = initialised.base_url.rpartition(":")[2]

    initialised.compose("up", "--detach", "--no-build", "--wait", timeout=200, env={**os.environ, "HTTP_PORT": port})

    assert initialised.is_ready()


def test_a_secret_that_is_not_there_is_named_by_compose_and_made_by_init(initialised: Stack) -> None:
    # As after an upgrade to a release that has one more.
    missing = initialised.checkout / "secrets/email_url"
    missing.unlink()

    refused = initialised.compose("up", "--detach", "--no-build", "--no-deps", "upkeep", check=False)
    init(initialised)

    assert refused.returncode != 0
    assert str(missing) in refused.stderr
    assert missing.exists()
