"""The operator's verbs: how each behaves before it does anything."""

import os
import pty
import re
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

from config.env import EX_CONFIG, Environment
from tests.deployment.conftest import ROOT

SCRIPTS = sorted(path.name for path in (ROOT / "scripts").iterdir() if path.is_file() and path.name != "lib.sh")
EMPTY = {"email_url", "database_url", "migrator_database_url", "database_root_certificate"}
"""Of the files under secrets/, those that only a person can fill."""

HANDS_ON = {"manage"}
"""The scripts that hand their arguments on, so that any word may be one."""

SHELL = [name for name in SCRIPTS if "bash" in (ROOT / "scripts" / name).read_text().splitlines()[0]]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of what the scripts need, where they can do no harm."""
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "env.example", tmp_path)
    return tmp_path


def run(
    checkout: Path,
    name: str,
    *arguments: str,
    path: Path | None = None,
    stdin: int = subprocess.DEVNULL,
    **variables: str,
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [checkout / "scripts" / name, *arguments],
        cwd="/",
        env={
            "PATH": f"{path}:{os.environ['PATH']}" if path else os.environ["PATH"],
            "HOME": str(checkout),
            "DOCKER_HOST": "unix:///nonexistent",  # what runs on this host is none of their business
            **variables,
        },
        stdin=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def files(checkout: Path) -> set[str]:
    return {path.relative_to(checkout).as_posix() for path in checkout.rglob("*") if "__pycache__" not in path.parts}


def test_lines_of_two_containers_at_once_are_shown_without_erasures() -> None:
    filtered = subprocess.run(
        ["bash", "-c", "source scripts/lib.sh; without_erasures"],
        cwd=ROOT,
        input=b"\x1b[2K\x1b[2Kbackend-1  | one\n\x1b[2Kbackend-2  | \x1b[2K\nbackend-1  | two\n",
        capture_output=True,
        check=True,
    )

    assert filtered.stdout == b"backend-1  | one\nbackend-2  | \x1b[2K\nbackend-1  | two\n"


@pytest.mark.parametrize(
    ("folder", "question"),
    [
        ("cache/pip", "var/venv/bin/python -m pip cache dir"),
        ("cache/npm", "node_of_wheel; npm . config get cache"),
        ("cache/node", "node_of_wheel; \"$NODE\" -e 'console.log(process.env.NODE_COMPILE_CACHE)'"),
        (f"buildx-{os.geteuid()}", "printenv BUILDX_CONFIG"),
    ],
)
def test_programs_keep_their_files_in_the_checkout(folder: str, question: str, tmp_path: Path) -> None:
    asked = subprocess.run(
        ["bash", "-Eeuo", "pipefail", "-c", f"source scripts/lib.sh; {question}"],
        cwd=ROOT, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert asked.stdout == f"{ROOT}/var/{folder}\n"


def test_a_builder_that_the_caller_names_is_looked_up_where_the_caller_made_it(tmp_path: Path) -> None:
    asked = subprocess.run(
        ["bash", "-Eeuo", "pipefail", "-c", "source scripts/lib.sh; echo ${BUILDX_CONFIG-unset}"],
        cwd=ROOT, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "BUILDX_BUILDER": "remote"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert asked.stdout == "unset\n"


def long_command(checkout: Path, command: str) -> "subprocess.Popen[str]":
    """Start as_progress in a process group of its own, as a terminal does."""
    script = f"set -Eeuo pipefail; source scripts/lib.sh; as_progress 'a long word' {command}"
    return subprocess.Popen(
        ["bash", "-c", script, "scripts/it"], cwd=checkout, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def test_something_long_shows_that_it_lives_and_returns_its_own_status(checkout: Path) -> None:
    with long_command(checkout, "bash -c 'echo the reason; sleep 11; exit 7'") as process:
        output, said = process.communicate(timeout=60)

    log = checkout / "var/log/it-a-long-word.log"
    assert (process.returncode, output, log.read_text()) == (7, "", "the reason\n")
    lines = [re.sub(r"\b1\d s", "N s", line) for line in said.splitlines()]
    assert lines == [
        "it: a long word ...",
        "it: a long word ... N s",
        f"it: error: a long word failed with status 7 after N s; the end of {log}:",
        "the reason",
    ]


def test_something_short_says_when_it_is_done(checkout: Path) -> None:
    with long_command(checkout, "true") as process:
        said = process.communicate(timeout=60)[1]

    assert process.returncode == 0
    assert re.fullmatch(r"it: a long word \.\.\.\nit: a long word: done in \d s\n", said)


def is_there(group: int) -> bool:
    """Return whether the group has a process."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_an_interrupt_ends_something_long_and_nothing_is_left_of_it(checkout: Path) -> None:
    with long_command(checkout, "bash -c 'echo begun; exec sleep 100'") as process:
        log = checkout / "var/log/it-a-long-word.log"
        deadline = time.monotonic() + 20
        while not (log.exists() and log.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.1)

        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=10)  # whatever is left would keep stderr open

    assert process.returncode == -signal.SIGINT
    # One that has just ended is there until whoever inherits it has noticed.
    while is_there(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_there(process.pid)


def test_verbs_of_the_first_days_are_there() -> None:
    assert {"up", "down", "test", "init", "deploy", "rollback", "install-docker", "build-base-images"} <= set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_executable(name: str) -> None:
    path = ROOT / "scripts" / name

    assert path.stat().st_mode & stat.S_IXUSR
    assert path.read_text().startswith("#!/usr/bin/env ")


def test_library_is_only_sourced() -> None:
    assert not (ROOT / "scripts/lib.sh").stat().st_mode & stat.S_IXUSR


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_script_explains_itself(checkout: Path, name: str, option: str) -> None:
    before = files(checkout)

    done = run(checkout, name, option)

    assert done.returncode == 0, done.stderr
    assert re.search(rf"(?i)^usage: (\./)?scripts/{name}", done.stdout, re.MULTILINE)
    assert len(done.stdout.splitlines()) >= 3
    assert "set -Eeuo" not in done.stdout
    assert done.stderr == ""
    assert files(checkout) == before


@pytest.mark.parametrize(
    ("name", "argument"),
    [(name, "--no-such-option") for name in SCRIPTS]
    + [(name, "no such argument") for name in SCRIPTS if name not in HANDS_ON],
)
def test_script_refuses_what_it_does_not_know_and_does_nothing(checkout: Path, name: str, argument: str) -> None:
    before = files(checkout)

    done = run(checkout, name, argument)

    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    if name in SHELL:
        assert re.search(rf"(?m)^{name}: error: .*{argument}", done.stderr)
        assert re.search(r"(?m)^  next: ", done.stderr)
    assert files(checkout) == before


@pytest.mark.parametrize("name", SHELL)
def test_script_stops_at_the_first_failure(name: str) -> None:
    assert "\nset -Eeuo pipefail\n" in (ROOT / "scripts" / name).read_text()


def test_ci_calls_the_test_command_of_the_readme() -> None:
    path = ROOT / ".ci/run"

    assert path.stat().st_mode & stat.S_IXUSR
    assert path.read_text().rstrip().endswith("exec ./scripts/test")
    assert "    ./scripts/test\n" in (ROOT / "README.md").read_text()


@pytest.fixture
def ci(checkout: Path) -> Path:
    """Return a checkout whose .ci/run finds an engine for members of its group only, and where all else is noted."""
    shutil.copytree(ROOT / ".ci", checkout / ".ci")
    note = f'echo "$(basename "$0") CI=$CI $*" >>{checkout}/calls\n'
    (checkout / "programs").mkdir()
    programs = {
        "programs/docker": f'test -n "$MEMBER" -o -e {checkout}/open\n',
        "programs/sudo": note,
        "programs/sg": f'{note}shift\nMEMBER=1 exec "$@"\n',
        "scripts/install-docker": note,
        "scripts/test": f"docker version && {note}",
    }
    for name, text in programs.items():
        (checkout / name).write_text(f"#!/bin/sh\n{text}")
        (checkout / name).chmod(0o755)
    return checkout


@pytest.mark.parametrize("may_use_the_engine", [True, False])
def test_ci_runs_the_tests_as_a_user_who_may_use_the_engine(ci: Path, may_use_the_engine: bool) -> None:
    if may_use_the_engine:
        (ci / "open").touch()
    user = subprocess.check_output(["id", "-un"], text=True).strip()
    joins = [f"sudo CI=true -n usermod --append --groups docker {user}", "sg CI=true docker ./scripts/test"]

    done = run(ci, "../.ci/run", path=ci / "programs")

    assert done.returncode == 0, done.stderr
    calls = (ci / "calls").read_text().splitlines()
    assert [call.rstrip() for call in calls] == [
        "install-docker CI=true", *([] if may_use_the_engine else joins), "test CI=true",
    ]  # fmt: skip


@pytest.mark.parametrize(("argument", "status"), [("--help", 0), ("--no-such-option", 2)])
def test_ci_explains_itself_and_installs_nothing(ci: Path, argument: str, status: int) -> None:
    done = run(ci, "../.ci/run", argument, path=ci / "programs")

    assert done.returncode == status
    assert "usage: .ci/run" in done.stdout or ".ci/run --help" in done.stderr
    assert not (ci / "calls").exists()


@pytest.mark.parametrize(("ci", "status"), [("", 0), ("true", 1)])
def test_without_an_engine_the_summary_says_what_was_not_run_and_ci_fails(checkout: Path, ci: str, status: int) -> None:
    shutil.copytree(ROOT / "backend", checkout / "backend", ignore=shutil.ignore_patterns("static", "*cache*"))
    (checkout / "var").mkdir()
    (checkout / "var/venv").symlink_to(ROOT / "var/venv")

    suites = ("stack", "clients", "browser", "operations", "deploy")

    done = run(checkout, "test", *suites, CI=ci)

    advice = "no container engine answers (./scripts/install-docker installs one)"
    assert [line for line in done.stderr.splitlines() if line.startswith("NOT RUN")] == [
        f"NOT RUN  {suite}: {advice}" for suite in suites
    ]
    assert re.fullmatch(r"took     \d+ s", done.stderr.splitlines()[-1])
    assert done.returncode == status


# init -----------------------------------------------------------------------------------------------------------------


def test_init_makes_what_is_missing(checkout: Path) -> None:
    done = run(checkout, "init")

    assert done.returncode == 0, done.stderr
    assert (checkout / ".env").read_text() == (ROOT / "env.example").read_text()
    assert stat.S_IMODE((checkout / ".env").stat().st_mode) == 0o600
    assert stat.S_IMODE((checkout / "secrets").stat().st_mode) == 0o700
    for path in (checkout / "secrets").iterdir():
        # Other users of the host cannot pass the folder; the users in the containers must read the file.
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        expected = "" if path.name in EMPTY else r"[A-Za-z0-9_-]{32,}"
        assert re.fullmatch(expected, path.read_text())


def test_init_makes_secrets_that_are_accepted_and_all_different(checkout: Path) -> None:
    run(checkout, "init")
    values = {path.name: path.read_text() for path in (checkout / "secrets").iterdir()}

    Environment.DJANGO_SECRET_KEY.parse(values["django_secret_key"])
    Environment.JWT_SIGNING_KEY.parse(values["jwt_signing_key"])
    for name in ("superuser", "migrator", "app"):
        Environment.POSTGRES_PASSWORD.parse(values[f"postgres_{name}_password"])
    assert {values.pop(name) for name in EMPTY} == {""}, "nothing elsewhere, unless somebody says where"
    assert len(set(values.values())) == len(values) == 5


def test_init_changes_nothing_that_is_there(checkout: Path) -> None:
    (checkout / ".env").write_text("DJANGO_ALLOWED_HOSTS=example.org\n")
    run(checkout, "init")
    before = {path: path.read_bytes() for path in [checkout / ".env", *(checkout / "secrets").iterdir()]}

    done = run(checkout, "init")

    assert done.returncode == 0
    assert {path: path.read_bytes() for path in before} == before
    assert (checkout / ".env").read_text() == "DJANGO_ALLOWED_HOSTS=example.org\n"


def test_init_adds_a_secret_that_is_new_and_leaves_the_others(checkout: Path) -> None:
    run(checkout, "init")
    kept = (checkout / "secrets/jwt_signing_key").read_bytes()
    (checkout / "secrets/postgres_app_password").unlink()

    done = run(checkout, "init")

    assert done.stderr == "init: made secrets/postgres_app_password\n"
    assert (checkout / "secrets/jwt_signing_key").read_bytes() == kept


def test_init_shows_no_secret(checkout: Path) -> None:
    done = run(checkout, "init")

    made = [path.read_text() for path in (checkout / "secrets").iterdir() if path.stat().st_size]
    assert len(made) == 5
    for secret in made:
        assert secret not in done.stdout + done.stderr


# manage, logs, shell --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ["manage"],
        ["shell"],
        ["shell", "nginx"],
        ["shell", "db", "backend"],
        ["shell", "db", "--bash"],
        ["shell", "db", "--role"],
        ["shell", "db", "--role", "root"],
        ["shell", "db", "--role="],
        ["shell", "backend", "--role", "app"],
        ["logs", "postgres"],
        ["logs", "--since"],
        ["logs", "--tail", "many"],
        ["logs", "--tail=-1"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_refused_with_what_to_do(checkout: Path, command: list[str]) -> None:
    before = files(checkout)

    done = run(checkout, *command)

    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"{command[0]}: error: ")
    assert f"\n  next: scripts/{command[0]} --help lists what is accepted\n" in done.stderr
    assert files(checkout) == before


@pytest.mark.parametrize(
    "command", [["manage", "check"], ["logs"], ["shell", "db"], ["shell", "backend"]], ids=" ".join
)
def test_where_nothing_was_ever_started_it_says_what_starts_it(checkout: Path, command: list[str]) -> None:
    before = files(checkout)

    done = run(checkout, *command)

    assert (done.returncode, done.stdout) == (1, "")
    assert (
        done.stderr == f"{command[0]}: error: nothing was ever started here: there is no .env\n  next: ./scripts/up\n"
    )
    assert files(checkout) == before


# up -------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def fake_engine(checkout: Path) -> Path:
    """Return a folder for PATH in which `docker` is an engine that answers and keeps what it was asked."""
    programs = checkout / "programs"
    programs.mkdir()
    (programs / "docker").write_text(
        f'#!/bin/sh\necho "$*" >>{programs}/asked\n'
        "case \"$*\" in 'compose version --short') echo 2.26.1 ;; 'version '*) echo 26.1.5 ;;\n"
        "'buildx version') echo github.com/docker/buildx v0.13.1 0 ;; *) exit 1 ;; esac\n"
    )
    (programs / "docker").chmod(0o755)
    shutil.copytree(ROOT / "backend/config", checkout / "backend/config", ignore=shutil.ignore_patterns("__pycache__"))
    return programs


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("DJANGO_ALOWED_HOSTS=x", "DJANGO_ALOWED_HOSTS is unknown. Did you mean DJANGO_ALLOWED_HOSTS?"),
        ("HTTP_PORT=c4n4ry", "HTTP_PORT is not a whole number."),
        ("POSTGRES_HOST=c4n4ry", "POSTGRES_HOST has no effect in .env."),
        ("DB_REPLICAS=0", "DATABASE_URL is missing although DB_REPLICAS is 0."),
    ],
)
def test_up_refuses_a_bad_configuration_before_it_builds_anything(
    checkout: Path, fake_engine: Path, line: str, complaint: str
) -> None:
    run(checkout, "init")
    with (checkout / ".env").open("a") as file:
        file.write(f"{line}\n")
    before = files(checkout)

    done = run(checkout, "up", "--detach", path=fake_engine)

    assert done.returncode == EX_CONFIG
    assert f"  - {complaint}" in done.stderr
    assert "c4n4ry" not in done.stderr
    asked = (fake_engine / "asked").read_text().splitlines()
    assert [words for words in asked if not re.match(r"(compose )?version ", words)] == []
    assert files(checkout) - before <= {"programs/asked"}


STANDINS = {
    "PYTHON_IMAGE": "standin/python:3.14",
    "POSTGRES_IMAGE": "standin/postgres:18",
    "NGINX_IMAGE": "standin/nginx:1.30",
    "DEBIAN_IMAGE": "standin/debian:forky",
}
NO_REGISTRY = "dial tcp: lookup registry.invalid on 192.0.2.1:53: no such host"


@pytest.fixture
def pulls(checkout: Path, fake_engine: Path) -> Path:
    """Return the folder for PATH of an engine without any image: a pull fails with what `says` holds, and builds stop.

    Stand-ins cannot be built either: it is only noted that they were asked for.
    """
    made = "".join(f"{name}={image}\\n" for name, image in STANDINS.items())
    (checkout / "scripts/build-base-images").write_text(f"#!/bin/sh\necho >>{fake_engine}/built\nprintf '{made}'\n")
    docker = fake_engine / "docker"
    docker.write_text(
        docker.read_text().replace("; *) exit 1", f"; pull*) cat {fake_engine}/says >&2; exit 1 ;; *) exit 1")
    )
    (fake_engine / "says").write_text(f"Error response from daemon: {NO_REGISTRY}\n")
    run(checkout, "init")
    return fake_engine


def test_up_without_a_registry_builds_the_base_images_and_remembers_them_once(checkout: Path, pulls: Path) -> None:
    # At the build of the stack's own images it stops.
    first, second = (run(checkout, "up", "--detach", path=pulls) for _ in range(2))

    assert "up: no image registry can be reached\n" in first.stderr
    assert "up: no image registry can be reached\n" not in second.stderr
    for done in (first, second):
        assert "up: building stand-ins for the base images from Debian packages\n" in done.stderr
        assert "up: warning: the base images are stand-ins, not for release: to pull the official ones" in done.stderr
        assert done.returncode == 1
    asked = (pulls / "asked").read_text().splitlines()
    assert [words for words in asked if words.startswith("pull ")] == ["pull --quiet python:3.14-slim-trixie"]
    assert len((pulls / "built").read_text().splitlines()) == 2
    chosen = (checkout / ".env").read_text()
    for name, image in STANDINS.items():
        assert re.findall(rf"(?m)^{name}=(.*)$", chosen) == [image]
    assert asked[-1].endswith(" build"), "the images of the stack, on top of them"
    assert not (checkout / ".env.new").exists()


@pytest.mark.parametrize(
    "says",
    [
        "pull access denied for python, repository does not exist or may require 'docker login'",
        "manifest for python:3.14-slim-trixie not found: manifest unknown: manifest unknown",
        "toomanyrequests: You have reached your unauthenticated pull rate limit.",
        "failed to register layer: write /usr/lib/x: no space left on device",
        "",  # it took too long
    ],
)
def test_up_takes_no_other_failure_of_a_pull_for_a_registry_that_is_away(
    checkout: Path, pulls: Path, says: str
) -> None:
    (pulls / "says").write_text(says)
    before = (checkout / ".env").read_text()

    done = run(checkout, "up", "--detach", path=pulls)

    assert done.returncode == 1
    assert says in done.stderr
    assert "up: error: python:3.14-slim-trixie cannot be pulled\n  next: mend what the log above names" in done.stderr
    assert not (pulls / "built").exists()
    assert (checkout / ".env").read_text() == before


def test_up_replaces_no_image_that_somebody_chose(checkout: Path, pulls: Path) -> None:
    with (checkout / ".env").open("a") as file:
        file.write("NGINX_IMAGE=registry.invalid/nginx:1.30\n")
    before = (checkout / ".env").read_text()

    done = run(checkout, "up", "--detach", path=pulls)

    assert done.returncode == 1
    assert "up: error: registry.invalid/nginx:1.30, which NGINX_IMAGE names, cannot be pulled" in done.stderr
    assert not (pulls / "built").exists()
    assert (checkout / ".env").read_text() == before


def test_up_uses_an_image_that_somebody_chose_beside_stand_ins(checkout: Path, pulls: Path) -> None:
    docker = pulls / "docker"
    docker.write_text(docker.read_text().replace("; pull*)", "; 'image inspect my/nginx') ;; pull*)"))
    with (checkout / ".env").open("a") as file:
        file.write("NGINX_IMAGE=my/nginx\n")

    done = run(checkout, "up", "--detach", path=pulls)

    assert "up: building stand-ins for the base images" in done.stderr
    chosen = (checkout / ".env").read_text()
    assert {name: re.findall(rf"(?m)^{name}=(.*)$", chosen) for name in STANDINS} == {
        name: ["my/nginx" if name == "NGINX_IMAGE" else image] for name, image in STANDINS.items()
    }


def test_the_base_images_of_up_are_those_of_the_registry_of_variables() -> None:
    written = dict(re.findall(r"\[(\w+_IMAGE)\]=(\S+)", (ROOT / "scripts/up").read_text()))

    assert written == {name: getattr(Environment, name).default for name in STANDINS}


def test_embedded_up_refuses_the_address_of_another_database(checkout: Path, fake_engine: Path) -> None:
    run(checkout, "init")
    (checkout / "secrets/database_url").write_text("postgresql://")

    done = run(checkout, "up", "--embedded", path=fake_engine)

    assert done.returncode == 1
    assert "the embedded stack has a database of its own" in done.stderr
    assert "  next: empty secrets/database_url" in done.stderr


# down -----------------------------------------------------------------------------------------------------------------


def test_down_with_volumes_asks_first_and_without_a_terminal_does_nothing(checkout: Path) -> None:
    data = checkout / "var/embedded/postgres"
    data.mkdir(parents=True)

    done = run(checkout, "down", "--volumes")

    assert done.returncode == 1
    assert "next: add --yes" in done.stderr
    assert data.exists()


@pytest.mark.parametrize(("answer", "kept"), [("no", True), ("", True), ("y", True), ("yes", False)])
def test_down_with_volumes_asks_at_a_terminal(checkout: Path, answer: str, kept: bool) -> None:
    data = checkout / "var/embedded/postgres"
    data.mkdir(parents=True)
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())

    try:
        done = run(checkout, "down", "--volumes", stdin=theirs)
    finally:
        os.close(ours)
        os.close(theirs)

    assert "This destroys every account and transaction of this stack (project transactions). Type yes" in done.stderr
    assert data.exists() is kept
    assert (done.returncode, "down: error: nothing was changed\n" in done.stderr) == (int(kept), kept)


# install-docker, build-base-images ------------------------------------------------------------------------------------


def test_install_docker_changes_nothing_where_an_engine_answers(checkout: Path, fake_engine: Path) -> None:
    for name in ("apt-get", "apt-cache", "systemctl", "dockerd", "sudo", "ln"):
        (fake_engine / name).write_text(f'#!/bin/sh\necho "{name} $*" >>{fake_engine}/changed\nexit 1\n')
        (fake_engine / name).chmod(0o755)
    before = files(checkout)

    done = run(checkout, "install-docker", path=fake_engine)

    assert done.returncode == 0, done.stderr
    assert done.stderr == (
        "install-docker: nothing to do: an engine already answers\n"
        "install-docker: engine 26.1.5, Compose 2.26.1, Buildx v0.13.1\n"
    )
    assert files(checkout) - before == {"programs/asked"}


@pytest.fixture
def engine_with_images(checkout: Path, fake_engine: Path) -> Path:
    """Return a folder for PATH whose engine has every image, and never a recipe that is not the present one.

    What the recipe is, the script says itself: its hash of files is a program too.
    """
    (fake_engine / "docker").write_text(
        f'#!/bin/sh\necho "$*" >>{fake_engine}/asked\n'
        "case \"$*\" in 'version '*) echo 26.1.5 ;;\n"
        "*'index .Config.Labels \"standin.recipe\"'*) echo recipe ;;\n"
        "'image inspect --format {{.Id}} '*) echo sha256:1 ;; *) exit 1 ;; esac\n"
    )
    (fake_engine / "sha256sum").write_text("#!/bin/sh\ncat >/dev/null\necho 'recipe  -'\n")
    (fake_engine / "sha256sum").chmod(0o755)
    return fake_engine


def test_build_base_images_builds_nothing_that_is_up_to_date(checkout: Path, engine_with_images: Path) -> None:
    done = run(checkout, "build-base-images", "--mirror", "http://mirror.invalid/debian", path=engine_with_images)

    assert done.returncode == 0, done.stderr
    images = ["standin/debian:forky", "standin/python:3.14", "standin/postgres:18", "standin/nginx:1.30"]
    assert done.stderr.splitlines() == [f"build-base-images: {image} is up to date" for image in images]
    assert re.findall(r"(?m)^[A-Z]+_IMAGE=(.+)$", done.stdout) == images
    asked = (engine_with_images / "asked").read_text().splitlines()
    assert [words for words in asked if not words.startswith(("version ", "image inspect "))] == []


# deploy, rollback -----------------------------------------------------------------------------------------------------


def history(checkout: Path, *entries: str) -> None:
    """Write var/releases.log; an entry is the action, the release and the outcome."""
    lines = [entry.split(maxsplit=2) for entry in entries]
    text = "".join(
        f"2026-11-23T10:00:00Z\t{action}\t{number}\t{release}\t{outcome}\n"
        for number, (action, release, outcome) in enumerate(lines)
    )
    (checkout / "var").mkdir()
    (checkout / "var/releases.log").write_text(text)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (["up a in service", "deploy b in service"], "a"),
        (["up a in service", "deploy b in service", "deploy c started", "deploy c failed: x"], "a"),
        (["up a in service", "deploy b in service", "deploy b in service"], "a"),
        (["up a in service", "deploy b in service", "deploy c in service", "rollback b in service"], "a"),
        (["up a in service", "deploy b in service", "rollback a in service", "deploy c in service"], "a"),
        (["up a in service", "deploy b in service", "recovered b in service", "deploy c in service; the end"], "b"),
    ],
)
def test_rollback_takes_the_release_before_the_one_in_service(
    checkout: Path, entries: list[str], expected: str
) -> None:
    history(checkout, *entries)
    (checkout / "scripts/deploy").write_text('#!/usr/bin/env bash\necho "$@"\n')

    done = run(checkout, "rollback", "--plan")

    assert done.stdout == f"--rollback --plan {expected}\n", done.stderr


@pytest.mark.parametrize("entries", [[], ["up a in service"], ["up a in service", "deploy b failed: x"]])
def test_rollback_without_a_release_before_says_what_to_do(checkout: Path, entries: list[str]) -> None:
    history(checkout, *entries)

    done = run(checkout, "rollback")

    assert done.returncode == 1
    assert "next: ./scripts/deploy RELEASE" in done.stderr
