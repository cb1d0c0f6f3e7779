"""A Chromium to drive: this host's, Playwright's own, or one in a container."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Error, Playwright

from tests.stack.containers import Stack, docker, run
from tests.stack.images import built

VAR = Path(__file__).parents[2] / "var"
NAMES = ("chromium", "chromium-browser", "google-chrome")
DOWNLOAD_SECONDS = 120
START_SECONDS = 30

QUIET = (
    # A browser that calls home fails, over and over, where there is no way out; and a test must not call anybody.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
    "--disable-gpu",
    # Its own sandbox needs privileges that root and a container without any do not have. It opens one page: ours.
    "--no-sandbox",
)


@contextmanager
def launched(playwright: Playwright, stack: Stack) -> Iterator[Browser]:
    """Start the first Chromium that there is, and stop it afterwards."""
    program = installed()
    browser = on_this_host(playwright, program) if program else downloaded(playwright)
    if browser:
        with browser:
            yield browser
        return
    with contained(stack) as address:
        browser = playwright.chromium.connect_over_cdp(address)
        try:
            yield browser
        finally:
            browser.close()


def installed() -> str | None:
    """Return the Chromium that CHROMIUM names, or that this host has."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


def on_this_host(playwright: Playwright, program: str | None) -> Browser:
    """Start ``program``, or Playwright's own browser."""
    return playwright.chromium.launch(executable_path=program, args=QUIET)


def downloaded(playwright: Playwright) -> Browser | None:
    """Start Playwright's own browser, downloading it on first use; None where that is not possible."""
    install = (sys.executable, "-m", "playwright", "install", "chromium")
    try:
        result = run(*install, check=False, timeout=DOWNLOAD_SECONDS)
        if result.returncode == 0:
            return on_this_host(playwright, None)
        reason = result.stderr.strip().partition("\n")[0]
    except (subprocess.TimeoutExpired, Error) as error:  # too slow, or this host lacks a library
        reason = str(error)
    print(f"Playwright's own Chromium cannot be used, so one in a container is: {reason}", file=sys.stderr)
    return None


@contextmanager
def contained(stack: Stack) -> Iterator[str]:
    """Start Chromium in a container and hand over the address at which it is driven."""
    name = f"{stack.name()}-chromium"
    docker("rm", "--force", name, check=False)  # what a run that was killed has left
    docker(
        *("run", "--detach", "--init", "--name", name),
        # The port of the stack is published on this host's loopback address alone.
        *("--network", "host"),
        *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only"),
        *("--tmpfs", "/tmp:mode=1777,size=512m", "--env", "HOME=/tmp", "--shm-size", "512m"),
        *("--memory", "2g", "--pids-limit", "1024"),
        built("chromium", stack.checkout),
        *("--headless", "--remote-debugging-address=127.0.0.1", "--remote-debugging-port=0"),
        *("--user-data-dir=/tmp/profile", *QUIET, "about:blank"),
    )
    try:
        yield address(name)
    finally:
        docker("rm", "--force", name)


def address(container: str) -> str:
    """Return the address that Chromium says it listens on, once it does."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        said = docker("logs", container).stderr
        if listening := re.search(r"DevTools listening on (ws://\S+)", said):
            return listening[1]
        time.sleep(0.1)
    raise AssertionError(f"Chromium did not start within {START_SECONDS} s:\n{said}")
