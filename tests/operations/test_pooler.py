"""A connection pooler in front of the database: one that keeps sessions serves, another one is refused by name."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.stack.containers import Container, Result, Stack, docker, eventually
from tests.stack.images import built
from tests.stack.people import unique

pytestmark = pytest.mark.timeout(400)

CONFIGURATION_ERROR = 78
PORT = 6432
ROLES = {"migrate": "migrator", "upkeep": "app"}

Pooler = Callable[[str], str]
"""Starts a pooler of that mode; returns its name on the network of the database."""


@pytest.fixture
def pooler(stack: Stack, tmp_path: Path) -> Iterator[Pooler]:
    def start(mode: str, started: ExitStack) -> str:
        folder = tmp_path / mode
        folder.mkdir()
        passwords = {
            role: (stack.checkout / f"secrets/postgres_{role}_password").read_text() for role in ROLES.values()
        }
        lines = [f'"transactions_{role}" "{password.strip()}"' for role, password in passwords.items()]
        (folder / "users").write_text("\n".join(lines) + "\n")
        (folder / "configuration").write_text(
            "[databases]\n"
            "transactions = host=db port=5432 dbname=transactions\n"
            "[pgbouncer]\n"
            f"listen_addr = *\nlisten_port = {PORT}\nunix_socket_dir =\npool_mode = {mode}\n"
            "auth_type = scram-sha-256\nauth_file = /pooler/users\nignore_startup_parameters = options\n"
        )
        name = unique(f"{stack.name()}-own")
        docker(
            *("run", "--detach", "--name", name, "--network", f"{stack.name()}_data"),
            *("--volume", f"{folder}:/pooler:ro", built("pgbouncer", stack.checkout), "/pooler/configuration"),
        )
        started.callback(docker, "rm", "--force", name)
        listening = ("sh", "-c", f"cat /proc/net/tcp /proc/net/tcp6 | grep -q :{PORT:04X}")
        eventually(
            lambda: Container(name).execute(*listening, check=False).returncode == 0,
            within=20,
            what="the pooler listens",
        )
        return name

    with ExitStack() as started:
        tmp_path.chmod(0o755)
        yield lambda mode: start(mode, started)


def ask(stack: Stack, service: str, name: str) -> Result:
    """Run the command of a service once, with the database behind the pooler of that name."""
    role = ROLES[service]
    password = (stack.checkout / f"secrets/postgres_{role}_password").read_text().strip()
    url = f"postgresql://transactions_{role}:{password}@{name}:{PORT}/transactions?sslmode=disable"
    variables = ("--env", "DATABASE_URL_FILE=/tmp/url", "--env", "DB_REPLICAS=0")
    script = f"umask 077; cat >/tmp/url; exec python manage.py {service}"
    command = ("run", "--rm", "--no-deps", "--no-TTY", *variables, service, "sh", "-c", script)
    return stack.compose(*command, check=False, input=url)


def locks(stack: Stack) -> str:
    return stack.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").stdout.strip()


@pytest.mark.parametrize("service", ROLES)
def test_a_pooler_that_keeps_sessions_serves(stack: Stack, pooler: Pooler, service: str) -> None:
    done = ask(stack, service, pooler("session"))

    assert done.returncode == 0, done.stderr
    assert locks(stack) == "0"


@pytest.mark.parametrize("service", ROLES)
def test_a_pooler_that_hands_sessions_on_is_refused_before_a_lock_is_lost(
    stack: Stack, pooler: Pooler, service: str
) -> None:
    name = pooler("transaction")

    for _ in range(2):
        refused = ask(stack, service, name)

        assert refused.returncode == CONFIGURATION_ERROR, refused.stderr
        assert "  - DATABASE_URL leads to a pooler that does not keep sessions." in refused.stderr
        assert "Traceback" not in refused.stderr
    assert locks(stack) == "0"
