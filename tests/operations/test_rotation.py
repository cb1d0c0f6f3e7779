"""Secrets replaced while people are at work: no request fails, nobody is signed out, and the old secret ends."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest

from tests.operations.test_doctor import examine, wrong
from tests.stack.containers import Result, Stack, eventually, run
from tests.stack.load import Load
from tests.stack.people import Person, connect, unique

pytestmark = pytest.mark.timeout(400)

ROLES = ("app", "migrator")
FILES = {"jwt": "jwt_signing_key", "django": "django_secret_key", "postgres": "postgres_app_password"}
WEEKS = 30 * 86400
READ = """from django.core import signing
try:
    print(signing.loads({!r}))
except signing.BadSignature as error:
    print(type(error).__name__)
"""
ADMIN, LOGIN = "/admin/", "/admin/login/"


def init(stack: Stack, *arguments: str, check: bool = True) -> Result:
    return run(str(stack.checkout / "scripts/init"), *arguments, check=check, timeout=300)


def lines(stack: Stack, name: str) -> list[str]:
    return (stack.checkout / "secrets" / name).read_text().split()


@pytest.fixture
def whole(stack: Stack) -> Iterator[Stack]:
    """The stack; afterwards it must be whole, with as many backends as before, all of them new."""
    before = stack.containers("backend")
    yield stack
    stack.wait_until_whole()
    after = stack.containers("backend")
    assert len(after) == len(before) == 2
    assert not set(before) & set(after)
    # What was made is what Compose would make: the next `up` replaces nothing.
    stack.compose("up", "--detach", "--no-build", "--wait")
    assert set(stack.containers("backend")) == set(after)
    assert not list((stack.checkout / "secrets").glob("*.n*")), "something is half done"
    assert wrong(examine(stack)) == {}


def accepts(stack: Stack, role: str, password: str) -> bool:
    """Whether the database takes the password, over the network as from a backend."""
    db = stack.container("db")
    address = db.address(f"{stack.name()}_data")
    ask = 'read -r PGPASSWORD; export PGPASSWORD; exec psql -X -At -h "$0" -U "$1" -d transactions -c "SELECT 1"'
    command = ("docker", "exec", "--interactive", db.id, "bash", "-c", ask, address, role)
    return run(*command, check=False, input=f"{password}\n").stdout == "1\n"


def in_django(stack: Stack, program: str) -> str:
    """Run a line in a backend."""
    return stack.container("backend").execute("python", "manage.py", "shell", "--no-imports", "-c", program).stdout


def test_the_key_of_tokens_is_replaced_and_in_the_end_the_old_one_is_gone(whole: Stack, alice: Person) -> None:
    (old,) = lines(whole, FILES["jwt"])[:1]

    with Load(whole) as load:
        said = init(whole, "--rotate", "jwt").stderr

    load.assert_whole()
    new, *others = lines(whole, FILES["jwt"])
    assert new != old
    assert old in others
    assert new not in said
    assert alice.client.get("/auth/users/me/").status_code == HTTPStatus.OK

    early = init(whole, "--rotate", "jwt", "--finish", check=False)

    assert early.returncode == 1
    assert re.search(r"may be good until 20[0-9-]+ [0-9:]+", early.stderr)
    assert lines(whole, FILES["jwt"]) == [new, *others]

    file = whole.checkout / "secrets" / FILES["jwt"]
    os.utime(file, (time.time() - WEEKS, time.time() - WEEKS))
    with Load(whole) as load:
        init(whole, "--rotate", "jwt", "--finish")

    load.assert_whole()
    assert lines(whole, FILES["jwt"]) == [new]
    assert alice.client.get("/auth/users/me/").status_code == HTTPStatus.UNAUTHORIZED


@pytest.fixture
def admin_site(stack: Stack) -> Iterator[Callable[[], httpx.Client]]:
    """The admin site, switched on for the test; signs its administrator in, each time as another browser."""
    env = stack.checkout / ".env"
    before = env.read_bytes()
    env.write_bytes(before + b"\nDJANGO_ADMIN_ENABLED=true\n")
    name = unique("root")
    with ExitStack() as browsers:
        try:
            stack.compose("up", "--detach", "--no-build", "--wait")
            password = run(str(stack.checkout / "scripts/manage"), "create_admin", name, "--generate").stdout.strip()

            def sign_in() -> httpx.Client:
                browser = browsers.enter_context(connect(stack.base_url))
                browser.get(LOGIN)
                form = {"username": name, "password": password, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
                assert browser.post(LOGIN, data=form).status_code == HTTPStatus.FOUND
                return browser

            yield sign_in
        finally:
            env.write_bytes(before)
            stack.compose("up", "--detach", "--no-build", "--wait")


def is_signed_in(browser: httpx.Client) -> bool:
    """Whether the admin site knows the browser; otherwise it sends it to where passwords are asked for."""
    answer = browser.get(ADMIN)
    assert answer.status_code == HTTPStatus.OK or answer.headers["Location"].startswith(LOGIN)
    return answer.status_code == HTTPStatus.OK


def test_the_key_of_django_is_replaced_and_what_the_old_one_has_signed_stays_good_until_it_is_gone(
    admin_site: Callable[[], httpx.Client], whole: Stack
) -> None:
    signed = in_django(whole, "from django.core import signing; print(signing.dumps('kept'))").strip()
    used, idle = admin_site(), admin_site()
    (old,) = lines(whole, FILES["django"])[:1]

    with Load(whole) as load:
        init(whole, "--rotate", "django")

    load.assert_whole()
    assert lines(whole, FILES["django"])[0] != old
    assert old in lines(whole, FILES["django"])
    assert in_django(whole, READ.format(signed)) == "kept\n"
    again = in_django(whole, "from django.core import signing; print(signing.dumps('kept'))").strip()
    without = f"from django.core import signing; print(signing.loads({again!r}, fallback_keys=[]))"
    assert in_django(whole, without) == "kept\n", "the new key does not sign"
    assert is_signed_in(used)

    early = init(whole, "--rotate", "django", "--finish", check=False)

    assert early.returncode == 1
    assert re.search(r"may be good until 20[0-9-]+ [0-9:]+", early.stderr)
    assert old in lines(whole, FILES["django"])

    file = whole.checkout / "secrets" / FILES["django"]
    os.utime(file, (time.time() - WEEKS, time.time() - WEEKS))
    init(whole, "--rotate", "django", "--finish")

    assert old not in lines(whole, FILES["django"])
    assert in_django(whole, READ.format(signed)) == "BadSignature\n"
    # Django signs a session again with the new key when it is used.
    assert is_signed_in(used)
    assert not is_signed_in(idle)


def test_the_passwords_of_the_database_are_replaced_and_the_old_ones_refused(whole: Stack) -> None:
    names = {f"transactions_{role}": f"postgres_{role}_password" for role in ROLES}
    names["postgres"] = "postgres_superuser_password"
    old = {role: lines(whole, name)[0] for role, name in names.items()}
    assert all(accepts(whole, role, password) for role, password in old.items())

    with Load(whole) as load:
        init(whole, "--rotate", "postgres")

    load.assert_whole()
    for role, name in names.items():
        (new,) = lines(whole, name)
        assert accepts(whole, role, new)
        assert not accepts(whole, role, old[role])
    # Who is to change the schema signs in too, and so does a backend that was restarted.
    whole.compose("run", "--rm", "--no-deps", "--no-TTY", "migrate")
    whole.container("backend").execute("kill", "-TERM", "1", check=False)


def test_a_password_that_the_database_refuses_is_named_and_can_be_given_to_it(stack: Stack) -> None:
    stack.sql("ALTER ROLE transactions_migrator PASSWORD 'another-one'")
    try:
        migrate = ("run", "--rm", "--no-deps", "--no-TTY", "migrate")

        refused = stack.compose(*migrate, check=False)
        # As docs/runbook.md has it, "The database refuses a password": a new container sees the files as they are now.
        stack.compose("up", "--detach", "--no-build", "--force-recreate", "--wait", "db")
        stack.compose("exec", "--no-TTY", "db", "/docker-entrypoint-initdb.d/10-roles.sh")
        stack.compose(*migrate)
    finally:
        (password,) = lines(stack, "postgres_migrator_password")
        stack.sql(f"ALTER ROLE transactions_migrator PASSWORD '{password}'")
        stack.wait_until_whole()

    assert refused.returncode == 1
    origin = "POSTGRES_PASSWORD from /run/secrets/postgres_migrator_password; "
    assert f"it refuses the password of the role transactions_migrator, {origin}" in refused.stderr
    assert "Traceback" not in refused.stderr


def interrupted(stack: Stack, secret: str, moment: str, *, when: Callable[[], object] = lambda: time.sleep(1)) -> None:
    """Begin a rotation; when it has said ``moment`` and ``when`` returns, kill it with everything it has started."""
    path = str(stack.checkout / "scripts/init")
    with subprocess.Popen(
        [path, "--rotate", secret], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as rotation:
        assert rotation.stderr
        for line in rotation.stderr:
            if moment in line:
                when()
                os.killpg(rotation.pid, signal.SIGKILL)
                break
    assert rotation.returncode == -signal.SIGKILL, f"it never said {moment!r}"


@pytest.mark.parametrize(
    ("secret", "moment"),
    [
        ("jwt", "replacing the backends: 2 of 2"),
        ("jwt", "2 of 2: the new key signs"),
        ("django", "replacing the backends: 1 of 2"),
        ("django", "2 of 2: the new key signs"),
        ("postgres", "replacing the backends: 1 of 2"),
    ],
)
def test_a_rotation_that_was_killed_is_ended_by_the_next(whole: Stack, secret: str, moment: str) -> None:
    old = lines(whole, FILES[secret])

    with Load(whole) as load:
        interrupted(whole, secret, moment)
        said = init(whole, "--rotate", secret).stderr

    assert "going on with a rotation that was interrupted" in said
    load.assert_whole()
    kept = lines(whole, FILES[secret])
    assert kept[0] not in old
    assert kept[1:] == ([] if secret == "postgres" else old)


def test_a_rotation_that_was_killed_between_the_database_and_the_file_is_ended_by_the_next(whole: Stack) -> None:
    role, name = "transactions_app", FILES["postgres"]
    (old,) = lines(whole, name)
    # Whoever changes the role next waits for this, and goes on when it is undone.
    hold = f"BEGIN; ALTER ROLE {role} CONNECTION LIMIT -1; SELECT pg_sleep(600)"
    psql = f"psql -X -h 127.0.0.1 -U postgres -d transactions -c '{hold}' >/dev/null 2>&1 &"
    whole.container("db").execute("sh", "-c", psql)
    of_holder = "query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()"
    waiting = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'ALTER ROLE%PASSWORD%' AND wait_event_type = 'Lock'"

    with Load(whole) as load:
        interrupted(
            whole,
            "postgres",
            "2 of 2: the database gets them",
            when=lambda: eventually(lambda: whole.sql(waiting).stdout, within=30, what="the password is changed"),
        )
        whole.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {of_holder}")  # noqa: S608
        new, *others = lines(whole, name)
        eventually(lambda: accepts(whole, role, new), within=10, what="the database has the new password")
        said = init(whole, "--rotate", "postgres").stderr

    assert others == [old], "the file was written before it was killed"
    assert "going on with a rotation that was interrupted" in said
    load.assert_whole()
    (kept,) = lines(whole, name)
    assert kept == new
    assert accepts(whole, role, kept)
    assert not accepts(whole, role, old)


def test_nothing_is_rotated_while_a_lifetime_is_not_read_alike(stack: Stack) -> None:
    env = stack.checkout / ".env"
    before, keys = env.read_bytes(), lines(stack, FILES["jwt"])
    env.write_bytes(before + b"\nexport JWT_REFRESH_LIFETIME_HOURS=720\n")
    try:
        refused = init(stack, "--rotate", "jwt", check=False)
    finally:
        env.write_bytes(before)

    assert refused.returncode == 78
    assert "JWT_REFRESH_LIFETIME_HOURS in line" in refused.stderr
    assert lines(stack, FILES["jwt"]) == keys


@pytest.mark.parametrize("secret", ["jwt", "django", "postgres"])
def test_nothing_is_rotated_where_nothing_runs(stack: Stack, tmp_path: Path, secret: str) -> None:
    run("cp", "-r", *(str(stack.checkout / name) for name in ("scripts", "env.example")), str(tmp_path))
    for compose in stack.checkout.glob("docker-compose*.yml"):
        (tmp_path / compose.name).write_bytes(compose.read_bytes())
    environment = {**os.environ, "COMPOSE_PROJECT_NAME": f"{stack.name()}-nobody"}

    path = str(tmp_path / "scripts/init")
    result = run(path, "--rotate", secret, check=False, env=environment)

    assert result.returncode == 1
    assert "no backend is running" in result.stderr
    assert len((tmp_path / "secrets" / FILES[secret]).read_text().split()) == 1
