"""./scripts/deploy and ./scripts/rollback under constant load: nobody notices, whatever goes wrong.

DEPLOYS, ROLLBACKS and KILLS set how many; .github/workflows/deployments.yml has a full run.
"""

import json
import os
import random
import shutil
import signal
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest

from tests.deploy.conftest import IMAGES, Site, kill_at_once
from tests.operations.certificates import Authority, Files
from tests.stack.containers import PATIENCE, Stack, docker, eventually, free_port, run
from tests.stack.images import built
from tests.stack.load import Load
from tests.stack.people import connect, sign_up

ROOT = Path(__file__).resolve().parents[2]
DEPLOYS = int(os.environ.get("DEPLOYS", "3"))
ROLLBACKS = int(os.environ.get("ROLLBACKS", "1"))
LIST = "/api/transactions/"
KILLS = int(os.environ.get("KILLS", "2"))
ONE_SECONDS = 180
"""The longest that one deployment takes on a machine that has other things to do."""

pytestmark = pytest.mark.timeout(ONE_SECONDS * 3)

CRASHES = "RUN echo 'raise RuntimeError(\"broken on purpose\")' >> /app/config/wsgi.py"
CANNOT_START = "RUN echo 'raise RuntimeError(\"broken on purpose\")' >> /app/config/settings.py"
ANSWERS_500 = r"""RUN printf '%s\n' 'healthy = application' 'def application(environ, start_response):' \
    '    if environ["PATH_INFO"].startswith("/api"):' \
    '        start_response("500 Broken", [("Content-Length", "0")])' \
    '        return [b""]' \
    '    return healthy(environ, start_response)' >> /app/config/wsgi.py"""
LATEST = max(path.stem for path in (ROOT / "backend/transactions/migrations").glob("[0-9]*.py"))
BAD_MIGRATION = rf"""RUN printf '%s\n' 'from django.db import migrations' 'class Migration(migrations.Migration):' \
    '    dependencies = [("transactions", "{LATEST}")]' \
    '    operations = [migrations.RunSQL("SELECT broken_on_purpose")]' > /app/transactions/migrations/0999_bad.py"""
SLOW_TABLE = rf"""RUN printf '%s\n' 'from django.db import migrations' 'class Migration(migrations.Migration):' \
    '    dependencies = [("transactions", "{LATEST}")]' \
    '    operations = [migrations.RunSQL("ALTER TABLE django_migrations ADD COLUMN note text")]' \
    > /app/transactions/migrations/0998_note.py"""
BAD_NGINX = "RUN echo 'broken_on_purpose;' >> /etc/nginx/snippets/compression.conf"
# A program may end in what nobody reads; it does the same, and is not the same.
ANOTHER_PROGRAM = "RUN echo another >> $(command -v nginx)"
NGINX_DOES_NOT_START = r"""RUN mv $(command -v nginx) /tmp/nginx \
    && printf '#!/bin/sh\ncase "$*" in *-t* | -v) exit 0 ;; esac\nexit 1\n' > /usr/sbin/nginx \
    && chmod 0755 /usr/sbin/nginx"""
ENTRY_POINT_ENDS = r"""RUN sed -i 's|^    /0)$|&\n      echo broken on purpose >\&2; exit 1|' /entrypoint.sh"""
MOMENT_SECONDS = 3
"""The longest that the port refuses connections, on a host of its own."""

NO_STATIC_FILES = "RUN sed -i 's|include snippets/static-files.conf;|return 404;|' /etc/nginx/snippets/application.conf"
NOTHING_OVER_TLS = r"""RUN sed -i 's|include snippets/application.conf;|location / { return 404; }|' \
    /etc/nginx/servers/https.conf.template"""
NO_UPKEEP = "RUN echo 'raise RuntimeError(\"broken on purpose\")' >> /app/config/management/commands/upkeep.py"
SLOW_WITH_HEADER = r"""RUN printf '%s\n' 'import time' 'quick = application' \
    'def application(environ, start_response):' \
    '    time.sleep(float(environ.get("HTTP_X_SLOW", "0")))' \
    '    return quick(environ, start_response)' >> /app/config/wsgi.py"""
HARMLESS_MIGRATION = rf"""RUN printf '%s\n' 'from django.db import migrations' \
    'class Migration(migrations.Migration):' \
    '    dependencies = [("transactions", "{LATEST}")]' \
    '    operations = [migrations.RunSQL("SELECT 1", "SELECT 1")]' > /app/transactions/migrations/0997_harmless.py"""
ADDED_COLUMN = rf"""RUN printf '%s\n' 'from django.db import migrations' \
    'class Migration(migrations.Migration):' \
    '    dependencies = [("transactions", "{LATEST}")]' \
    '    operations = [migrations.RunSQL("ALTER TABLE transactions_transaction ADD COLUMN note text")]' \
    > /app/transactions/migrations/0996_note.py"""
MIGRATE_LOCK = 7262001
IMPATIENT = "RUN sed -i 's/^LOCK_SECONDS = .*/LOCK_SECONDS = 3/' /app/config/management/commands/migrate.py"
KNOWS_NO_THREADS = (
    "RUN grep -rl GUNICORN_THREADS /app --include=*.py | xargs sed -i s/GUNICORN_THREADS/GUNICORN_STRINGS/g"
)
SERVICE = "services: {{backup: {{image: nothing, network_mode: none, profiles: [{profiles}]}}}}\n"
BACKUP = """#!/usr/bin/env bash
set -e
docker compose exec -T db psql -X -At -h 127.0.0.1 -U postgres -d transactions \\
  -c "SELECT count(*) FROM django_migrations WHERE name = '0997_harmless'" >>var/backups
echo "the backup ran"
! [[ -e var/no-room ]]
"""
"""Stands for whatever makes one: it notes what was migrated by then."""

SLOW_COMPOSE = """#!/usr/bin/env bash
set -e
[[ $* == *" config --services" ]] || exec {docker} "$@"
{docker} "$@" | sort | while read -r name; do echo "$name"; sleep 0.1; done
"""

SLOW_STOP = """#!/usr/bin/env bash
[[ $* == "stop {container}" ]] || exec {docker} "$@"
{docker} "$@"
sleep 600
"""

CLEARS_UP = "an earlier run did not end: "

BROKEN = {
    "it crashes": ({"backend": CRASHES}, "not healthy", "broken on purpose"),
    "it cannot start": ({"backend": CANNOT_START}, "the application refuses its configuration", "broken on purpose"),
    "it answers with errors": ({"backend": ANSWERS_500}, "/api/transactions/ of a new backend answered 500", ""),
    "its migration fails": ({"backend": BAD_MIGRATION}, "a migration failed", "broken_on_purpose"),
    "its static files are missing": (
        {"nginx": NO_STATIC_FILES},
        "the API does not answer as it should",
        "answered 404",
    ),
    "its static files are missing, and its nginx is another": (
        {"nginx": f"{NO_STATIC_FILES}\n{ANOTHER_PROGRAM}"},
        "the API does not answer as it should",
        "answered 404",
    ),
    "its nginx does not start": (
        {"nginx": NGINX_DOES_NOT_START},
        "nginx did not take the new configuration",
        "did not start",
    ),
    "its upkeep ends": ({"backend": NO_UPKEEP}, "not healthy", "broken on purpose"),
    "nginx refuses it": ({"nginx": BAD_NGINX}, "nginx refuses its configuration", "broken_on_purpose"),
}


def serving(site: Site) -> str:
    """Return the release in service."""
    return site.backends()[-1]


@pytest.mark.timeout(ONE_SECONDS * (DEPLOYS + ROLLBACKS))
def test_deployments_and_rollbacks_drop_no_request(site: Site, load: Load) -> None:
    nginx = site.nginx_id()
    served = [serving(site)]

    for number in range(DEPLOYS):
        served.append(site.release(nginx=ANOTHER_PROGRAM if number % 2 else ""))
        site.script("deploy", served[-1])
        site.assert_serves(served[-1])
    for _ in range(min(ROLLBACKS, DEPLOYS)):
        served.pop()
        site.script("rollback")
        site.assert_serves(served[-1])

    assert site.nginx_id() == nginx, "nginx was restarted"
    assert load.failures == []


@pytest.fixture
def registry(site: Site, checkout: Path) -> Iterator[str]:
    """An empty registry of images, from which the site gets its own for as long as the test runs."""
    name, port = f"{site.stack.name()}-registry", free_port()
    docker("rm", "--force", name, check=False)  # what a run that was killed has left
    docker(
        *("run", "--detach", "--init", "--name", name, "--publish", f"127.0.0.1:{port}:5000"),
        *(
            "--cap-drop",
            "ALL",
            "--read-only",
            "--tmpfs",
            "/tmp:mode=1777,size=1g",
            built("registry", checkout),
        ),
    )
    address = f"127.0.0.1:{port}"
    names = {"BACKEND_IMAGE": f"{address}/transactions-backend", "NGINX_PROXY_IMAGE": f"{address}/transactions-nginx"}
    try:
        with httpx.Client(trust_env=False) as client:
            eventually(lambda: answers(client, f"http://{address}/v2/"), within=20, what="the registry answers")
        with site.configured(**names):
            yield address
        site.script("deploy", site.release())
    finally:
        reference = ("--filter", f"reference={address}/transactions-*")
        for image in docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", *reference).stdout.split():
            docker("image", "rm", "--force", image, check=False)
        docker("rm", "--force", name, check=False)


def answers(client: httpx.Client, url: str) -> bool:
    """Whether somebody answers there, and well."""
    try:
        return client.get(url).status_code == HTTPStatus.OK
    except httpx.HTTPError:
        return False


@pytest.fixture
def deployed(site: Site) -> str:
    """A release that was deployed, and is in service."""
    if serving(site) == site.first:
        site.script("deploy", site.release())
    return serving(site)


def test_what_is_in_service_is_not_deployed_again(site: Site, deployed: str) -> None:
    site.script("deploy", "--force", deployed)
    before = site.stack.containers("backend")

    again = site.script("deploy", deployed)

    assert "nothing to do" in again.stderr
    assert site.stack.containers("backend") == before


def test_a_plan_says_what_would_be_done_and_does_nothing(site: Site) -> None:
    release, before = site.release(), (site.stack.containers("backend"), site.variables(), site.history())

    plan = site.script("deploy", "--plan", release).stdout

    assert f"release {before[1]['RELEASE']} (" in plan
    assert f"release {release} (" in plan
    assert "beside" in plan
    assert (site.stack.containers("backend"), site.variables(), site.history()) == before


def test_a_plan_says_what_a_deployment_would_refuse_for_the_connections_of_both(site: Site) -> None:
    release = site.release()

    sound = site.script("deploy", "--plan", release)
    with site.configured(POSTGRES_MAX_CONNECTIONS="20"):
        plan = site.script("deploy", "--plan", release)

    refused = f"release {release} would not be deployed: "
    assert f"{refused}old and new backends together may hold" in plan.stderr
    assert "\n  next: raise POSTGRES_MAX_CONNECTIONS to " in plan.stderr
    assert f"To deploy:  release {release} (" in plan.stdout
    assert refused not in sound.stderr


def test_another_image_of_the_database_is_of_no_concern_where_that_is_elsewhere(site: Site) -> None:
    release, urls = site.release(), [site.stack.checkout / f"secrets/{name}database_url" for name in ("", "migrator_")]
    lines = f"FROM transactions-db:{site.first}\nUSER 0\nRUN echo >>/usr/local/share/transactions/roles.sql\n"
    run("docker", "build", "--quiet", "--tag", f"transactions-db:{release}", "-", input=lines, timeout=120)

    own = site.script("deploy", "--plan", release).stderr
    try:
        for url, role in zip(urls, ("app", "migrator"), strict=True):
            url.write_text(f"postgresql://transactions_{role}:{'long-enough' * 2}@192.0.2.1/transactions")
        with site.configured(DB_REPLICAS="0", POSTGRES_CONNECT_TIMEOUT_SECONDS="2"):
            elsewhere = site.script("deploy", "--plan", release).stderr
    finally:
        for url in urls:
            url.write_text("")

    advice = f"DB_RELEASE={release} in .env"
    assert advice in own
    assert advice not in elsewhere


@pytest.mark.usefixtures("deployed")
def test_compose_agrees_with_what_was_deployed(site: Site) -> None:
    servers = ("db", "backend", "upkeep", "nginx")
    before = {service: site.stack.containers(service) for service in servers}

    site.stack.compose("up", "--detach", "--no-build", "--wait", check=False)

    assert {service: site.stack.containers(service) for service in servers} == before


def test_nginx_serves_the_same_after_a_restart_and_in_a_new_container(site: Site, deployed: str) -> None:
    for command in (["restart"], ["up", "--detach", "--no-build", "--no-deps", "--force-recreate"]):
        site.stack.compose(*command, "nginx")

        eventually(site.stack.is_ready, within=15, what="nginx serves again")
        assert deployed in site.static_files()


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_release_leaves_the_old_one_serving_and_says_what_to_do(fault: str, site: Site, load: Load) -> None:
    lines, reason, detail = BROKEN[fault]
    before, program, broken = serving(site), site.nginx_program(), site.release(**lines)

    done = site.script("deploy", broken, check=False)

    assert done.returncode == 1
    assert f"release {broken} was not deployed: " in done.stderr
    assert reason in done.stderr
    assert detail in done.stderr
    assert f"release {before} serves as before" in done.stderr
    assert "\n  next: " in done.stderr
    site.assert_serves(before)
    assert site.nginx_program() == program
    assert site.history()[-1][2] == broken
    assert site.history()[-1][3].startswith("failed: ")
    assert load.failures == []


def test_another_nginx_takes_the_place_of_the_one_that_runs(site: Site, seed: int) -> None:
    container, own = site.nginx_id(), site.nginx_program("/usr/sbin/nginx")
    another, same = site.release(nginx=ANOTHER_PROGRAM), site.release(nginx=ANOTHER_PROGRAM)

    with Load(site.stack, seed=seed) as load:
        site.script("deploy", another)
        site.assert_serves(another)
        program, process = site.nginx_program(), site.nginx_process()
        site.script("deploy", same)
        site.assert_serves(same)
    load.assert_whole()
    kept = (site.nginx_id(), site.nginx_process(), site.nginx_program()) == (container, process, program)
    site.stack.compose("restart", "nginx")
    eventually(site.stack.is_ready, within=15, what="nginx serves again")
    restarted = site.nginx_program()
    site.script("deploy", site.release())

    assert program != own
    assert kept, "the second release came with the same nginx"
    assert restarted == program
    assert site.nginx_program() == own


def test_the_container_of_nginx_is_made_anew_on_request_only(site: Site) -> None:
    before, release = site.nginx_id(), site.release(nginx="RUN echo '# another' >> /entrypoint.sh")

    deployed = site.script("deploy", release)
    kept = site.nginx_id()
    recreated = site.script("deploy", "--recreate-nginx", release)

    assert kept == before
    assert "./scripts/deploy --recreate-nginx" in deployed.stderr
    assert "./scripts/deploy --recreate-nginx" not in recreated.stderr
    assert site.nginx_id() != before
    assert site.variables()["NGINX_RELEASE"] == release
    site.assert_serves(release)


def test_a_container_of_nginx_that_does_not_start_is_replaced_by_the_one_before(site: Site) -> None:
    before, release = site.stack.container("nginx"), site.release(nginx=ENTRY_POINT_ENDS)

    failed = site.script("deploy", "--recreate-nginx", release, check=False)

    assert failed.returncode == 1
    assert f"release {release} is in service, but not everything was cleared up" in failed.stderr
    assert "broken on purpose" in failed.stderr
    assert site.stack.containers("nginx") == [before]
    assert site.variables()["NGINX_RELEASE"] != release
    site.assert_serves(release)


def test_what_of_nginx_only_a_new_container_changes_is_said_and_takes_a_moment(site: Site, seed: int) -> None:
    release, limit = site.release(), ("inspect", "--format", "{{.HostConfig.Memory}}")
    with site.configured(NGINX_MEMORY_MB="131"):
        said = site.script("deploy", release).stderr
        kept = docker(*limit, site.stack.container("nginx").id).stdout
        with Load(site.stack, seed=seed) as load:
            quiet = site.script("deploy", "--recreate-nginx", release).stderr
        made = docker(*limit, site.stack.container("nginx").id).stdout
    site.script("deploy", "--recreate-nginx", release)

    assert "of the nginx container the memory limit differ" in said
    assert "./scripts/deploy --recreate-nginx" in said
    assert int(kept) != 131 * 2**20
    assert int(made) == 131 * 2**20
    assert "differ from docker-compose.yml" not in quiet
    # Clients that came meanwhile were refused, for no longer than that; nobody was told that the service is down.
    assert not [failure for failure in load.failures if " 50" in failure]
    moments = [time.strptime(failure.split()[0], "%H:%M:%S") for failure in load.failures]
    seconds = [at.tm_hour * 3600 + at.tm_min * 60 + at.tm_sec for at in moments]
    assert not seconds or max(seconds) - min(seconds) <= MOMENT_SECONDS * PATIENCE, load.failures


def test_after_a_broken_release_the_next_one_is_deployed(site: Site, load: Load) -> None:
    site.script("deploy", site.release(backend=CRASHES), check=False)
    good = site.release()

    site.script("deploy", good)

    site.assert_serves(good)


def test_a_migration_waits_for_a_table_only_for_a_moment_and_tries_again(site: Site, load: Load) -> None:
    release = site.release(backend=SLOW_TABLE)
    holder = "BEGIN; LOCK TABLE django_migrations IN ACCESS SHARE MODE; SELECT pg_sleep(600)"
    psql = f"psql -X -h 127.0.0.1 -U postgres -d transactions -c '{holder}' >/dev/null 2>&1 &"
    site.stack.container("db").execute("sh", "-c", psql)
    of_holder = "query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()"
    end = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {of_holder}"  # noqa: S608

    said = ""
    with site.begin("deploy", release) as process:
        assert process.stderr
        for line in process.stderr:
            said += line
            if "a table is in use; trying again" in line:
                site.stack.sql(end)
    site.stack.sql(end)

    assert process.returncode == 0, said
    assert "a table is in use; trying again" in said
    site.assert_serves(release)


def test_a_lock_of_migrations_that_somebody_holds_ends_the_deployment_with_who_that_is(site: Site) -> None:
    before, release = serving(site), site.release(IMPATIENT)
    holder = f"SELECT pg_advisory_lock({MIGRATE_LOCK}), pg_sleep(600)"
    psql = f"psql -X -h 127.0.0.1 -U transactions_migrator -d transactions -c '{holder}' >/dev/null 2>&1 &"
    find = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND pid <> pg_backend_pid()"
    site.stack.container("db").execute("sh", "-c", psql)
    eventually(lambda: site.stack.sql(find).stdout, within=10, what="the lock is held")
    pid = site.stack.sql(find).stdout.strip()

    failed = site.script("deploy", release, check=False)
    site.stack.sql(f"SELECT pg_terminate_backend({pid})")

    assert failed.returncode == 1
    assert f"release {release} was not deployed: another process holds the lock of migrations" in failed.stderr
    assert f"process {pid} of the database server, for the role transactions_migrator at " in failed.stderr
    site.assert_serves(before)


def test_a_rollback_leaves_the_schema_and_the_release_before_lives_with_it(site: Site, load: Load) -> None:
    before, release = serving(site), site.release(backend=ADDED_COLUMN)
    columns = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'transactions_transaction'"
    applied = "SELECT count(*) FROM django_migrations WHERE name = '0996_note'"
    at_first = int(site.stack.sql(columns).stdout)

    site.script("deploy", release)
    serves = serving(site)
    said = site.script("rollback").stderr

    assert serves == release
    assert "migrating" not in said
    site.assert_serves(before)
    assert site.stack.sql(applied).stdout == "1\n"
    assert int(site.stack.sql(columns).stdout) == at_first + 1


def test_the_plan_of_a_rollback_names_the_release_before_and_does_nothing(site: Site) -> None:
    before, release = serving(site), site.release(HARMLESS_MIGRATION.replace("0997_", "0995_"))
    pending = site.script("deploy", "--plan", release).stdout
    site.script("deploy", release)
    state = (site.stack.containers("backend"), site.variables(), site.history())

    applied = site.script("deploy", "--plan", release).stdout
    plan = site.script("rollback", "--plan").stdout

    assert f"run the migrations of {release}: \n    transactions.0995_harmless\n" in pending
    assert f"run the migrations of {release}: none is pending" in applied
    assert f"In service: release {release} (" in plan
    assert f"To deploy:  release {before} (" in plan
    assert "leave the database as it is" in plan
    assert (site.stack.containers("backend"), site.variables(), site.history()) == state


def test_a_rollback_to_a_release_that_refuses_a_newer_variable_is_told_what_to_do_and_changes_nothing(
    site: Site,
) -> None:
    old, new = site.release(KNOWS_NO_THREADS), site.release()
    site.script("deploy", old)
    site.script("deploy", new)

    with site.configured(GUNICORN_THREADS="4"):
        plan = site.script("rollback", "--plan")
        refused = site.script("rollback", check=False)

    for said in (plan.stderr, refused.stderr):
        assert "GUNICORN_THREADS is unknown" in said
        assert "the application refuses its configuration" in said
        assert "git checkout the commit of that release" in said
    assert f"To deploy:  release {old} (" in plan.stdout
    assert refused.returncode == 1
    site.assert_serves(new)


def test_a_request_that_takes_long_is_answered_by_the_release_that_has_it(site: Site) -> None:
    site.script("deploy", site.release(backend=SLOW_WITH_HEADER))
    following = site.release()

    with closing((person := sign_up(site.stack.base_url, "patient")).client), ThreadPoolExecutor(2) as pool:
        person.client.headers["X-Slow"] = "8"
        answers: list[Future[httpx.Response]] = []
        with site.begin("deploy", following) as process:
            assert process.stderr
            for line in process.stderr:
                if "trying the new backends" in line:
                    answers.append(pool.submit(person.client.get, LIST))
                    answers.append(pool.submit(person.client.post, LIST, json={"amount": "1", "description": "slow"}))
        answered = [answer.result(timeout=30).status_code for answer in answers]

    assert process.returncode == 0
    assert answered == [HTTPStatus.OK, HTTPStatus.CREATED]
    assert all(answer.result().elapsed.total_seconds() > 8 for answer in answers), "the old release did not have them"
    site.assert_serves(following)


@pytest.fixture
def slow_compose(tmp_path: Path) -> Path:
    """A folder for PATH whose `docker` names the services of a Compose project slowly, that of backups first."""
    (tmp_path / "docker").write_text(SLOW_COMPOSE.format(docker=shutil.which("docker")))
    (tmp_path / "docker").chmod(0o755)
    return tmp_path


def test_a_backup_is_taken_before_anything_is_migrated(site: Site, load: Load, slow_compose: Path) -> None:
    before, release = serving(site), site.release(backend=HARMLESS_MIGRATION)
    checkout = site.stack.checkout
    service, script = checkout / "docker-compose.override.yml", checkout / "scripts/backup"
    backups, no_room = checkout / "var/backups", checkout / "var/no-room"
    try:
        service.write_text(SERVICE.format(profiles=""))
        script.write_text(BACKUP)
        script.chmod(0o755)
        plan = site.script("deploy", "--plan", release).stdout
        slow = site.script("deploy", "--plan", release, PATH=f"{slow_compose}:{os.environ['PATH']}").stdout
        service.write_text(SERVICE.format(profiles="nightly"))
        inactive = site.script("deploy", "--plan", release)
        service.write_text("services: {backup: {image: }}\n")
        unreadable = site.script("deploy", "--plan", release, check=False)
        service.write_text(SERVICE.format(profiles=""))
        no_room.touch()
        failed = site.script("deploy", release, check=False)
        serves = serving(site)
        no_room.unlink()
        site.script("deploy", release)
    finally:
        service.unlink()
        script.unlink()

    assert "\n 3. take a backup\n" in plan
    assert "\n 3. take a backup\n" in slow
    assert "\n 3. take no backup" in inactive.stdout
    assert (
        "no backup is taken: the service backup is in a profile that COMPOSE_PROFILES does not name" in inactive.stderr
    )
    assert unreadable.returncode == 1
    assert "error: Compose refuses docker-compose.yml or .env" in unreadable.stderr
    assert failed.returncode == 1
    assert "the backup failed" in failed.stderr
    assert "the backup ran" in failed.stderr
    assert serves == before
    assert backups.read_text().split() == ["0", "0"]
    applied = site.stack.sql("SELECT count(*) FROM django_migrations WHERE name = '0997_harmless'").stdout
    assert applied.strip() == "1"
    site.assert_serves(release)


@pytest.mark.parametrize(
    ("variables", "status", "complaint"),
    [
        ({"WEB_CONCURRENCY": "many"}, 78, "WEB_CONCURRENCY is not a whole number"),
        # As many as are needed, and not twice as many.
        ({"POSTGRES_MAX_CONNECTIONS": "20"}, 1, "old and new backends together may hold"),
    ],
)
def test_a_configuration_that_would_not_do_is_refused(
    site: Site, variables: dict[str, str], status: int, complaint: str
) -> None:
    before, release = serving(site), site.release()

    with site.configured(**variables):
        refused = site.script("deploy", release, check=False)

    assert refused.returncode == status
    assert complaint in refused.stderr
    site.assert_serves(before)


def test_what_env_says_of_nginx_is_deployed_without_a_restart(site: Site, deployed: str, load: Load) -> None:
    site.script("deploy", "--force", deployed)
    nginx = site.nginx_id()

    def answer_to_eight_kilobytes() -> int:
        with connect(site.stack.base_url) as client:
            return int(client.post("/auth/jwt/verify/", json={"token": "x" * 8192}).status_code)

    before = answer_to_eight_kilobytes()
    with site.configured(NGINX_CLIENT_MAX_BODY_KB="7"):
        site.script("deploy", deployed)
        during = answer_to_eight_kilobytes()
    site.script("deploy", deployed)

    assert (before, during, answer_to_eight_kilobytes()) == (401, 413, 401)
    assert site.nginx_id() == nginx


def test_a_release_is_built_from_the_checkout(site: Site) -> None:
    dockerfile = site.stack.checkout / "backend/Dockerfile"
    sound = dockerfile.read_text()
    before = serving(site)
    dockerfile.write_text(f"{sound}\nRUN false\n")
    failed = site.script("deploy", check=False)
    dockerfile.write_text(sound)
    serves = serving(site)
    (site.stack.checkout / "backend/RELEASE").write_text("built here\n")
    with site.begin("deploy") as process:
        assert process.stderr
        assert any("building the images" in line for line in process.stderr)
        time.sleep(1)
        kill_at_once(process, whole=True)

    site.script("deploy")

    assert failed.returncode == 1
    assert "its images could not be built" in failed.stderr
    assert serves == before
    built = serving(site)
    site.made.append(built)
    assert site.backends() == [built] * 2
    assert built not in (before, site.first)
    assert site.stack.container("backend").execute("cat", "RELEASE").stdout == "built here\n"


@pytest.fixture
def secure(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, ssl.SSLContext]]:
    """The site with HTTPS, and what a client of it trusts."""
    files, authority, port = Files(tmp_path_factory.mktemp("tls")), Authority(), free_port()
    files.write(authority.sign())
    # The containers' users read it, not who runs the tests.
    for folder in (files.folder, *files.folder.parents[:2]):
        folder.chmod(0o755)
    with site.configured(**files.variables(), HTTPS_PORT=str(port)):
        site.script("up", "--detach")
        trust = ssl.create_default_context(cadata=authority.certificate_pem().decode())
        yield replace(site.stack, base_url=f"https://127.0.0.1:{port}"), trust
    site.script("up", "--detach")


@pytest.mark.timeout(ONE_SECONDS * 5)
def test_a_release_is_tried_over_tls(site: Site, secure: tuple[Stack, ssl.SSLContext], seed: int) -> None:
    stack, trust = secure
    good, broken = site.release(), site.release(nginx=NOTHING_OVER_TLS)

    with Load(stack, seed=seed, trust=trust) as load:
        site.script("deploy", good)
    load.assert_whole()
    failed = site.script("deploy", broken, check=False)

    assert failed.returncode == 1
    assert "/readyz answered 404" in failed.stderr
    assert site.backends() == [good] * 2


@pytest.mark.timeout(ONE_SECONDS * KILLS * 2)
def test_a_deployment_that_is_killed_leaves_the_release_before_in_service_and_the_next_one_succeeds(
    site: Site, load: Load, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311
    started = time.monotonic()
    site.script("deploy", site.release())
    usual = time.monotonic() - started
    for number in range(KILLS):
        before, killed, following = serving(site), site.release(), site.release()
        process = site.begin("deploy", killed)
        time.sleep(moment := chance.uniform(0, usual))
        kill_at_once(process, whole=bool(number % 2))
        at = f"killed after {moment:.1f} s of {usual:.1f}, SEED={seed}"

        assert site.stack.is_ready(), at
        in_service, serve = in_service_of(site), set(site.backends())
        assert in_service in (before, killed), at
        assert in_service in serve, at

        said = site.script("deploy", following).stderr
        if CLEARS_UP in said:
            assert f"{CLEARS_UP}release {in_service} serves" in said, at
        # Of what one that is killed leaves behind, only this can be told from outside.
        assert serve != {before, killed} or CLEARS_UP in said, at
        site.assert_serves(following)
        assert load.failures == [], at


def in_service_of(site: Site) -> str:
    """Return the release that the history says is in service."""
    return [release for _, _, release, outcome in site.history() if outcome.startswith("in service")][-1]


@pytest.mark.parametrize("whole", [False, True], ids=["the script", "everything it has started"])
@pytest.mark.parametrize(
    ("moment", "lines"),
    [
        ("trying 127.", {"nginx": NO_STATIC_FILES}),
        ("trying 127.", {"nginx": f"{NO_STATIC_FILES}\n{ANOTHER_PROGRAM}"}),
        ("replacing upkeep", {"backend": NO_UPKEEP}),
    ],
)
def test_a_release_whose_deployment_was_killed_before_it_was_tried_is_never_gone_back_to(
    site: Site, load: Load, moment: str, lines: dict[str, str], *, whole: bool
) -> None:
    before, program, killed, broken = serving(site), site.nginx_program(), site.release(**lines), site.release(CRASHES)
    with site.begin("deploy", killed) as process:
        assert process.stderr
        assert any(moment in line for line in process.stderr)
        kill_at_once(process, whole=whole)
    serve = set(site.backends())

    failed = site.script("deploy", broken, check=False)

    assert serve == {before, killed}
    assert f"{CLEARS_UP}release {before} serves" in failed.stderr
    assert f"release {before} serves as before" in failed.stderr
    site.assert_serves(before)
    assert site.nginx_program() == program
    assert [release for _, _, release, outcome in site.history()[-4:] if outcome == "in service"] == [before]
    assert load.failures == []


def test_a_new_container_of_nginx_that_was_killed_before_it_started_is_given_up_for_the_one_before(
    site: Site, tmp_path: Path
) -> None:
    before, killed, following = site.stack.container("nginx"), site.release(), site.release()
    # As `docker ps --quiet` has the id, and the script with it.
    slow_stop = SLOW_STOP.format(container=before.id[:12], docker=shutil.which("docker"))
    (tmp_path / "docker").write_text(slow_stop)
    (tmp_path / "docker").chmod(0o755)
    process = site.begin("deploy", "--recreate-nginx", killed, PATH=f"{tmp_path}:{os.environ['PATH']}")
    eventually(lambda: not site.running("nginx"), within=ONE_SECONDS, what="nginx was stopped")
    kill_at_once(process, whole=True)
    states = states_of_nginx(site)

    plan = site.script("deploy", "--plan", following)
    planned = states_of_nginx(site)
    said = site.script("deploy", following).stderr

    assert sorted(states.values()) == ["created", "exited"]
    assert states[before.id] == "exited"
    assert f"In service: release {killed} (" in plan.stdout
    assert "which first starts the one that served before again" in plan.stderr
    assert planned == states
    assert "starting the nginx that was there before again" in said
    assert states_of_nginx(site) == {before.id: "running"}
    site.assert_serves(following)


def states_of_nginx(site: Site) -> dict[str, str]:
    """Return the containers of nginx, each with its state."""
    return {nginx.id: nginx.inspect()["State"]["Status"] for nginx in site.stack.containers("nginx")}


def finding(site: Site) -> dict[str, str]:
    """Return what ./scripts/doctor says about deployments."""
    report = json.loads(site.script("doctor", "--json", check=False).stdout)
    return next(item for item in report["findings"] if item["id"] == "deployment")


def test_doctor_names_a_deployment_that_was_killed_and_the_command_that_completes_it(site: Site, deployed: str) -> None:
    before, killed = finding(site), site.release()
    process = site.begin("deploy", killed)
    eventually(lambda: killed in site.running("backend"), within=ONE_SECONDS, what="a new backend was started")
    kill_at_once(process)

    found = finding(site)
    said = run("bash", "-c", found["mend"], timeout=ONE_SECONDS, cwd=site.stack.checkout).stderr

    assert before["level"] == "ok"
    assert found["level"] == "problem"
    assert f"{CLEARS_UP}release {deployed} serves, clearing up the rest" in said
    assert f"release {killed} was interrupted" in found["message"]
    assert finding(site)["level"] == "ok"
    site.assert_serves(killed)


def test_a_deployment_that_was_killed_before_it_changed_anything_is_cleared_up_after(site: Site, deployed: str) -> None:
    site.script("deploy", "--force", deployed)  # which leaves nothing to deploy
    number = int(site.history()[-1][1]) + 1
    with (site.stack.checkout / "var/releases.log").open("a") as file:
        file.write(f"2026-01-01T00:00:00Z\tdeploy\t{number}\t{deployed}\tstarted\n")

    found = finding(site)
    run("bash", "-c", found["mend"], timeout=ONE_SECONDS, cwd=site.stack.checkout)

    assert found["level"] == "problem"
    assert site.history()[-1][0] == "recovered"
    assert finding(site)["level"] == "ok"
    site.assert_serves(deployed)


def test_a_deployment_that_is_told_to_stop_puts_everything_back(site: Site, load: Load, seed: int) -> None:
    before, stopped = serving(site), site.release()
    process = site.begin("deploy", stopped)
    eventually(lambda: stopped in site.running("backend"), within=ONE_SECONDS, what="a new backend was started")

    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=ONE_SECONDS)

    assert process.returncode != 0
    assert "SIGTERM" in said
    assert f"release {before} serves as before" in said
    site.assert_serves(before)


@pytest.mark.timeout(ONE_SECONDS * 5)
def test_releases_are_pulled_from_a_registry(site: Site, registry: str, load: Load) -> None:
    first, second = site.release(), site.release()
    for release in (first, second):
        publish(registry, release)

    for release in (first, second):
        site.script("deploy", "--pull", release)
        site.assert_serves(release)
        images = {backend.inspect()["Config"]["Image"] for backend in site.stack.containers("backend")}
        assert images == {f"{registry}/transactions-backend:{release}"}
    absent = site.script("deploy", "--pull", "never-published", check=False)
    docker("image", "rm", f"{registry}/transactions-backend:{first}")
    gone = site.script("rollback", check=False)
    site.assert_serves(second)
    site.script("rollback", "--pull")

    site.assert_serves(first)
    assert gone.returncode == 1
    assert "its images are not here any more" in gone.stderr
    assert f"release {second} serves as before" in gone.stderr
    assert "next: ./scripts/rollback --pull" in gone.stderr
    assert absent.returncode == 1
    assert "its images could not be pulled" in absent.stderr
    assert f"release {second} serves as before" in absent.stderr
    assert "next: docker login, or check BACKEND_IMAGE and NGINX_PROXY_IMAGE in .env" in absent.stderr


def publish(registry: str, release: str) -> None:
    """Push a release, as CI would; its name in the registry does not stay on this host."""
    for image in IMAGES:
        name = f"{registry}/transactions-{image}:{release}"
        docker("tag", f"transactions-{image}:{release}", name)
        docker("push", "--quiet", name, timeout=300)
        docker("image", "rm", name)


def test_while_a_deployment_runs_nothing_else_changes_the_containers(site: Site) -> None:
    release, other = site.release(), site.release()
    process = site.begin("deploy", release)
    eventually(lambda: site.history()[-1][2:] == [release, "started"], within=60, what="the first has begun")

    refused = {
        command[0]: site.script(*command, check=False)
        for command in (("deploy", other), ("up", "--detach"), ("down",), ("init", "--rotate", "jwt"))
    }
    process.communicate(timeout=ONE_SECONDS)

    for name, done in refused.items():
        assert done.returncode == 1, name
        assert f"changed by process {process.pid}: " in done.stderr
        assert f"scripts/deploy {release}\n  next: wait until it has ended\n" in done.stderr
    assert process.returncode == 0
    site.assert_serves(release)
