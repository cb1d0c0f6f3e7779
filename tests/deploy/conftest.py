"""A stack of its own, which is deployed to as an operator would, and releases that are real images."""

import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import pytest

from tests.stack.containers import Result, Stack, docker, eventually, free_port, run
from tests.stack.load import Load
from tests.stack.people import connect

DEPLOYMENT_SECONDS = 400
IMAGES = ("backend", "nginx")


@dataclass
class Site:
    """A running stack with its checkout, and the releases that were made for it."""

    stack: Stack
    first: str
    """The release that it was started with."""
    made: list[str] = field(default_factory=list)

    def script(self, name: str, *arguments: str, check: bool = True, **variables: str) -> Result:
        """Run one of the checkout's scripts, without a terminal."""
        return run(
            str(self.stack.checkout / "scripts" / name),
            *arguments,
            check=check,
            timeout=DEPLOYMENT_SECONDS,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **variables},
        )

    def begin(self, name: str, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
        """Start one of the checkout's scripts in a session of its own, and leave it running."""
        return subprocess.Popen(
            [self.stack.checkout / "scripts" / name, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **variables},
            start_new_session=True,
        )

    def release(self, backend: str = "", nginx: str = "") -> str:
        """Make a release: the images of the first one, with a few more lines of Dockerfile."""
        tag = f"{self.first}-{len(self.made) + 2}"
        self.made.append(tag)
        static = f"RUN echo {tag} > /usr/share/nginx/static/{tag}.txt"
        lines = {
            "backend": ["USER 0", f"RUN echo {tag} > /app/RELEASE", backend, "USER 10001:10001"],
            "nginx": ["USER 0", static, nginx, "USER 101:101"],
        }
        for image in IMAGES:
            text = "\n".join([f"FROM transactions-{image}:{self.first}", *filter(None, lines[image])])
            run("docker", "build", "--quiet", "--tag", f"transactions-{image}:{tag}", "-", input=text, timeout=120)
        return tag

    def backends(self) -> list[str]:
        """Return the releases of the backends that run."""
        return self.running("backend")

    def running(self, service: str) -> list[str]:
        """Return the releases of the containers of ``service`` that run."""
        shown = self.stack.compose("ps", "--format", "{{.Image}}", service).stdout.split()
        return sorted(image.rpartition(":")[2] for image in shown)

    def static_files(self) -> set[str]:
        """Return which releases' own static files are served, of those that were made."""
        with connect(self.stack.base_url) as client:
            return {tag for tag in self.made if client.get(f"/static/{tag}.txt").status_code == HTTPStatus.OK}

    def variables(self) -> dict[str, str]:
        """Return what .env says."""
        lines = (self.stack.checkout / ".env").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))

    @contextmanager
    def configured(self, **variables: str) -> Iterator[None]:
        """Let .env say so for as long as the block runs."""
        path = self.stack.checkout / ".env"
        with path.open("a") as file:
            file.write("".join(f"{name}={value}\n" for name, value in variables.items()))
        try:
            yield
        finally:
            # Not as it was before: ./scripts/deploy writes there as well.
            lines = path.read_text().splitlines(keepends=True)
            path.write_text("".join(line for line in lines if line.partition("=")[0] not in variables))

    def history(self) -> list[list[str]]:
        """Return var/releases.log, without the times."""
        path = self.stack.checkout / "var/releases.log"
        return [line.split("\t")[1:] for line in path.read_text().splitlines()] if path.exists() else []

    def nginx_id(self) -> str:
        """Return what changes when the nginx container is made anew or restarted."""
        nginx = self.stack.container("nginx")
        return f"{nginx.id} {nginx.inspect()['State']['StartedAt']}"

    def nginx_program(self, file: str = "/proc/$(cat /tmp/nginx.pid)/exe") -> str:
        """Return the hash of the nginx that runs, or of another file in its container."""
        return self.stack.container("nginx").execute("sh", "-c", f"sha256sum <{file}").stdout

    def nginx_process(self) -> str:
        """Return the id of the nginx that runs, in its container."""
        return self.stack.container("nginx").execute("cat", "/tmp/nginx.pid").stdout

    def assert_serves(self, release: str) -> None:
        """Fail unless ``release`` serves, whole, and nothing else is left."""
        assert self.backends() == [release] * 2
        assert self.running("upkeep") == [release]
        assert self.variables()["RELEASE"] == release
        if release != self.first:
            assert release in self.static_files()
        left = self.stack.compose("ps", "--all", "--format", "{{.Service}} {{.State}}", "backend").stdout.split("\n")
        assert left == ["backend running"] * 2 + [""]


@pytest.fixture(scope="session")
def site(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The images of the stack that ./scripts/test has built, as the first release of another stack."""
    built = os.environ.pop("RELEASE")
    name = f"{os.environ.pop('COMPOSE_PROJECT_NAME')}-deploy"
    # Under a name of its own: another suite may build the stack's images again meanwhile.
    first = f"{built}-deploy"
    os.environ.pop("HTTP_PORT")
    folder = tmp_path_factory.mktemp("site") / "checkout"
    shutil.copytree(checkout, folder, ignore=shutil.ignore_patterns(".env", "secrets", "var"))
    port = free_port()
    run(str(folder / "scripts/init"))
    # What the images are built on, where it is not the default.
    images = [line for line in (checkout / ".env").read_text().splitlines() if re.match("[A-Z]+_IMAGE=", line)]
    with (folder / ".env").open("a") as file:
        file.write("\n".join(["", *images, ""]))
        file.write(f"COMPOSE_PROJECT_NAME={name}\nRELEASE={first}\nHTTP_PORT={port}\nNGINX_AUTH_RATE=99999r/s\n")
    site = Site(Stack(folder, f"http://127.0.0.1:{port}"), first)
    remove(site)
    for image in ("db", *IMAGES):
        docker("tag", f"transactions-{image}:{built}", f"transactions-{image}:{first}")
    try:
        site.stack.compose("up", "--detach", "--no-build", "--wait", timeout=240)
        eventually(site.stack.is_ready, within=30, what="the stack is ready")
        yield site
        if os.environ.get("KEEP") == "true":
            return
    finally:
        if os.environ.get("KEEP") != "true":
            remove(site)


def remove(site: Site) -> None:
    """Remove the stack, and every release of it, also those of a run that was killed."""
    project = ("--filter", f"label=com.docker.compose.project={site.stack.name()}")
    for container in docker("ps", "--all", "--quiet", *project).stdout.split():
        docker("rm", "--force", "--volumes", container, check=False)
    site.stack.compose("down", "--volumes", "--timeout", "0", check=False)
    reference = ("--filter", f"reference=transactions-*:{site.first}*")
    for image in docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", *reference).stdout.split():
        docker("image", "rm", "--force", image, check=False)


@pytest.fixture
def seed() -> int:
    """What decides about everything random; given by SEED, or new, and shown where a test fails."""
    seed = int(os.environ.get("SEED", random.randrange(2**32)))  # noqa: S311
    print(f"SEED={seed}")
    return seed


@pytest.fixture
def load(site: Site, seed: int) -> Iterator[Load]:
    """Constant load during the test; afterwards, nothing may have failed, been lost or been written twice."""
    with Load(site.stack, seed=seed) as load:
        yield load
    load.assert_whole()


def kill_at_once(process: "subprocess.Popen[str]", *, whole: bool = False) -> None:
    """End the script as an operator's mistake or the kernel would: without a chance to clear up.

    ``whole``: with everything that it has started, as when its session ends.
    """
    if whole:
        # By session, not by group: the script gives its long steps groups of their own.
        subprocess.run(["pkill", "-KILL", "--session", str(process.pid)], check=False)
    else:
        process.send_signal(signal.SIGKILL)
    process.wait(timeout=10)
    if process.stderr:
        process.stderr.close()
    time.sleep(0.5)
