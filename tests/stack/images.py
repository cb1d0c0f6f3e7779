"""Images of programs that the tests need beside the stack: a browser, another program's opinion, a registry."""

import hashlib
import os
import re
from pathlib import Path

from tests.stack.containers import docker

DOCKERFILES = Path(__file__).parents[1] / "images"
BUILD_SECONDS = 600


def built(name: str, checkout: Path) -> str:
    """Return the image of ``name``, built when its Dockerfile or what it is built on has changed."""
    dockerfile = DOCKERFILES / name / "Dockerfile"
    base = _base_image(checkout)
    foundation = docker("image", "inspect", "--format", "{{.Id}}", base, check=False).stdout.strip()
    recipe = hashlib.sha256(f"{dockerfile.read_text()}{base}{foundation}".encode()).hexdigest()[:12]
    repository = f"transactions-{name}"
    tag = f"{repository}:{recipe}"
    if docker("image", "inspect", tag, check=False).returncode != 0:
        # The builder that is named like the context is the one that sees local images.
        builder = docker("context", "show").stdout.strip()
        docker(
            *("buildx", "build", "--builder", builder, "--load", "--tag", tag),
            *("--build-arg", f"DEBIAN_IMAGE={base}", str(dockerfile.parent)),
            timeout=BUILD_SECONDS,
        )
        for old in docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", repository).stdout.split():
            if old != tag:
                docker("image", "rm", old, check=False)
    return tag


def _base_image(checkout: Path) -> str:
    """Return DEBIAN_IMAGE, from the environment, from .env, or its default."""
    if given := os.environ.get("DEBIAN_IMAGE"):
        return given
    set_there = re.findall(r"^DEBIAN_IMAGE=(\S+)$", (checkout / ".env").read_text(), re.MULTILINE)
    return set_there[-1] if set_there else "debian:trixie-slim"
