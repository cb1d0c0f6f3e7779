"""The upkeep process: what it removes, what it survives, and when it says that all is well."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, models
from django.utils import timezone
from rest_framework_simplejwt.token_blacklist.models import BlacklistedToken, OutstandingToken

from accounts.models import FailedAttempts, OutgoingMail, Session, User
from config.management.commands import upkeep
from config.upkeep import delete_in_batches, stopping
from health import heartbeat
from tests.backend.accounts.visitors import register
from tests.backend.conftest import BACKEND, Python
from tests.backend.tokens import new_session
from transactions.models import IdempotencyRecord

pytestmark = pytest.mark.django_db


def expire_one_of_each(account: User) -> None:
    past = timezone.now() - timedelta(days=400)
    new_session(account)
    Session.objects.update(expires_at=past)
    BlacklistedToken.objects.create(token=OutstandingToken.objects.get())
    OutstandingToken.objects.update(expires_at=past)
    FailedAttempts.objects.create(account_key="x" * 64, network="", count=1, ends_at=past)
    OutgoingMail.objects.create(kind=OutgoingMail.Kind.PASSWORD_RESET, address="")
    OutgoingMail.objects.update(created_at=past, due_at=None)
    register("waiting", is_active=False, awaits_activation=True)
    User.objects.filter(username="waiting").update(date_joined=past)
    IdempotencyRecord.objects.create(user=account, key="k", request_hash="x", status=201, headers={}, body="")
    IdempotencyRecord.objects.update(created_at=past)


def counts() -> dict[str, int]:
    return {model.__name__: model._default_manager.count() for model in (Session, FailedAttempts)}


# What it does -------------------------------------------------------------------------------------


KEPT = {
    "accounts.User": "an account is closed, not deleted; one that nobody confirmed is removed",
    "transactions.Transaction": "the ledger",
}
"""Models whose rows have a time and stay all the same."""

KEPT_WITH_ADMIN = {"admin.LogEntry": "who changed what"}


def kinds_that_age() -> set[str]:
    """Return every model whose rows have a time: whoever has one can grow old."""
    return {
        model._meta.label
        for model in apps.get_models()
        if any(isinstance(column, models.DateField) for column in model._meta.get_fields())
    }


def test_every_kind_of_row_that_ages_is_removed_or_is_kept_for_a_reason(alice: User) -> None:
    expire_one_of_each(alice)
    removed = [apps.get_model(label) for label in sorted(kinds_that_age() - KEPT.keys())]
    missing = [model._meta.label for model in removed if not model._default_manager.exists()]
    assert not missing, "let expire_one_of_each make one, or say in KEPT why it stays"

    call_command("upkeep")

    assert [model._meta.label for model in removed if model._default_manager.exists()] == []


def test_sessions_of_the_admin_site_are_removed_where_it_is_on(manage: Python, empty_database: str) -> None:
    variables = {"DJANGO_ADMIN_ENABLED": "true", "POSTGRES_DB": empty_database}
    assert manage("migrate", "--no-input", **variables).returncode == 0
    with psycopg.connect(**{**connection.get_connection_params(), "dbname": empty_database}) as server:
        server.execute(
            "INSERT INTO django_session (session_key, session_data, expire_date)"
            " VALUES ('over', '', now() - interval '1 second'), ('open', '', now() + interval '1 minute')"
        )
        server.commit()

        done = manage("upkeep", **variables)

        assert done.returncode == 0, done.stderr
        assert "removed 1 expired admin sessions" in done.stderr
        assert server.execute("SELECT session_key FROM django_session").fetchall() == [("open",)]


def test_the_admin_site_brings_no_other_kind_of_row_that_ages(manage: Python) -> None:
    code = "from django.apps import apps; from django.db.models import DateField; print(*(m._meta.label for m in"
    code += " apps.get_models() if any(isinstance(f, DateField) for f in m._meta.get_fields())))"

    done = manage("shell", "-v0", "--no-imports", "-c", code, DJANGO_ADMIN_ENABLED="true")

    assert set(done.stdout.split()) - kinds_that_age() == {"sessions.Session", *KEPT_WITH_ADMIN}, done.stderr


def test_what_has_expired_is_removed_and_said_and_the_rest_stays(alice: User, caplog: pytest.LogCaptureFixture) -> None:
    expire_one_of_each(alice)
    new_session(alice)
    FailedAttempts.objects.create(
        account_key="y" * 64, network="", count=1, ends_at=timezone.now() + timedelta(minutes=1)
    )
    caplog.set_level("INFO")

    call_command("upkeep")

    assert counts() == {"Session": 1, "FailedAttempts": 1}
    assert OutstandingToken.objects.count() == 1
    assert not OutgoingMail.objects.exists()
    assert not IdempotencyRecord.objects.exists()
    assert User.objects.get() == alice
    assert [line for line in caplog.messages if line.startswith("removed")] == [
        "removed 1 expired sessions",
        "removed 1 expired refresh tokens",
        "removed 1 expired failed attempts",
        "removed 1 expired mails",
        "removed 1 expired unconfirmed registrations",
        "removed 1 expired idempotency records",
    ]
    assert re.fullmatch(r"upkeep removed 6 expired rows in \d+\.\d s", caplog.messages[-1])


def test_many_rows_are_removed_in_batches(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("config.upkeep.BATCH", 3)
    past = timezone.now()
    FailedAttempts.objects.bulk_create(
        FailedAttempts(account_key=f"{number:064}", network="", count=1, ends_at=past) for number in range(10)
    )

    assert delete_in_batches(FailedAttempts.objects.all()) == 10
    assert not FailedAttempts.objects.exists()


def test_removing_stops_between_batches_when_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    FailedAttempts.objects.create(account_key="x" * 64, network="", count=1, ends_at=timezone.now())
    stopping.set()
    try:
        assert delete_in_batches(FailedAttempts.objects.all()) == 0
    finally:
        stopping.clear()


def test_a_job_with_a_defect_does_not_keep_the_others_from_theirs(
    alice: User, settings: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> dict[str, int]:
        raise ZeroDivisionError

    monkeypatch.setattr("accounts.sessions.remove_expired", broken)
    expire_one_of_each(alice)

    call_command("upkeep")

    assert counts() == {"Session": 1, "FailedAttempts": 0}
    assert "upkeep: accounts.sessions.remove_expired failed" in caplog.messages


# Never two at once --------------------------------------------------------------------------------


@contextmanager
def another_process_at_work() -> Iterator[None]:
    with psycopg.connect(**connection.get_connection_params(), autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [upkeep.UPKEEP_LOCK])
        yield
        # At once: the server may take a moment to notice that a connection was closed.
        other.execute("SELECT pg_advisory_unlock(%s)", [upkeep.UPKEEP_LOCK])


def test_two_processes_do_not_remove_at_once(alice: User, capsys: pytest.CaptureFixture[str]) -> None:
    expire_one_of_each(alice)

    with another_process_at_work():
        call_command("upkeep")

    assert counts() == {"Session": 1, "FailedAttempts": 1}
    assert "Another upkeep process is removing what has expired" in capsys.readouterr().err
    call_command("upkeep")
    assert counts() == {"Session": 0, "FailedAttempts": 0}


def test_the_lock_is_let_go_after_a_failure(alice: User, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> dict[str, int]:
        raise OperationalError

    monkeypatch.setattr("accounts.sessions.remove_expired", away)
    with pytest.raises(OperationalError):
        call_command("upkeep")

    with psycopg.connect(**connection.get_connection_params(), autocommit=True) as other:
        assert other.execute("SELECT pg_try_advisory_lock(%s)", [upkeep.UPKEEP_LOCK]).fetchone() == (True,)


# Staying ------------------------------------------------------------------------------------------


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Replace the pause between two turns; after as many turns as the list says, the process is told to stop."""
    beats: list[bool] = []

    def pause(seconds: float) -> bool:
        beats.pop()
        if not beats:
            stopping.set()
        return bool(beats)

    monkeypatch.setattr(stopping, "wait", pause)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return beats


def beaten(file: Path) -> bool:
    return file.exists()


def test_what_has_expired_is_removed_at_once_and_whenever_the_interval_has_passed(
    turns: list[bool], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, rounds = [1000.0], []
    pause = stopping.wait

    def job() -> dict[str, int]:
        rounds.append(clock[0] - 1000)
        return {}

    def pass_time(seconds: float) -> bool:
        clock[0] += seconds
        return pause(seconds)

    monkeypatch.setattr(upkeep, "monotonic", lambda: clock[0])
    monkeypatch.setattr(stopping, "wait", pass_time)
    monkeypatch.setattr("accounts.sessions.remove_expired", job)
    turns += [True] * 10
    caplog.set_level("INFO")

    call_command("upkeep", every=3 * upkeep.TICK_SECONDS)

    assert rounds == [0, 15, 30, 45]
    assert clock == [1050]
    said = [line for line in caplog.messages if line.startswith("upkeep removed")]
    assert said == ["upkeep removed 0 expired rows in 0.0 s"] * len(rounds)
    stopping.clear()


def test_the_heartbeat_beats_when_all_is_well(turns: list[bool], tmp_path: Path) -> None:
    turns += [True]

    call_command("upkeep", every=3600, heartbeat=tmp_path / "beat")

    assert beaten(tmp_path / "beat")
    stopping.clear()


def test_the_heartbeat_does_not_beat_while_a_job_has_a_defect(
    turns: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> dict[str, int]:
        raise ZeroDivisionError

    monkeypatch.setattr("accounts.sessions.remove_expired", broken)
    turns += [True] * 3

    call_command("upkeep", every=3600, heartbeat=tmp_path / "beat")

    assert not beaten(tmp_path / "beat")
    stopping.clear()


def test_the_heartbeat_does_not_beat_while_no_mail_can_be_worked_on(
    turns: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> None:
    def broken() -> dict[str, int]:
        raise ZeroDivisionError

    settings.MAIL_ENABLED = True
    monkeypatch.setattr(upkeep, "deliver_due", broken)
    turns += [True]

    call_command("upkeep", every=3600, heartbeat=tmp_path / "beat")

    assert not beaten(tmp_path / "beat")
    stopping.clear()


def test_a_database_that_was_away_is_tried_again(
    turns: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[bool] = []

    def away_at_first() -> dict[str, int]:
        tried.append(beaten(tmp_path / "beat"))
        if len(tried) < 3:
            raise OperationalError("connection refused")
        return {}

    monkeypatch.setattr("accounts.sessions.remove_expired", away_at_first)
    # The connection of the test itself is to survive.
    monkeypatch.setattr(connection, "close", lambda: None)
    turns += [True] * 3

    call_command("upkeep", every=3600, heartbeat=tmp_path / "beat")

    assert tried == [False] * 3, "in each turn, not an hour later, and without a beat before it worked"
    assert beaten(tmp_path / "beat")
    stopping.clear()


def test_the_heartbeat_does_not_beat_without_a_database_though_nothing_is_to_be_done(
    turns: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(upkeep, "_ask_database", away)
    monkeypatch.setattr(connection, "close", lambda: None)
    turns += [True] * 2

    call_command("upkeep", every=3600, heartbeat=tmp_path / "beat")

    assert not beaten(tmp_path / "beat")
    stopping.clear()


@pytest.mark.parametrize("every", ["0", "-1", "86401", "1.5", "hourly", ""])
def test_an_interval_that_is_none_is_refused(every: str) -> None:
    with pytest.raises(CommandError, match="accepted: 1 to 86400"):
        call_command("upkeep", f"--every={every}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_at_once_and_well_when_it_is_told_to(
    number: signal.Signals, configuration: dict[str, str], tmp_path: Path
) -> None:
    environment = {**configuration, "POSTGRES_DB": connection.settings_dict["NAME"], "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "manage.py", "upkeep", "--every=3600", f"--heartbeat={tmp_path / 'beat'}"]
    process = subprocess.Popen(command, cwd=BACKEND, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 30
        while not beaten(tmp_path / "beat"):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        started = time.monotonic()
        process.send_signal(number)
        _, said = process.communicate(timeout=15)
    finally:
        process.kill()

    assert process.returncode == 0
    assert time.monotonic() - started < 3, "it slept on"
    assert "upkeep every 3600 s" in said
    assert "upkeep ends, as it was told to" in said


# The health check ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("age", "expected"), [(0, 0), (119, 0), (121, 1), (86_400, 1)])
def test_a_heartbeat_is_young_or_the_process_is_not_well(age: int, expected: int, tmp_path: Path) -> None:
    file = tmp_path / "beat"
    file.touch()
    os.utime(file, (time.time() - age, time.time() - age))

    assert heartbeat.main(str(file), "120") == expected


def test_no_heartbeat_is_not_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert heartbeat.main(str(tmp_path / "beat"), "120") == 1
    assert capsys.readouterr().out == "no heartbeat: No such file or directory\n"


def test_the_health_check_is_a_program_that_needs_no_configuration(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "health.heartbeat", str(tmp_path / "beat"), "120"]

    done = subprocess.run(command, cwd=BACKEND, env={}, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (1, "")
