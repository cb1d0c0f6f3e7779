"""What is under version control: no secret, no address of a registry, and no dependency that changes by itself."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from config.env import Environment
from tests.deployment.conftest import ROOT

LOCKS = ["requirements.txt", "requirements-embedded.txt", "requirements-dev.txt"]
OF_BENCHMARKS = "../tests/benchmarks/requirements.txt"
# Put together here, so that this file does not hold what it looks for.
REGISTRIES = [
    r"pypi\." + "org", r"python" + r"hosted\.org", r"npm" + r"js\.(org|com)", r"yarn" + r"pkg\.com",
    r"(deb|security|snapshot|ftp\.[a-z.]*)\." + r"debian\.org", r"(archive|ports|security)\." + r"ubuntu\.com",
    r"registry-1\." + r"docker\.io", r"(index|registry|auth)\." + r"docker\.io", r"download\." + r"docker\.com",
    r"mirror\." + r"gcr\.io", r"hub\." + r"docker\.com", r"\b(gh|g)" + r"cr\.io", r"\bqu" + r"ay\.io",
    r"apt\." + r"postgresql\.org", r"packages\." + r"nginx\.org", r"artifact" + "ory",
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


def hosts_of_packages() -> set[str]:
    """Return from where this host takes its packages; nothing of that is anybody else's business."""
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


def test_no_file_names_a_host_from_which_this_host_takes_packages(tracked: list[Path]) -> None:
    hosts = hosts_of_packages()

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


# README.md ------------------------------------------------------------------------------------------------------------

README = (ROOT / "README.md").read_text(encoding="utf-8")
VARIABLES = {variable.name: variable for variable in Environment.variables()}


def code(text: str) -> list[str]:
    """Return what is set as code."""
    return re.findall(r"`([^`\n]+)`", text)


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the table under a heading, without its head."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    table = [re.split(r"\s*\|\s*", line.strip("| ")) for line in section.splitlines() if line.startswith("|")]
    assert len(table) > 2, heading
    return table[2:]


def test_readme_is_read_on_two_screens() -> None:
    assert len(README.splitlines()) <= 100


def test_readme_says_what_is_needed_and_that_up_stays() -> None:
    said = README.partition("\n## Run it\n")[2].partition("\n## ")[0]

    library = (ROOT / "scripts/lib.sh").read_text()
    (python,) = re.findall(r"sys\.version_info < \((\d+), (\d+)\)", library)
    (compose,) = re.findall(r'version_at_least (\S+) "\$\{version', library)
    assert f"Python {'.'.join(python)} or newer" in said
    assert f"Compose {compose} or newer" in said
    assert "until Ctrl-C; `--detach` returns" in said


def test_every_variable_of_the_readme_is_one_with_that_default() -> None:
    for names, defaults, _ in rows("Configure it"):
        named, given = code(names), re.split(r", (?=`|none)", defaults)
        # A word for all of them, or one for each; no default at all is said once.
        given = ["none"] * (len(named) - len(given)) + given if given[0] == "none" else given
        for name, default in zip(named, given, strict=True):
            variable = VARIABLES[name]
            if default == "none":
                assert variable.default is None, name
            elif default.endswith("…`"):
                written = variable.default or variable.example
                assert written.startswith(default.strip("`…")), name
            else:
                assert f"`{variable.default}`" == default, name


def test_every_name_of_a_variable_in_the_readme_is_one() -> None:
    given = {word.partition("=")[0] for word in code(README) if re.match(r"[A-Z][A-Z0-9]*_[A-Z0-9_]+(=|$)", word)}

    assert given >= {"BIND_ADDRESS", "DB_REPLICAS"}
    assert given <= set(VARIABLES)


def test_every_path_and_suite_of_the_readme_is_there(tracked: list[Path]) -> None:
    named = {word for words in code(README) for word in words.split() if re.fullmatch(r"[\w./-]*[\w]/[\w./-]*", word)}
    named |= set(re.findall(r"\./scripts/[\w-]+", README))
    # Made by ./scripts/init; below /api/transactions/; a rate.
    other = {"secrets/", "summary/", "export/", "30r/m"}
    for path in {path for path in named if not path.startswith("/")} - other:
        below = [ROOT, ROOT / "docs", ROOT / "backend"]
        assert any((folder / path).exists() for folder in below), path

    folders = {folder.strip("`"): there for folder, there in rows("Where to look next")}
    assert len(folders) == 6
    scripts = [name for words in code(folders["scripts/"]) for name in words.split() if name != "--help"]
    of_scripts = {"lib.sh", "embedded-postgres"}  # what the others call
    assert {*scripts} | of_scripts == {path.name for path in (ROOT / "scripts").iterdir() if path.is_file()}
    suites = [name for words in code(folders["tests/"]) for name in words.split() if not name.startswith("./")]
    there = [path.relative_to(ROOT / "tests").parts for path in tracked if path.is_relative_to(ROOT / "tests")]
    assert set(suites) == {folder for folder, *inside in there if inside}
    for name in code(folders["docs/"]):
        assert (ROOT / "docs" / name).exists(), name


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
