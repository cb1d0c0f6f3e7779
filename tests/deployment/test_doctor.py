"""scripts/doctor without a container engine: its options, the shape of what it says, and each of its judgements.

What it sees of a running stack is in tests/operations/test_doctor.py.
"""

import ctypes
import fcntl
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from scripts.diagnosis import configuration, containers, database, deployment, host, proxy
from scripts.diagnosis.__main__ import CHECKS, as_text, bounded, examine
from scripts.diagnosis.bundle import Bundle
from scripts.diagnosis.commands import run as run_bounded
from scripts.diagnosis.findings import Findings, Level, NotSeen, ok, problem
from scripts.diagnosis.installation import Container, Installation, read_registry
from scripts.diagnosis.redaction import Redactor

from config.env import Environment
from tests.deployment.conftest import ROOT
from tests.operations.certificates import Authority

LEVELS = {"ok", "warning", "problem", "unknown"}
# What the scripts start, but for docker.
TOOLS = (
    *("env", "bash", "sh", "sed", "sort", "head", "tail", "cat", "tr", "base64", "install", "chmod", "mv"),
    *("rm", "mkdir", "dirname", "uname", "git"),
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of its own, initialised, whose port is free."""
    folder = tmp_path / "checkout"
    shutil.copytree(ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    # What ./scripts/up checks .env with.
    shutil.copytree(ROOT / "backend/config", folder / "backend/config", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("env.example", "docker-compose.yml", "docker-compose.listeners.yml"):
        shutil.copy(ROOT / name, folder)
    # No database of this host is any of its business.
    environment = {**os.environ, "DOCKER_HOST": "unix:///nonexistent"}
    subprocess.run(
        [folder / "scripts/init"], check=True, capture_output=True, stdin=subprocess.DEVNULL, env=environment
    )
    return folder


@pytest.fixture
def path_without_engine(tmp_path: Path) -> str:
    """A PATH on which there is everything but docker."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        if found:
            (folder / tool).symlink_to(found)
    # Not what PATH has, which may be a script that needs others.
    python = folder / "python3"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return str(folder)


def doctor(checkout: Path, *options: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": os.environ["PATH"], "HOME": str(checkout.parent), **variables}
    return subprocess.run(
        [checkout / "scripts/doctor", *options],
        cwd=checkout.parent,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def findings(checkout: Path, **variables: str) -> dict[str, dict[str, str]]:
    done = doctor(checkout, "--json", **variables)
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert done.returncode == int(any(item["level"] == "problem" for item in report["findings"]))
    return {item["id"]: item for item in report["findings"]}


def content(checkout: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(checkout)): (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        for path in checkout.rglob("*")
        if path.is_file()
    }


# Without an engine ----------------------------------------------------------------------------------------------------


def test_without_an_engine_every_check_says_something_and_changes_nothing(
    checkout: Path, path_without_engine: str
) -> None:
    before = content(checkout)

    found = findings(checkout, PATH=path_without_engine)

    assert content(checkout) == before
    assert found["engine"]["level"] == "problem"
    assert "install-docker" in found["engine"]["mend"]
    assert {identity.split(".")[0] for identity in found} >= set(CHECKS)
    for name in ("containers", "images", "applied", "volume", "migrations", "connections", "api", "proxy"):
        of_it = [item["level"] for identity, item in found.items() if identity.split(".")[0] == name]
        assert set(of_it) == {"unknown"}, name


def test_every_finding_has_an_id_a_level_a_sentence_and_what_mends_it(checkout: Path, path_without_engine: str) -> None:
    (checkout / ".env").chmod(0o666)

    for finding in findings(checkout, PATH=path_without_engine).values():
        assert set(finding) == {"id", "level", "message", "mend"}
        assert finding["level"] in LEVELS
        assert re.fullmatch(r"[A-Za-z0-9_.-]+", finding["id"])
        assert re.fullmatch(r"\S.*[.?]", finding["message"]), finding
        assert "\n" not in finding["message"] + finding["mend"]
        assert bool(finding["mend"]) == (finding["level"] in {"warning", "problem"}), finding


def test_an_engine_that_hangs_is_waited_for_once(checkout: Path, path_without_engine: str) -> None:
    # It starts a process of its own that keeps the pipes open.
    fake = Path(path_without_engine) / "docker"
    fake.write_text("#!/usr/bin/env bash\nsleep 300 &\nsleep 300\n")
    fake.chmod(0o755)
    (Path(path_without_engine) / "sleep").symlink_to(str(shutil.which("sleep")))
    started = time.monotonic()

    found = findings(checkout, PATH=path_without_engine)

    assert time.monotonic() - started < 60
    assert found["engine"]["level"] == "problem"
    assert "did not end within" in found["engine"]["message"]


def test_an_engine_that_refuses_this_account_is_told_from_one_that_is_away(
    checkout: Path, path_without_engine: str
) -> None:
    fake = Path(path_without_engine) / "docker"
    fake.write_text("#!/usr/bin/env bash\necho 'permission denied while trying to connect' >&2\nexit 1\n")
    fake.chmod(0o755)

    found = findings(checkout, PATH=path_without_engine)

    assert "groups docker" in found["engine"]["mend"]


@pytest.mark.parametrize(
    ("engine", "compose", "levels"),
    [
        ("26.1.5+dfsg1", "2.26.1", ("ok", "ok")),
        ("26.1", "v2.26.0-4", ("ok", "ok")),
        ("26.0.2", "2.26.1", ("warning", "ok")),
        ("20.10.24", "2.25.9", ("warning", "problem")),
        ("9.9", "2.9.0", ("warning", "problem")),
    ],
)
def test_versions_that_are_too_old_are_found(
    checkout: Path, path_without_engine: str, engine: str, compose: str, levels: tuple[str, str]
) -> None:
    fake = Path(path_without_engine) / "docker"
    fake.write_text(
        "#!/usr/bin/env bash\ncase $1:$2 in\n"
        f"""  version:--format) echo '{{"Version": "{engine}"}}' ;;\n"""
        f"  compose:version) echo {compose} ;;\n  *) exit 1 ;;\nesac\n"
    )
    fake.chmod(0o755)

    found = findings(checkout, PATH=path_without_engine)

    assert (found["engine"]["level"], found["compose"]["level"]) == levels
    for name, version, level in zip(("engine", "compose"), (engine, compose.removeprefix("v")), levels, strict=True):
        assert version in found[name]["message"]
        assert level == "ok" or re.search(r"(26\.1 is the oldest|2\.26 or newer)", found[name]["message"])


def test_the_scripts_want_the_same_compose() -> None:
    library = (ROOT / "scripts/lib.sh").read_text()

    assert re.findall(r"version_at_least ([\d.]+) ", library) == [".".join(map(str, containers.OLDEST_COMPOSE))]


def test_without_python_it_says_so_in_the_same_form(checkout: Path, path_without_engine: str) -> None:
    (Path(path_without_engine) / "python3").unlink()

    as_json = doctor(checkout, "--json", PATH=path_without_engine)
    as_lines = doctor(checkout, PATH=path_without_engine)

    (finding,) = json.loads(as_json.stdout)["findings"]
    assert as_json.returncode == as_lines.returncode == 1
    assert (finding["id"], finding["level"]) == ("python", "problem")
    assert finding["mend"] in as_lines.stdout


def test_json_and_bundle_exclude_each_other(checkout: Path) -> None:
    for options in (["--json", "--bundle"], ["--bundle", "x.tar.gz", "--json"]):
        done = doctor(checkout, *options)
        assert done.returncode == 2
        assert done.stdout == ""


def test_what_it_prints_for_people_holds_every_finding_and_sums_them_up() -> None:
    text = as_text([ok("a", "Fine."), problem("b.c", "Broken.", "mend it")])

    assert "problem  b.c  Broken." in text
    assert "mend: mend it" in text
    assert "1 problems, 0 warnings, 1 ok, 0 not looked at." in text


# Bounds ---------------------------------------------------------------------------------------------------------------


def test_a_check_that_hangs_or_fails_keeps_what_it_found_and_the_others_go_on() -> None:
    release = threading.Event()

    def hanging(_installation: Installation) -> Findings:
        yield ok("hanging.first", "Fine.")
        release.wait(60)

    def failing(_installation: Installation) -> Findings:
        yield ok("failing.first", "Fine.")
        raise ZeroDivisionError

    installation = Installation()

    hung = bounded("hanging", hanging, installation, 0.2)
    release.set()
    found = examine(installation, {"failing": failing, "last": lambda _installation: iter([ok("last", "Fine.")])})

    assert [finding.id for finding in hung] == ["hanging.first", "hanging"]
    assert hung[1].level is Level.UNKNOWN
    assert [(finding.id, finding.level) for finding in found] == [
        ("failing.first", Level.OK), ("failing", Level.UNKNOWN), ("last", Level.OK),
    ]  # fmt: skip


def test_a_program_that_hangs_is_ended_with_what_it_started(tmp_path: Path) -> None:
    marker = tmp_path / "marker"

    with pytest.raises(NotSeen, match="did not end within"):
        run_bounded("bash", "-c", f"(sleep 2; touch {marker}) & wait", seconds=0.5)

    time.sleep(2.5)
    assert not marker.exists()


# Files ----------------------------------------------------------------------------------------------------------------


def test_registry_is_read_as_it_is_declared() -> None:
    read = read_registry((ROOT / "env.example").read_text())

    declared = {name: variable for variable in Environment.variables() for name in variable.names}
    assert set(read) == set(declared)
    for name, variable in declared.items():
        assert read[name].secret == variable.secret, name
        expected = None if variable.secret or type(variable).__name__ == "OptionalVariable" else variable.default
        assert read[name].default == expected, name


@pytest.mark.parametrize(
    ("line", "level", "says", "mended"),
    [
        ("HTTP_PROT=8081", "problem", "Did you mean HTTP_PORT?", "HTTP_PORT=8081"),
        ("DJANGO_ALOWED_ORIGINS=x", "problem", "which nothing reads.", None),
        ("COLOUR=blue", "warning", "which nothing reads.", None),
        ("TLS_CERT=x", "problem", "Did you mean TLS_CERT_FILE?", "TLS_CERT_FILE=x"),
        ("HTTPS_ENABLED=true", "problem", "which nothing reads.", None),
    ],
)
def test_unknown_variables_are_named_and_the_command_mends_them(
    checkout: Path, path_without_engine: str, line: str, level: str, says: str, mended: str | None
) -> None:
    with (checkout / ".env").open("a") as file:
        file.write(f"{line}\nCOMPOSE_PROJECT_NAME=another\n")
    name = line.partition("=")[0]

    found = findings(checkout, PATH=path_without_engine)[f"variables.{name}"]
    subprocess.run(["bash", "-c", found["mend"].replace("./scripts/up --detach", "true")], cwd=checkout, check=True)

    assert found["level"] == level
    assert says in found["message"]
    after = (checkout / ".env").read_text().splitlines()
    assert line not in after
    assert mended is None or mended in after
    assert findings(checkout, PATH=path_without_engine)["variables"]["level"] == "ok"


@pytest.mark.parametrize(
    "name",
    [
        *("TLS_CERT", "HTTPS_ENABLED", "WEB_CONCURENCY", "HTTPPORT", "HTTP_PROXY", "DEBIAN_FRONTEND", "MY_PORT"),
        *("PYTHON_IMG", "COMPOSE_FILES", "DJANGO_SETTINGS_MODULE", "RELEASES"),
    ],
)
def test_the_doctor_and_up_refuse_the_same_names(checkout: Path, name: str) -> None:
    (checkout / ".env").write_text(f"DJANGO_ALLOWED_HOSTS=localhost\n{name}=x\n")
    installation = Installation(checkout)
    asked = installation.refusals()

    found = {item.id: item.level for item in configuration.variables(installation)}

    assert [found.get(f"variables.{name}") == Level.PROBLEM] == [any(item.startswith(f"{name} ") for item in asked)]


def test_lines_that_set_nothing_are_named_by_their_number(checkout: Path, path_without_engine: str) -> None:
    (checkout / ".env").write_text("DJANGO_ALLOWED_HOSTS=localhost\nhunter2-secret\n")

    found = findings(checkout, PATH=path_without_engine)["values"]

    assert found["level"] == "problem"
    assert found["message"] == "Line 2 of .env is not NAME=value. Mend or remove it."
    assert "hunter2" not in json.dumps(found)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("NGINX_AUTH_RATE=nonsense", "Accepted: a number from 1 to 99999 and r/s or r/m."),
        ("UPKEEP_INTERVAL_SECONDS=nonsense", "Accepted: 1 to 86400."),
        ("DB_MEMORY_MB=0nonsense", "is not a whole number."),
        ("POSTGRES_HOST=nonsense", "has no effect in .env. Remove it"),
        ("DJANGO_LOG_LEVEL=$nonsense", "in single quotes a value that holds a quote, a $, or"),
    ],
)
def test_what_up_would_refuse_of_env_is_found_while_nothing_runs(
    checkout: Path, path_without_engine: str, line: str, says: str
) -> None:
    accepted = findings(checkout, PATH=path_without_engine)
    with (checkout / ".env").open("a") as file:
        file.write(f"{line}\n")
    name = line.partition("=")[0]

    found = findings(checkout, PATH=path_without_engine)

    assert accepted["values"]["level"] == "ok"
    assert found[f"values.{name}"]["level"] == "problem"
    assert says in found[f"values.{name}"]["message"]
    assert found[f"values.{name}"]["mend"] == f"${{EDITOR:-vi}} .env && ./scripts/up --detach  # {name}"
    assert "nonsense" not in json.dumps(found)


def test_a_value_of_the_shell_is_mended_there(checkout: Path, path_without_engine: str) -> None:
    found = findings(checkout, PATH=path_without_engine, NGINX_AUTH_RATE="nonsense")

    assert found["values.NGINX_AUTH_RATE"]["mend"] == "unset NGINX_AUTH_RATE && ./scripts/up --detach"


SECRETS: dict[str, tuple[str, str, Callable[[Path], object], str]] = {
    "a key that is too short": (
        "JWT_SIGNING_KEY", "jwt_signing_key", lambda path: path.write_text("nonsense"),
        "${EDITOR:-vi} secrets/jwt_signing_key && ",
    ),
    "an empty key": ("JWT_SIGNING_KEY", "jwt_signing_key", lambda path: path.write_text(""), "./scripts/init && "),
    "no key": ("DJANGO_SECRET_KEY", "django_secret_key", Path.unlink, "./scripts/init && "),
    "an address of another form": (
        "EMAIL_URL", "email_url", lambda path: path.write_text("nonsense"), "${EDITOR:-vi} secrets/email_url && ",
    ),
    "a password of several": (
        "POSTGRES_PASSWORD", "postgres_migrator_password", lambda path: path.write_text("nonsense"),
        "secrets/postgres_migrator_password && ",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SECRETS)
def test_what_up_would_refuse_of_secrets_is_found_while_nothing_runs(
    checkout: Path, path_without_engine: str, what: str
) -> None:
    name, file, break_it, mend = SECRETS[what]
    break_it(checkout / "secrets" / file)

    found = findings(checkout, PATH=path_without_engine)

    assert found[f"values.{name}"]["level"] == "problem"
    assert mend in found[f"values.{name}"]["mend"]
    assert "nonsense" not in json.dumps(found)


def test_secrets_are_no_matter_of_the_embedded_stack(checkout: Path, path_without_engine: str) -> None:
    with (checkout / ".env").open("a") as file:
        file.write("EMAIL_URL=consolemail://\n")
    with_containers = findings(checkout, PATH=path_without_engine)
    (checkout / "var/embedded/postgres").mkdir(parents=True)

    embedded = findings(checkout, PATH=path_without_engine)

    assert with_containers["values.EMAIL_URL"]["level"] == "problem"
    assert embedded["values"]["level"] == "ok"


@pytest.mark.parametrize("line", ["API_PORT=8081", "API_PORT=8081\nHTTP_PORT=8081"])
def test_a_variable_that_was_renamed_is_found_and_the_command_mends_it(
    checkout: Path, path_without_engine: str, line: str
) -> None:
    registry = checkout / "backend/config/env.py"
    before, between, after = registry.read_text().partition("renamed: ClassVar[Mapping[str, str]] = {")
    registry.write_text(f'{before}{between}"API_PORT": "HTTP_PORT"{after}')
    with (checkout / ".env").open("a") as file:
        file.write(f"{line}\n")

    found = findings(checkout, PATH=path_without_engine)
    mend = found["variables.API_PORT"]["mend"].replace("./scripts/up --detach", "true")
    subprocess.run(["bash", "-c", mend], cwd=checkout, check=True)

    assert found["variables.API_PORT"]["message"] == ".env sets API_PORT, which is now called HTTP_PORT."
    assert found["values"]["level"] == "ok", "it is said once"
    assert (checkout / ".env").read_text().splitlines().count("HTTP_PORT=8081") == 1
    assert findings(checkout, PATH=path_without_engine)["variables"]["level"] == "ok"


BREAKAGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    ".env that others read": ("permissions.env", lambda root: (root / ".env").chmod(0o644), "warning"),
    ".env that others change": ("permissions.env", lambda root: (root / ".env").chmod(0o622), "problem"),
    "no .env": ("permissions.env", lambda root: (root / ".env").unlink(), "problem"),
    "an open folder": ("permissions.secrets", lambda root: (root / "secrets").chmod(0o755), "problem"),
    "no folder": ("permissions.secrets", lambda root: shutil.rmtree(root / "secrets"), "problem"),
    "a secret that containers cannot read": (
        "permissions.jwt_signing_key", lambda root: (root / "secrets/jwt_signing_key").chmod(0o600), "problem",
    ),
    "a secret that others change": (
        "permissions.jwt_signing_key", lambda root: (root / "secrets/jwt_signing_key").chmod(0o666), "problem",
    ),
    "an empty secret": (
        "permissions.django_secret_key", lambda root: (root / "secrets/django_secret_key").write_text(""), "problem",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BREAKAGES)
def test_wrong_permissions_are_found_and_the_command_mends_them(
    checkout: Path, path_without_engine: str, what: str
) -> None:
    identity, break_it, level = BREAKAGES[what]
    healthy = findings(checkout, PATH=path_without_engine)
    break_it(checkout)

    found = findings(checkout, PATH=path_without_engine)
    mend = found[identity]["mend"].replace("./scripts/up --detach", "true")
    subprocess.run(["bash", "-c", mend], cwd=checkout, check=True, capture_output=True, stdin=subprocess.DEVNULL)

    assert healthy["permissions"]["level"] == "ok"
    assert found[identity]["level"] == level
    assert findings(checkout, PATH=path_without_engine)["permissions"]["level"] == "ok"


# Judgements -----------------------------------------------------------------------------------------------------------


def levels(found: Findings) -> dict[str, str]:
    return {finding.id: str(finding.level) for finding in found}


@pytest.mark.parametrize(
    ("free", "inodes", "level"),
    [(50, 0.9, "ok"), (4, 0.9, "warning"), (0.5, 0.9, "problem"), (50, 0.01, "problem")],
)
def test_disk_is_judged_by_room_and_inodes(free: float, inodes: float, level: str) -> None:
    assert host.judge_disk("engine", int(free * host.GB), inodes).level == level


@pytest.mark.parametrize(
    ("allowed", "total", "available", "level"),
    [(2368, 4096, 2000, "ok"), (2368, 2048, 1500, "warning"), (2368, 4096, 50, "problem")],
)
def test_memory_is_judged_by_the_sum_of_the_limits(allowed: int, total: int, available: int, level: str) -> None:
    found = host.judge_memory(allowed * host.MB, total * host.MB, available * host.MB)

    assert found.level == level
    assert f"{allowed} MB" in found.message


@pytest.mark.parametrize(
    ("there", "level"),
    [(100.2, "ok"), (99.5, "ok"), (103.0, "warning"), (97.0, "warning"), (200.0, "problem"), (3.0, "problem")],
)
def test_clocks_are_judged_against_the_moments_around_the_question(there: float, level: str) -> None:
    assert host.judge_clock("db", 100.0, there, 100.4).level == level


@pytest.mark.parametrize(
    ("error", "in_container", "level"),
    [(0.05, False, "ok"), (15.9, False, "ok"), (16.0, False, "warning"), (0.05, True, "ok"), (16.0, True, "unknown")],
)
def test_a_clock_is_judged_by_how_wrong_it_may_be(error: float, in_container: bool, level: str) -> None:
    found = host.judge_synchronisation(error, in_container=in_container)

    assert found.level == level
    assert ("timedatectl" in found.mend) == (level == "warning")


@pytest.mark.skipif(sys.platform != "linux", reason="adjtimex is Linux's")
def test_the_kernel_says_how_wrong_the_clock_may_be_and_nothing_is_changed() -> None:
    before = host.clock_error()

    # As in <sys/timex.h>: an int, padded to a long, and two longs are in front of it.
    assert host.Timex.maxerror.offset == 3 * ctypes.sizeof(ctypes.c_long)
    # It never says more, and in a moment it grows by next to nothing.
    assert 0 <= before <= host.UNSYNCHRONISED
    assert abs(host.clock_error() - before) < 1


def test_a_system_that_says_nothing_of_its_clock_is_neither_good_nor_bad(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())

    first = next(host.clock(Installation(checkout)))

    assert (first.id, first.level) == ("clock.host", "unknown")
    assert "does not say whether its clock is synchronised" in first.message


@pytest.mark.parametrize(
    ("written", "others", "level", "says"),
    [
        ("18", {}, "ok", "PostgreSQL 18"),
        ("17", {}, "problem", "written by PostgreSQL 17; the image is PostgreSQL 18"),
        (None, {"/var/lib/postgresql/17/docker/PG_VERSION": "17"}, "problem", "is in /var/lib/postgresql/17/docker"),
        (None, {}, "warning", "no database yet"),
    ],
)
def test_database_version_is_judged_against_the_volume(
    written: str | None, others: dict[str, str], level: str, says: str
) -> None:
    found = database.judge_volume("18", written, others)

    assert found.level == level
    assert says in found.message


@pytest.mark.parametrize(("available", "level"), [(26, "ok"), (25, "problem")])
def test_connections_are_judged_by_arithmetic(checkout: Path, available: int, level: str) -> None:
    installation = Installation(checkout)

    found = database.judge_arithmetic(installation, workers=2, threads=4, replicas=2, reserved=10, available=available)

    assert found.level == level
    assert "= 26 connections" in found.message


@pytest.mark.parametrize(
    ("available", "beside", "mend"),
    [(42, 2, None), (41, 2, "POSTGRES_MAX_CONNECTIONS=42"), (34, 1, None), (33, 1, "POSTGRES_MAX_CONNECTIONS=34")],
)
def test_room_for_the_second_set_of_backends_of_a_deployment_is_judged(
    checkout: Path, available: int, beside: int, mend: str | None
) -> None:
    (checkout / ".env").write_text("POSTGRES_MAX_CONNECTIONS=30\n")
    found = list(
        database.judge_deployment(
            Installation(checkout), workers=2, beside=beside, threads=4, replicas=2, reserved=10, available=available
        )
    )

    assert [(item.id, item.level) for item in found] == [("connections.deployment", "warning")] * bool(mend)
    assert all(mend in item.mend for item in found if mend)


def test_a_server_of_somebody_else_is_not_told_to_accept_more(checkout: Path) -> None:
    def judged(*, ours: bool) -> str:
        return database.judge_arithmetic(
            Installation(checkout), workers=30, threads=4, replicas=2, reserved=10, available=200, ours=ours
        ).mend

    assert "POSTGRES_MAX_CONNECTIONS=250" in judged(ours=True)
    assert "POSTGRES_MAX_CONNECTIONS" not in judged(ours=False)
    assert "lower WEB_CONCURRENCY" in judged(ours=False)


@pytest.mark.parametrize(("taken", "level"), [(10, "ok"), (90, "warning"), (97, "problem")])
def test_taken_connections_are_judged(taken: int, level: str) -> None:
    assert database.judge_usage(taken, 97).level == level


def test_a_database_that_lets_nobody_in_is_a_problem_and_one_that_is_away_is_unknown(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = Container({"Config": {"Env": ["WEB_CONCURRENCY=2"], "Labels": {}}})
    monkeypatch.setattr(Installation, "serving", lambda _self, _service: [backend])
    answers = {"FATAL: sorry, too many clients already": ["problem"], "db does not run": ["unknown"]}
    for answer, expected in answers.items():

        def refuse(_self: Installation, _statement: str, answer: str = answer) -> None:
            raise NotSeen(answer)

        monkeypatch.setattr(Installation, "sql", refuse)
        found = examine(Installation(checkout), {"connections": database.connections})

        assert [str(finding.level) for finding in found] == expected


@pytest.mark.parametrize(
    ("found", "level"),
    [({"10.0.0.2"}, "ok"), (set(), "problem"), ({"10.0.0.2", "10.0.0.9"}, "problem")],
)
def test_names_are_judged_by_the_addresses_of_the_containers(found: set[str], level: str) -> None:
    assert containers.judge_name("dns.db", "backend", "db", found, {"10.0.0.2", "10.0.0.3"}).level == level


def test_a_port_that_another_process_has_is_named_with_a_free_one(checkout: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = containers._judge_port(Installation(checkout), "ports.x", "127.0.0.1", port)

    assert found.level == "problem"
    assert "in use by" in found.message
    other = re.search(r"HTTP_PORT=(\d+)", found.mend)
    assert other
    assert int(other[1]) != port


# Containers -----------------------------------------------------------------------------------------------------------


def container(service: str = "backend", state: dict[str, object] | None = None) -> Container:
    """A container of the project `it`, which runs unless ``state`` says otherwise."""
    running = {"Status": "running", "Running": True, "Paused": False, "Restarting": False, "OOMKilled": False}
    labels = {"com.docker.compose.service": service}
    return Container({
        "Id": "0", "Name": f"/it-{service}-1", "Config": {"Labels": labels, "Env": []},
        "State": {**running, "ExitCode": 0, **(state or {})},
    })  # fmt: skip


def ended(status: int, **state: object) -> dict[str, object]:
    return {"Status": "exited", "Running": False, "ExitCode": status, **state}


def project(checkout: Path, *present: Container, **services: dict[str, Any]) -> Installation:
    """A checkout with these containers and these services."""
    installation = Installation(checkout)
    facts = {"engine": {}, "configuration": {"name": "it", "services": services}, "containers": list(present)}
    installation.facts.update({name: (True, value) for name, value in facts.items()})
    return installation


RAISE = "./scripts/up --detach  # after raising its *_MEMORY_MB in .env"
EDIT = "docker compose logs --tail 30 backend; ${EDITOR:-vi} .env && ./scripts/up --detach"


@pytest.mark.parametrize(
    ("state", "level", "says", "mend"),
    [
        ({"Health": {"Status": "unhealthy"}}, "problem", "it-backend-1 is unhealthy.",
         "docker compose logs --tail 50 backend; docker compose restart backend"),
        ({"Health": {"Status": "starting"}}, "warning", "it-backend-1 is starting.", "sleep 30; ./scripts/doctor"),
        ({"OOMKilled": True}, "problem", "it-backend-1 has hit its memory limit.", RAISE),
        ({"Paused": True}, "problem", "it-backend-1 is paused.", "docker compose unpause backend"),
        (ended(137, OOMKilled=True), "problem", "it-backend-1 is exited: it hit its memory limit.", RAISE),
        (ended(78), "problem", "it-backend-1 is exited: it refuses the configuration (NGINX_AUTH_RATE).", EDIT),
        (ended(78, Restarting=True), "problem", "it-backend-1 starts again and again: it refuses", EDIT),
        (ended(1), "problem", "it-backend-1 is exited, exit status 1;", "./scripts/up --detach"),
    ],
)  # fmt: skip
def test_containers_are_judged_by_their_state(
    checkout: Path, path_without_engine: str, monkeypatch: pytest.MonkeyPatch,
    state: dict[str, object], level: str, says: str, mend: str,
) -> None:  # fmt: skip
    fake = Path(path_without_engine) / "docker"
    fake.write_text("#!/usr/bin/env bash\necho '  - NGINX_AUTH_RATE is malformed: canary' >&2\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", path_without_engine)
    one = container(state=state)

    (found,) = containers.containers(project(checkout, one, backend={}))

    assert (found.id, found.level, found.mend) == ("containers.backend-1", level, mend)
    assert says in found.message
    assert "canary" not in found.message


def test_containers_that_are_as_they_should_be_are_no_finding(checkout: Path) -> None:
    serving = container(state={"Health": {"Status": "healthy"}})
    finished = container("migrate", ended(0))

    (found,) = containers.containers(project(checkout, serving, finished, backend={}, migrate={"restart": "no"}))

    assert (found.id, found.level) == ("containers", "ok")


def test_containers_of_services_that_there_are_no_more_are_found(checkout: Path) -> None:
    (found,) = containers.containers(project(checkout, container(), container("redis"), backend={}))

    assert (found.id, found.level, found.mend) == ("containers.orphans", "warning", "./scripts/up --detach")
    assert found.message.endswith(": redis.")


# Deployments ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def deployed(checkout: Path) -> Path:
    """A checkout in which a release was deployed."""
    (checkout / "var").mkdir()
    (checkout / "var/releases.log").write_text("2026-01-01T00:00:00Z\tdeploy\t4\tv4\tin service\n")
    return checkout


def of_deployments(checkout: Path, *numbers: str) -> Installation:
    backends = [container() for _number in numbers]
    for backend, number in zip(backends, numbers, strict=True):
        backend.about["Config"]["Labels"]["transactions.deployment"] = number
    return project(checkout, *backends, backend={})


def record(checkout: Path, *fields: str) -> None:
    with (checkout / "var/releases.log").open("a") as file:
        file.write("\t".join(("2026-01-02T00:00:00Z", *fields)) + "\n")


def test_a_deployment_that_ended_is_no_finding(checkout: Path, deployed: Path) -> None:
    never = deployment.deployment(of_deployments(checkout.parent, "0", "0"))

    assert levels(never) == levels(deployment.deployment(of_deployments(deployed, "4", "4"))) == {"deployment": "ok"}


@pytest.mark.parametrize(("action", "mend"), [("deploy", "./scripts/deploy v5"), ("rollback", "./scripts/rollback")])
def test_a_deployment_that_was_interrupted_is_found(deployed: Path, action: str, mend: str) -> None:
    record(deployed, action, "5", "v5", "started")

    (found,) = deployment.deployment(of_deployments(deployed, "4", "4"))

    assert (found.level, found.mend) == ("problem", mend)
    assert "release v5 was interrupted" in found.message


@pytest.mark.parametrize(
    ("outcome", "mend"), [("in service", "./scripts/deploy v5"), ("failed: nothing", "./scripts/deploy")]
)
def test_backends_of_two_deployments_are_found(deployed: Path, outcome: str, mend: str) -> None:
    record(deployed, "deploy", "5", "v5", outcome)

    (found,) = deployment.deployment(of_deployments(deployed, "4", "5", "5"))

    assert (found.level, found.mend) == ("problem", mend)
    assert "of 2 deployments are there (4, 5)" in found.message


def test_a_deployment_that_is_under_way_is_told_from_one_that_was_interrupted(deployed: Path) -> None:
    record(deployed, "deploy", "5", "v5", "started")
    installation = of_deployments(deployed, "4", "5")
    lock = deployed / "var/deploy.lock"
    lock.write_text(f"{os.getpid()}\n")

    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        under_way = levels(deployment.deployment(installation))
        lock.write_text("999999999\n")
        left_by_a_killed_one = levels(deployment.deployment(installation))
    lock.write_text(f"{os.getpid()}\n")
    given_back = levels(deployment.deployment(installation))

    assert under_way == {"deployment": "ok"}
    assert left_by_a_killed_one == given_back == {"deployment": "problem"}


def test_an_interrupted_deployment_is_found_without_an_engine(deployed: Path, path_without_engine: str) -> None:
    ended = findings(deployed, PATH=path_without_engine)
    record(deployed, "deploy", "5", "v5", "started")

    interrupted = findings(deployed, PATH=path_without_engine)

    assert ended["deployment"]["level"] == "unknown", "backends of another deployment could be there"
    assert interrupted["deployment"]["level"] == "problem"


# The certificate ------------------------------------------------------------------------------------------------------


def certificate(folder: Path, name: str, *, days: int = 90, host: str = "api.example.com") -> tuple[Path, Path]:
    pair = Authority().sign(ends=timedelta(days=days, seconds=1), host=host)
    cert, key = folder / f"{name}.certificate", folder / f"{name}.key"
    cert.write_bytes(pair.certificate_pem())
    key.write_bytes(pair.key_pem())
    return cert, key


HOSTS = "api.example.com,localhost"


@pytest.mark.parametrize(("days", "level"), [(90, "ok"), (15, "ok"), (13, "warning"), (-1, "problem")])
def test_certificate_is_judged_by_its_end(tmp_path: Path, days: int, level: str) -> None:
    pair = certificate(tmp_path, "it", days=days)

    found = levels(configuration.judge_certificate(*pair, HOSTS, time.time()))

    assert found["certificate"] == level


def test_certificate_and_key_that_do_not_belong_together_are_found(tmp_path: Path) -> None:
    cert, _key = certificate(tmp_path, "one")
    _cert, key = certificate(tmp_path, "other")

    (found,) = configuration.judge_certificate(cert, key, HOSTS, time.time())

    assert found.level == "problem"
    assert "is not the key of" in found.message


@pytest.mark.parametrize(
    ("host", "level"),
    [
        ("api.example.com", "ok"),
        ("*.example.com", "ok"),
        ("example.com", "warning"),
        ("192.0.2.1", "warning"),
    ],
)
def test_certificate_is_judged_by_its_names(tmp_path: Path, host: str, level: str) -> None:
    pair = certificate(tmp_path, "it", host=host)

    found = levels(configuration.judge_certificate(*pair, HOSTS, time.time()))

    assert set(found.values()) == {level}


def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("nonsense")

    (found,) = configuration.judge_certificate(tmp_path / "a", tmp_path / "a", HOSTS, time.time())

    assert found.level == "problem"


def test_certificate_is_looked_at_only_where_tls_is_on(
    checkout: Path, path_without_engine: str, tmp_path: Path
) -> None:
    off = findings(checkout, PATH=path_without_engine)["certificate"]
    with (checkout / ".env").open("a") as file:
        file.write("TLS_CERT_FILE=/nowhere/it.pem\n")
    on = findings(checkout, PATH=path_without_engine)["certificate"]

    assert off["level"] == "ok"
    assert on["level"] == "problem"
    assert "TLS_CERT_FILE cannot be read" in on["message"]


# The proxy ------------------------------------------------------------------------------------------------------------

GOOD_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=()",
    "Content-Security-Policy": "default-src 'none'",
    "Cache-Control": "no-store",
}


class Pretender(BaseHTTPRequestHandler):
    """A proxy that does everything right, but for ``mistake``."""

    mistake = ""

    def do_GET(self) -> None:
        stranger = self.headers["Host"] != "localhost"
        refused = stranger and self.mistake != "host"
        self.send_response(421 if refused else 401)
        request = os.urandom(16).hex()
        if self.mistake == "request-id":
            request = self.headers.get("X-Request-ID", request)
        self.send_header("X-Request-ID", request)
        for name, value in GOOD_HEADERS.items():
            if not (self.mistake == "headers" and refused and name == "X-Frame-Options"):
                self.send_header(name, value)
        if self.mistake == "forwarded" and self.headers.get("X-Forwarded-Proto") == "https":
            self.send_header("Strict-Transport-Security", "max-age=31536000")
        self.end_headers()

    def version_string(self) -> str:
        return "pretender/1.2" if self.mistake == "server" else "pretender"

    def log_message(self, *_arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def pretend() -> Iterator[Callable[[str], proxy.Door]]:
    """Start a proxy with a mistake and return where it is."""
    servers = []

    def start(mistake: str) -> proxy.Door:
        handler = type("Mistaken", (Pretender,), {"mistake": mistake})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return proxy.Door("127.0.0.1", server.server_address[1], "localhost")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_proxy_without_a_mistake_is_believed(pretend: Callable[[str], proxy.Door]) -> None:
    assert list(proxy.judge_door(pretend(""))) == []


@pytest.mark.parametrize("mistake", ["host", "request-id", "headers", "forwarded", "server"])
def test_each_mistake_of_a_proxy_is_found(pretend: Callable[[str], proxy.Door], mistake: str) -> None:
    assert levels(proxy.judge_door(pretend(mistake))) == {f"proxy.{mistake}": "problem"}


# The archive ----------------------------------------------------------------------------------------------------------


def unpacked(archive: Path) -> dict[str, str]:
    with tarfile.open(archive) as tar:
        return {
            member.name.partition("/")[2]: held.read().decode()
            for member in tar
            if (held := tar.extractfile(member)) is not None
        }


def test_archive_is_closed_to_others_and_printed_by_name(checkout: Path, path_without_engine: str) -> None:
    done = doctor(checkout, "--bundle", PATH=path_without_engine)

    archive = Path(done.stdout.strip())
    assert done.returncode == 0, done.stderr
    assert archive.parent == checkout / "var/support"
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    assert stat.S_IMODE(archive.parent.stat().st_mode) == 0o700
    files = unpacked(archive)
    assert {"README.txt", "findings.json", "versions.json", "configuration.yaml", "containers.json"} <= set(files)
    assert json.loads(files["findings.json"])["findings"]
    assert str(checkout) not in "".join(files.values())


def test_archive_takes_the_name_that_it_is_given_and_overwrites_nothing(
    checkout: Path, path_without_engine: str
) -> None:
    done = doctor(checkout, "--bundle", "it.tar.gz", PATH=path_without_engine)
    again = doctor(checkout, "--bundle", "it.tar.gz", PATH=path_without_engine)

    # Where it was called from, not where the checkout is.
    assert (checkout.parent / "it.tar.gz").is_file(), done.stderr
    assert (done.returncode, again.returncode) == (0, 1)
    assert "is there already" in again.stderr
    assert not (checkout / "var").exists()


def test_archive_that_cannot_be_written_leaves_nothing(checkout: Path, path_without_engine: str) -> None:
    done = doctor(checkout, "--bundle", "no/such/folder/it.tar.gz", PATH=path_without_engine)

    assert done.returncode == 1
    assert "next: " in done.stderr


def test_archive_with_a_secret_in_it_is_not_written(
    checkout: Path, path_without_engine: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", path_without_engine)
    monkeypatch.setattr(Redactor, "__call__", lambda _self, text: text)
    secret = (checkout / "secrets/jwt_signing_key").read_text()
    target = checkout / "it.tar.gz"

    status = Bundle(Installation(checkout), f"found {secret}").write(target)

    said = capsys.readouterr()
    assert status == 1
    assert not target.exists()
    assert "a secret would be in the archive" in said.err
    assert secret not in said.err + said.out


def test_archive_holds_no_secret_of_the_files(checkout: Path, path_without_engine: str) -> None:
    canaries = {
        path.name: f"canary-{path.name}-Zq7-{number}" for number, path in enumerate((checkout / "secrets").iterdir())
    }
    canaries["email_url"] = "smtp+tls://canary-user:canary%40pass%2Fword@mail.example.com:587"
    for name, value in canaries.items():
        (checkout / "secrets" / name).write_text(f"{value}\n")
    with (checkout / ".env").open("a") as file:
        file.write("DB_PASWORD=canary-typo\nDATABASE_URL=postgres://u:canary-url@db/x\nNGINX_AUTH_RATE=31r/m\n")
        file.write("export MY_OWN='canary-refused' # why\n")
    of_the_shell = {"POSTGRES_PASSWORD": "canary-of-the-shell", "MY_API_TOKEN": "canary-of-another"}
    log = checkout / "var/embedded/log"
    log.parent.mkdir(parents=True)
    log.write_text(
        "\n".join([*canaries.values(), "canary@pass/word", "Bearer canary-bearer-token", "kept line"]) + "\n"
    )
    told = "\n".join([*canaries.values(), *of_the_shell.values(), "canary-refused", "kept line"]) + "\n"
    (checkout / "var/log").mkdir()
    for name in ("log/up-building-the-images.log", "log/deploy-step.log", "releases.log"):
        (checkout / "var" / name).write_text(told)

    done = doctor(checkout, "--bundle", "it.tar.gz", PATH=path_without_engine, **of_the_shell)

    files = unpacked(checkout.parent / "it.tar.gz")
    assert done.returncode == 0, done.stderr
    logs = ("embedded-log", "log-up-building-the-images.log", "log-deploy-step.log")
    for name in (*(f"logs/var-{log}" for log in logs), "releases.log"):
        assert "kept line" in files[name], name
    assert json.loads(files["variables.json"])["NGINX_AUTH_RATE"] == "31r/m"
    for name, text in files.items():
        assert "canary" not in text.lower(), name
