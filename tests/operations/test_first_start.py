"""The database's first start, killed at every stage: afterwards it works, or it says what to do. Never in between."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, Queue
from subprocess import PIPE, STDOUT, Popen
from typing import IO

import pytest

from tests.stack.containers import Container, Stack, docker, eventually
from tests.stack.people import unique

NEXT_STEP = "./scripts/down --volumes --yes && ./scripts/up"

STAGES = [
    "The files belonging to this database system",
    "creating subdirectories",
    "running bootstrap script",
    "performing post-bootstrap initialization",
    "ready to accept connections",  # the temporary server
    "CREATE DATABASE",
    "10-roles.sh",
    "99-finished.sh",
    "init process complete",
]
"""What the log says when a stage begins."""

MAKES_NO_DATABASE = "mkdir -p $PGDATA/base $PGDATA/pg_wal && chmod 700 $PGDATA"
"""What initdb has done a moment before it writes PG_VERSION."""


@pytest.fixture
def fresh(stack: Stack) -> Iterator[Stack]:
    """The same stack under a name of its own, with an empty volume; removed afterwards."""
    fresh = Stack(stack.checkout, stack.base_url, project=unique(f"{stack.name()}-first-start"))
    yield fresh
    fresh.compose("down", "--volumes", "--timeout", "0")


@contextmanager
def log_of(container: Container) -> Iterator["Queue[str]"]:
    """Hand over the lines that the container writes, as it writes them."""
    lines: Queue[str] = Queue()

    def read(stream: IO[str]) -> None:
        for line in stream:
            lines.put(line)

    with Popen(["docker", "logs", "--follow", container.id], stdout=PIPE, stderr=STDOUT, text=True) as follower:
        assert follower.stdout
        reader = threading.Thread(target=read, args=(follower.stdout,))
        reader.start()
        try:
            yield lines
        finally:
            follower.terminate()
            reader.join(timeout=10)


def kill_at(stage: str, stack: Stack) -> Container:
    """Start the database for the first time and kill all of it as soon as ``stage`` begins."""
    stack.compose("create", "--no-build", "db")
    container = stack.container("db")
    docker("start", container.id)
    with log_of(container) as lines:
        try:
            while stage not in lines.get(timeout=30):
                pass
        except Empty:
            raise AssertionError(f"the log never said {stage!r}") from None
        docker("kill", container.id)
    return container


def outcome(stack: Stack) -> str:
    """Start the database again; return "works", or what it says to do."""
    stack.compose("start", "db")
    container = stack.container("db")

    def settled() -> bool:
        state = container.inspect()["State"]
        # A container that refuses is started again and again by Docker.
        return state["Health"]["Status"] == "healthy" or NEXT_STEP in docker("logs", container.id).stderr

    eventually(settled, within=30, what=f"the database works or names the next step: {stack.logs('db')[-2000:]}")
    return "works" if container.health() == "healthy" else NEXT_STEP


def assert_roles_are_there(stack: Stack) -> None:
    roles = stack.sql("SELECT rolname FROM pg_roles WHERE rolname LIKE 'transactions%' ORDER BY 1").stdout.split()
    assert roles == ["transactions_app", "transactions_migrator"]
    assert stack.sql("SELECT 1", role="transactions_app").stdout.strip() == "1"


@pytest.mark.parametrize("stage", STAGES)
def test_a_first_start_that_was_killed_works_afterwards_or_names_the_next_step(stage: str, fresh: Stack) -> None:
    kill_at(stage, fresh)

    if outcome(fresh) == "works":
        assert_roles_are_there(fresh)


def leave_half_a_database(stack: Stack) -> None:
    """Leave what a first start that was killed leaves, at a moment that no log and no race decides about."""
    stack.compose("run", "--rm", "--no-deps", "--no-TTY", "--entrypoint", "sh", "db", "-c", MAKES_NO_DATABASE)
    stack.compose("create", "--no-build", "db")


def test_a_first_start_that_was_killed_before_there_was_a_database_names_the_next_step(fresh: Stack) -> None:
    leave_half_a_database(fresh)

    assert outcome(fresh) == NEXT_STEP


def test_the_step_that_is_named_helps(fresh: Stack) -> None:
    leave_half_a_database(fresh)
    assert outcome(fresh) == NEXT_STEP

    fresh.compose("down", "--volumes", "--timeout", "0")
    fresh.compose("up", "--detach", "--no-build", "--wait", "db")

    assert_roles_are_there(fresh)


def test_an_undisturbed_start_after_a_first_one_keeps_the_data(fresh: Stack) -> None:
    fresh.compose("up", "--detach", "--no-build", "--wait", "db")
    fresh.sql("CREATE TABLE kept AS SELECT 1 AS x")

    docker("kill", fresh.container("db").id)

    assert outcome(fresh) == "works"
    assert fresh.sql("SELECT x FROM kept").stdout.strip() == "1"
