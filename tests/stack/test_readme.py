"""The commands of README.md do what they say, when they are pasted one after another."""

import re
import shutil
from pathlib import Path

import pytest

from tests.stack.containers import Stack, run
from tests.stack.people import unique

MARK = "\n--- end of block ---\n"


def blocks(readme: str) -> list[str]:
    """Return the blocks of shell commands under the heading "Try it"."""
    section = re.search(r"^## Try it$(.*?)(?=^## |\Z)", readme, re.MULTILINE | re.DOTALL)
    assert section, "README.md has no heading Try it"
    found = re.findall(r"^```(?:bash|console)\n(.*?)^```$", section[1], re.MULTILINE | re.DOTALL)
    return [re.sub(r"^\$ ", "", block, flags=re.MULTILINE) for block in found]


@pytest.fixture
def flow(checkout: Path, base_url: str) -> list[str]:
    """The blocks, for the stack under test and a name that nobody has."""
    written = blocks((checkout / "README.md").read_text())
    alice = unique("alice")
    assert all(re.search(r"http://127\.0\.0\.1:8080|\$", block) for block in written)
    assert any("alice" in block for block in written)
    return [block.replace("http://127.0.0.1:8080", base_url).replace("alice", alice) for block in written]


@pytest.fixture
def shell(stack: Stack) -> list[str]:
    """A shell with curl that reaches the stack: this host's, or that of the nginx image where the host has no curl."""
    if shutil.which("curl"):
        return ["bash"]
    image = stack.container("nginx").inspect()["Image"]
    return ["docker", "run", "--rm", "--network", "host", "--entrypoint", "bash", image]


def test_the_readme_registers_logs_in_creates_and_lists(flow: list[str], shell: list[str], tmp_path: Path) -> None:
    session = "set -euo pipefail\n" + f"printf '%s' '{MARK}'\n".join(flow)

    result = run(*shell, "-c", session, cwd=tmp_path)
    registered, login, created, listed = (said.strip() for said in result.stdout.split(MARK))

    assert [re.findall(r"(?m)^# (.*)$", block) != [] for block in flow] == [True, False, True, True]
    for block, said in zip(flow, (registered, login, created, listed), strict=True):
        for shown in re.findall(r"(?m)^# (.*)$", block):
            # The numbers of rows, and what is left out.
            pattern = re.sub(r'("(?:id|user)":)1', r"\1[0-9]+", re.escape(shown).replace("…", ".+"))
            assert re.fullmatch(pattern, said), said
    assert login == ""
    assert created in listed


def test_the_readme_says_which_steps_it_shows(checkout: Path) -> None:
    steps = ["/auth/users/", "/auth/jwt/create/", "/api/transactions/ ", "/api/transactions/?search="]

    written = blocks((checkout / "README.md").read_text())

    assert len(written) == len(steps)
    for step, block in zip(steps, written, strict=True):
        assert step in block
