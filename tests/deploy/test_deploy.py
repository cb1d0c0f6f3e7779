"""./scripts/deploy and ./scripts/rollback under constant load: nobody notices, whatever goes wrong.

DEPLOYS, ROLLBACKS and KILLS set how many; a full run has DEPLOYS=20 ROLLBACKS=5 KILLS=10.
"""

import json
import os
import random
import re
import signal
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest

from tests.deploy.conftest import IMAGES, Site, kill_at_once
from tests.stack.containers import docker, eventually, free_port, run
from tests.stack.images import built
from tests.stack.load import Load

ROOT = Path(__file__).resolve().parents[2]
DEPLOYS = int(os.environ.get("DEPLOYS", "3"))
ROLLBACKS = int(os.environ.get("ROLLBACKS", "1"))
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

BROKEN = {
    "it crashes": ({"backend": CRASHES}, "not healthy", "broken on purpose"),
    "it cannot start": ({"backend": CANNOT_START}, "the application refuses its configuration", "broken on purpose"),
    "it answers with errors": ({"backend": ANSWERS_500}, "/api/transactions/ of a new backend answered 500", ""),
    "its migration fails": ({"backend": BAD_MIGRATION}, "a migration failed", "broken_on_purpose"),
    "nginx refuses it": ({"nginx": BAD_NGINX}, "nginx refuses its configuration", "broken_on_purpose"),
}


def serving(site: Site) -> str:
    """Return the release in service."""
    return site.backends()[-1]


@pytest.mark.timeout(ONE_SECONDS * (DEPLOYS + ROLLBACKS))
def test_deployments_and_rollbacks_drop_no_request(site: Site, load: Load) -> None:
    nginx = site.nginx_id()
    served = [serving(site)]

    for _ in range(DEPLOYS):
        served.append(site.release())
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
    environment = site.stack.checkout / ".env"
    try:
        with httpx.Client(trust_env=False) as client:
            eventually(lambda: answers(client, f"http://{address}/v2/"), within=20, what="the registry answers")
        with environment.open("a") as file:
            file.write(
                f"BACKEND_IMAGE={address}/transactions-backend\nNGINX_PROXY_IMAGE={address}/transactions-nginx\n"
            )
        yield address
    finally:
        now = environment.read_text().splitlines(keepends=True)
        environment.write_text("".join(line for line in now if not re.match("(BACKEND|NGINX_PROXY)_IMAGE=", line)))
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
    before, broken = serving(site), site.release(**lines)

    done = site.script("deploy", broken, check=False)

    assert done.returncode == 1
    assert f"release {broken} was not deployed: " in done.stderr
    assert reason in done.stderr
    assert detail in done.stderr
    assert f"release {before} serves as before" in done.stderr
    assert "\n  next: " in done.stderr
    site.assert_serves(before)
    assert site.history()[-1][2] == broken
    assert site.history()[-1][3].startswith("failed: ")
    assert load.failures == []


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


@pytest.mark.timeout(ONE_SECONDS * KILLS * 2)
def test_a_deployment_that_is_killed_leaves_a_release_serving_and_the_next_one_succeeds(
    site: Site, load: Load, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311
    started = time.monotonic()
    site.script("deploy", site.release())
    usual = time.monotonic() - started
    for _ in range(KILLS):
        before, killed, following = serving(site), site.release(), site.release()
        process = site.begin("deploy", killed)
        time.sleep(moment := chance.uniform(0, usual))
        kill_at_once(process)

        assert site.stack.is_ready(), f"killed after {moment:.1f} s"
        assert {before, killed} & set(site.backends())

        site.script("deploy", following)
        site.assert_serves(following)
        assert load.failures == [], f"killed after {moment:.1f} s of {usual:.1f}"


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
    run("bash", "-c", found["mend"], timeout=ONE_SECONDS, cwd=site.stack.checkout)

    assert before["level"] == "ok"
    assert found["level"] == "problem"
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
    before = serving(site)
    first, second = site.release(), site.release()
    for release in (first, second):
        publish(registry, release)

    for release in (first, second):
        site.script("deploy", "--pull", release)
        site.assert_serves(release)
        assert {image.inspect()["Config"]["Image"] for image in site.stack.containers("backend")} == {
            f"{registry}/transactions-backend:{release}"
        }
    absent = site.script("deploy", "--pull", "never-published", check=False)
    site.script("rollback")

    site.assert_serves(first)
    assert absent.returncode == 1
    assert "its images could not be pulled" in absent.stderr
    assert f"release {second} serves as before" in absent.stderr
    assert "next: docker login, or check BACKEND_IMAGE and NGINX_PROXY_IMAGE in .env" in absent.stderr
    assert before not in site.backends()


def publish(registry: str, release: str) -> None:
    """Push a release, as CI would; none of it stays on this host."""
    for image in IMAGES:
        name = f"{registry}/transactions-{image}:{release}"
        docker("tag", f"transactions-{image}:{release}", name)
        docker("push", "--quiet", name, timeout=300)
        docker("image", "rm", name)


def test_there_is_one_deployment_at_a_time(site: Site) -> None:
    release, other = site.release(), site.release()
    process = site.begin("deploy", release)
    eventually(lambda: site.history()[-1][2:] == [release, "started"], within=60, what="the first has begun")

    second = site.script("deploy", other, check=False)
    process.communicate(timeout=ONE_SECONDS)

    assert second.returncode == 1
    assert "another deployment runs" in second.stderr
    assert process.returncode == 0
    site.assert_serves(release)
