"""How many workers a container starts when nobody says: by its own share of the processors."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest

from config import sizing
from config.env import ConfigurationError, check
from tests.backend.conftest import Python


@pytest.fixture
def sound() -> dict[str, str]:
    """Return the least configuration that is accepted."""
    names = ("DJANGO_SECRET_KEY", "JWT_SIGNING_KEY", "POSTGRES_PASSWORD")
    return {"DJANGO_ALLOWED_HOSTS": "localhost", **{name: secrets.token_urlsafe(48) for name in names}}


@pytest.fixture(autouse=True)
def processors(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the process run on 64 processors, or on as many as it is called with."""

    def may_run_on(number: int) -> None:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(number)))

    may_run_on(64)
    return may_run_on


def second_version(folder: Path, content: str) -> Path:
    (folder / "cpu.max").write_text(content)
    return folder


def first_version(folder: Path, allowed: int, period: int = 100000) -> Path:
    (folder / "cpu").mkdir()
    (folder / "cpu/cpu.cfs_quota_us").write_text(f"{allowed}\n")
    (folder / "cpu/cpu.cfs_period_us").write_text(f"{period}\n")
    return folder


@pytest.mark.parametrize(
    ("content", "processors"),
    [("150000 100000\n", 1.5), ("max 100000\n", None), ("50000 50000\n", 1), ("1600000 100000\n", 16)],
)
def test_quota_of_a_control_group(tmp_path: Path, content: str, processors: float | None) -> None:
    assert sizing.quota(second_version(tmp_path, content)) == processors


@pytest.mark.parametrize(("allowed", "processors"), [(150000, 1.5), (-1, None), (400000, 4)])
def test_quota_of_a_control_group_of_the_first_version(tmp_path: Path, allowed: int, processors: float | None) -> None:
    assert sizing.quota(first_version(tmp_path, allowed)) == processors


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert sizing.quota(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "workers"),
    [("50000 100000", 1), ("200000 100000", 2), ("250000 100000", 3), ("400000 100000", 4), ("6400000 100000", 8)],
)
def test_there_is_a_worker_for_each_processor_of_the_quota(tmp_path: Path, content: str, workers: int) -> None:
    folder = second_version(tmp_path, content)

    assert sizing.workers(threads=4, replicas=2, connections=1000, folder=folder) == workers


@pytest.mark.parametrize(("bound_to", "workers"), [(1, 1), (2, 2), (3, 3), (4, 4), (16, 4)])
def test_there_are_no_more_workers_than_processors_that_the_container_is_bound_to(
    tmp_path: Path, processors: Callable[[int], None], bound_to: int, workers: int
) -> None:
    processors(bound_to)
    folder = second_version(tmp_path, "400000 100000")

    assert sizing.workers(threads=4, replicas=2, connections=1000, folder=folder) == workers


@pytest.mark.parametrize(
    ("number", "replicas", "workers"), [(1, 2, 1), (2, 2, 1), (1, 1, 2), (4, 2, 2), (6, 2, 3), (7, 2, 4), (6, 1, 6)]
)
def test_without_a_quota_the_replicas_share_the_host(
    tmp_path: Path, processors: Callable[[int], None], number: int, replicas: int, workers: int
) -> None:
    processors(number)

    assert sizing.workers(threads=4, replicas=replicas, connections=1000, folder=tmp_path) == workers


@pytest.mark.parametrize(("connections", "workers"), [(90, 5), (79, 4), (47, 2), (16, 1), (8, 1)])
def test_a_second_set_of_containers_has_room_in_the_database(tmp_path: Path, connections: int, workers: int) -> None:
    folder = second_version(tmp_path, "6400000 100000")

    assert sizing.workers(threads=4, replicas=2, connections=connections, folder=folder) == workers


def test_what_is_set_is_what_is_started(sound: dict[str, str]) -> None:
    assert check({**sound, "WEB_CONCURRENCY": "7", "POSTGRES_MAX_CONNECTIONS": "1000"}).workers == 7
    assert check({**sound, "WEB_CONCURRENCY": "auto"}).workers == check(sound).workers >= sizing.least(replicas=2)


@pytest.mark.parametrize("value", ["0", "65", "Auto", "automatic", "2.5", ""])
def test_other_words_are_refused(sound: dict[str, str], value: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        check({**sound, "WEB_CONCURRENCY": value})

    (problem,) = refusal.value.problems
    assert problem.startswith("WEB_CONCURRENCY")
    assert "auto, or 1 to 64" in problem


def test_the_number_can_be_asked_for(python: Python) -> None:
    assert python("-m", "config.sizing", WEB_CONCURRENCY="5").stdout == "5\n"
    assert int(python("-m", "config.sizing", WEB_CONCURRENCY="auto").stdout) >= sizing.least(replicas=2)
