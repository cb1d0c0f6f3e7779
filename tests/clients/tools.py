"""The programs that make clients and run them."""

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
CLIENTS = REPOSITORY / "tests/clients"
OPENAPI = REPOSITORY / "docs/openapi.yaml"
POSTMAN = REPOSITORY / "docs/postman"


def run(*command: str | Path, within: Path | None = None, proxies: bool = False, **variables: str) -> str:
    """Run a program to its end and return what it printed; its words are the failure of the test.

    With the ``proxies`` of this host it reaches registries; without them, the stack.
    """
    environment = {name: value for name, value in os.environ.items() if proxies or not name.lower().endswith("_proxy")}
    done = subprocess.run(
        command,
        cwd=within or REPOSITORY,
        env={**environment, "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}", **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{Path(command[0]).name} {command[1]} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout


class Node:
    """Node.js with the packages that tests/clients/package-lock.json names, as scripts/lib.sh installs them."""

    def __init__(self) -> None:
        """Install what is missing."""
        install = 'source scripts/lib.sh; node_environment; printf \'%s\\n\' "$NODE" "$NODE_MODULES"'
        *_, program, modules = run("bash", "-Eeuo", "pipefail", "-c", install, proxies=True).splitlines()
        self.program, self.modules = Path(program), Path(modules)

    def run(self, script: str | Path, *arguments: str | Path, within: Path | None = None) -> str:
        """Run a script; a relative one is a package's."""
        return run(self.program, self.modules / script, *arguments, within=within)
