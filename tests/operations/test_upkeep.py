"""The upkeep container: that it works, that two do not work at once, what it survives, and that its check goes red."""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.stack.containers import Container, Stack, docker, eventually
from tests.stack.people import unique

EXPIRED = "INSERT INTO accounts_failedattempts (account_key, network, count, ends_at) VALUES ('{}', '', 1, now())"
ANOTHER = "Another upkeep process is removing what has expired"
ONCE = ("python", "manage.py", "upkeep")

FIND = """
import os
for pid in filter(str.isdigit, os.listdir("/proc")):
    words = open(f"/proc/{pid}/cmdline").read().split("\\0")
    if words[:3] == ["python", "manage.py", "upkeep"]:
        print(pid)
"""


@pytest.fixture
def upkeep(stack: Stack) -> Container:
    """The container."""
    return stack.container("upkeep")


def age_of_heartbeat(upkeep: Container) -> float:
    program = "import os, time; print(time.time() - os.stat('/tmp/heartbeat').st_mtime)"
    return float(upkeep.execute("python", "-c", program).stdout)


def test_it_runs_and_says_so(stack: Stack, upkeep: Container) -> None:
    assert upkeep.health() == "healthy"
    assert "upkeep every 3600 s, mail not at all" in stack.logs("upkeep")
    assert age_of_heartbeat(upkeep) < 15


def test_each_round_is_in_the_log_also_where_there_was_nothing_to_do(stack: Stack) -> None:
    name = unique(f"{stack.name()}-own")
    rounds = re.compile(r"(?m) INFO .* upkeep removed \d+ expired rows in \d+\.\d s$")
    stack.compose(
        *("run", "--detach", "--no-deps", "--name", name, "upkeep"), *(*ONCE, "--every=1")
    )  # a tick of its own is the shortest

    def log() -> str:
        said = docker("logs", name)
        return said.stdout + said.stderr

    try:
        eventually(lambda: len(rounds.findall(log())) >= 2, within=30, what="a second round is in the log")
    finally:
        docker("rm", "--force", name)


def test_it_works_with_the_role_that_cannot_change_the_schema(stack: Stack, upkeep: Container) -> None:
    roles = "SELECT DISTINCT usename FROM pg_stat_activity WHERE client_addr = '{}'"

    address = upkeep.address(f"{stack.name()}_data")

    assert stack.sql(roles.format(address)).stdout.split() == ["transactions_app"]


def test_what_has_expired_is_removed(stack: Stack, upkeep: Container) -> None:
    key = unique("expired")
    stack.sql(EXPIRED.format(key))

    done = upkeep.execute(*ONCE)

    assert "expired failed attempts" in done.stderr
    assert key not in stack.sql("SELECT account_key FROM accounts_failedattempts").stdout


def test_of_two_at_once_one_works(stack: Stack, upkeep: Container) -> None:
    key = unique("expired")
    stack.sql(EXPIRED.format(key))
    # Whoever comes first waits for the table, shorter than its lock timeout, and so is still at it when the other
    # comes. A row that is locked would be left to the next round.
    hold = "BEGIN; LOCK TABLE accounts_failedattempts IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep({})"
    with ThreadPoolExecutor(3) as pool:
        holder = pool.submit(stack.sql, hold.format(2.5))
        results = list(pool.map(lambda _: upkeep.execute(*ONCE), range(2)))
        holder.result()

    said = [result.stdout + result.stderr for result in results]
    assert sorted(ANOTHER in text for text in said) == [False, True], said
    assert sorted("removed 1 expired failed attempts" in text for text in said) == [False, True], said


@pytest.mark.timeout(180)
def test_it_outlives_a_database_that_is_away(disturbed: Stack, upkeep: Container) -> None:
    started = upkeep.inspect()["State"]["StartedAt"]

    disturbed.compose("stop", "db")
    eventually(lambda: age_of_heartbeat(upkeep) > 12, within=30, what="there is no heartbeat without a database")
    disturbed.compose("start", "db")

    eventually(lambda: age_of_heartbeat(upkeep) < 5, within=30, what="it beats again")
    assert upkeep.inspect()["State"]["StartedAt"] == started
    assert "Traceback" not in disturbed.logs("upkeep")


@pytest.mark.timeout(180)
def test_its_health_check_goes_red_and_green_again(disturbed: Stack, upkeep: Container) -> None:
    (pid,) = upkeep.execute("python", "-c", FIND).stdout.split()
    assert upkeep.health() == "healthy"

    # It hangs, and has hung for some time.
    upkeep.execute("sh", "-c", f"kill -STOP {pid} && touch -d '-10 minutes' /tmp/heartbeat")
    eventually(lambda: upkeep.health() == "unhealthy", within=60, what="it is unhealthy")
    upkeep.execute("sh", "-c", f"kill -CONT {pid}")

    eventually(lambda: upkeep.health() == "healthy", within=30, what="it is healthy again")


@pytest.mark.timeout(120)
def test_it_ends_well_and_at_once_when_it_is_told_to(disturbed: Stack, upkeep: Container) -> None:
    started = time.monotonic()

    docker("stop", upkeep.id)

    assert time.monotonic() - started < 10
    assert upkeep.inspect()["State"]["ExitCode"] == 0
