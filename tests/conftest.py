"""The options of every suite: where the running stack is, for those that test one."""

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options that ./scripts/test gives to the suites `stack` and `browser`."""
    parser.addoption("--base-url", help="the address under which nginx is published, without a final slash")
    parser.addoption("--checkout", type=Path, help="the folder whose docker-compose.yml the stack was started from")


def required(config: pytest.Config, option: str) -> str:
    """Return the value of ``option``; a suite without it tests nothing, so it fails."""
    value = config.getoption(option)
    if value is None:
        pytest.fail(f"{option} is missing: ./scripts/test starts a stack and gives its address", pytrace=False)
    return str(value)


@pytest.fixture(scope="session")
def base_url(request: pytest.FixtureRequest) -> str:
    """The address of the running stack."""
    return required(request.config, "--base-url").rstrip("/")


@pytest.fixture(scope="session")
def checkout(request: pytest.FixtureRequest) -> Path:
    """The folder that the running stack was started from."""
    return Path(required(request.config, "--checkout")).resolve(strict=True)
