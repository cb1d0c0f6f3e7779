"""What is under version control: no secret, no address of a registry, and no dependency that changes by itself."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.deployment.conftest import ROOT

LOCKS = ["requirements.txt", "requirements-embedded.txt", "requirements-dev.txt"]
OF_BENCHMARKS = "../tests/benchmarks/requirements.txt"
# Put together here, so that this file does not hold what it looks for.
REGISTRIES = [
    r"pypi\." + "org", r"python" + r"hosted\.org", r"npm" + r"js\.(org|com)", r"yarn" + r"pkg\.com",
    r"(deb|security|snapshot|ftp\.[a-z.]*)\." + r"debian\.org", r"(archive|ports|security)\." + r"ubuntu\.com",
    r"registry-1\." + r"docker\.io", r"(index|registry|auth)\." + r"docker\.io", r"download\." + r"docker\.com",
    r"mirror\." + r"gcr\.io", r"apt\." + r"postgresql\.org", r"packages\." + r"nginx\.org", r"artifact" + "ory",
    r"index-url[= ]\S*://",
]  # fmt: skip


def texts(paths: list[Path]) -> dict[str, str]:
    found = {}
    for path in paths:
        try:
            found[path.relative_to(ROOT).as_posix()] = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
    return found


def hosts_of_this_machine() -> set[str]:
    """Return from where this machine takes its packages; nothing of that is anybody else's business."""
    pip = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False)
    found = re.findall(r"https?://[^\s'\"]+", pip.stdout)
    if shutil.which("apt-get"):
        apt = ["apt-get", "indextargets", "--no-release-info", "--format", "$(REPO_URI)"]
        found += subprocess.run(apt, capture_output=True, text=True, check=False).stdout.split()
    return {host for url in found if (host := urlsplit(url).hostname) and "." in host}


@pytest.mark.parametrize("pattern", REGISTRIES)
def test_no_file_names_a_registry_or_mirror(tracked: list[Path], pattern: str) -> None:
    holders = [name for name, text in texts(tracked).items() if re.search(pattern, text, re.IGNORECASE)]

    assert holders == []


def test_no_file_names_a_host_from_which_this_machine_takes_packages(tracked: list[Path]) -> None:
    hosts = hosts_of_this_machine()

    holders = [(name, host) for name, text in texts(tracked).items() for host in hosts if host in text]

    assert holders == []


def test_no_secret_certificate_or_dump_is_there(tracked: list[Path]) -> None:
    for path in tracked:
        name = path.relative_to(ROOT).as_posix()
        assert not re.search(r"(^|/)(\.env|secrets/|id_[a-z0-9]+$)|\.(pem|key|crt|p12|dump|sqlite3?|pyc|log)$", name), (
            name
        )
    for name, text in texts(tracked).items():
        assert not re.search(r"-----BEGIN [A-Z ]*PRIVATE KEY-----", text), name
        assert not re.search(r"\beyJ[A-Za-z0-9_-]{20,}\.eyJ[A-Za-z0-9_-]{20,}\.[A-Za-z0-9_-]{20,}", text), name


def test_what_a_checkout_grows_is_ignored() -> None:
    grown = [".env", "secrets/x", "var/x", "backend/static/x", "docker-compose.override.yml", "backend/__pycache__/x"]

    ignored = subprocess.run(
        ["git", "check-ignore", *grown], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()

    assert ignored == grown


# Locked dependencies --------------------------------------------------------------------------------------------------


def requirements(name: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the hashes of each package and version that a lock file names."""
    text = (ROOT / "backend" / name).read_text()
    joined = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^\s*#.*\n", "", text))
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for line in filter(None, joined.splitlines()):
        match = re.match(r"([a-z0-9][a-z0-9._-]*)==(\S+)", line)
        assert match, f"{name}: not pinned: {line[:80]}"
        found[match[1], match[2]] = tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
    return found


@pytest.mark.parametrize("name", [*LOCKS, OF_BENCHMARKS])
def test_every_requirement_is_pinned_with_hashes(name: str) -> None:
    found = requirements(name)

    assert len(found) > 10
    for package, hashes in found.items():
        assert hashes, package


@pytest.mark.parametrize("name", [*LOCKS, OF_BENCHMARKS])
def test_lock_file_holds_no_address_or_option(name: str) -> None:
    text = (ROOT / "backend" / name).read_text()

    assert "://" not in text
    assert " @ " not in text
    assert not re.search(r"(?m)^-", text)


def test_lock_files_agree() -> None:
    runtime, embedded, dev = (requirements(name) for name in LOCKS)

    assert runtime.items() <= embedded.items() <= dev.items()
    # What is compared runs on the same versions.
    shared = {"django", "gunicorn", "psycopg", "pyjwt", "argon2-cffi"}
    assert {key for key in requirements(OF_BENCHMARKS) if key[0] in shared} == {
        key for key in runtime if key[0] in shared
    }


def test_every_declared_dependency_is_locked() -> None:
    text = (ROOT / "backend/pyproject.toml").read_text()
    runtime = re.search(r"(?ms)^dependencies = \[(.*?)^\]", text)
    assert runtime
    declared = re.findall(r'(?m)^\s*"([a-z0-9-]+)', runtime[1])

    locked = {package for package, _ in requirements("requirements.txt")}

    assert len(declared) > 5
    assert set(declared) <= locked


def test_runtime_has_no_tool_of_development() -> None:
    locked = {package for package, _ in requirements("requirements.txt")}

    assert not locked & {
        "pytest",
        "ruff",
        "mypy",
        "pip",
        "setuptools",
        "django-debug-toolbar",
        "ipython",
        "uv",
        "coverage",
    }
