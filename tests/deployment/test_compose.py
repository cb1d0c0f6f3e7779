"""docker-compose.yml: what each service may do, see and use."""

import re
from typing import Any

import pytest
import yaml
from django.conf import settings

from accounts.mail import TURN
from config.env import Environment
from tests.deployment.conftest import ROOT, Compose

SERVICES = ["db", "migrate", "backend", "upkeep", "nginx"]
LONG_RUNNING = ["db", "backend", "upkeep", "nginx"]
PATHS_AND_PAGES = {"DJANGO_PASSWORD_RESET_URL", "TLS_KEY_FILE"}
"""What is called like a secret and is none: the address of a page, the path of a file on the host."""

TEXT = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")


def service(compose: Compose, name: str) -> dict[str, Any]:
    return dict(compose["services"][name])


def seconds(duration: str) -> int:
    assert re.fullmatch(r"[0-9]+s", duration)
    return int(duration[:-1])


def test_stack_has_these_services_and_no_others(compose: Compose) -> None:
    assert list(compose["services"]) == SERVICES
    assert compose["name"] == "transactions"


# What a service may do ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SERVICES)
def test_service_has_no_privilege_that_it_does_not_use(compose: Compose, name: str) -> None:
    it = service(compose, name)

    assert it["cap_drop"] == ["ALL"]
    assert it["security_opt"] == ["no-new-privileges:true"]
    assert it["read_only"] is True
    assert not {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc", "user", "userns_mode", "extra_hosts",
                "group_add", "sysctls"} & set(it)  # fmt: skip


@pytest.mark.parametrize("name", SERVICES)
def test_service_is_bounded(compose: Compose, name: str) -> None:
    it = service(compose, name)
    limits = it["deploy"]["resources"]["limits"]

    assert re.fullmatch(r"\$\{[A-Z]+_MEMORY_MB:-[0-9]+\}M", limits["memory"])
    assert 0 < limits["pids"] <= 512
    assert it["ulimits"]["nofile"] <= 65536
    assert it["logging"]["driver"] == "local"
    assert set(it["logging"]["options"]) == {"max-size", "max-file"}


@pytest.mark.parametrize("name", SERVICES)
def test_service_has_an_init_that_reaps_and_passes_signals_on(compose: Compose, name: str) -> None:
    assert service(compose, name)["init"] is True


@pytest.mark.parametrize("name", SERVICES)
def test_writable_folders_are_in_memory_and_bounded(compose: Compose, name: str) -> None:
    tmpfs = service(compose, name)["tmpfs"]

    assert tmpfs
    for mount in tmpfs:
        assert re.search(r":size=[0-9]+m", mount), mount
    assert any(mount.startswith("/tmp:") and "noexec,nosuid,nodev" in mount for mount in tmpfs)


@pytest.mark.parametrize("name", LONG_RUNNING)
def test_service_comes_back_by_itself(compose: Compose, name: str) -> None:
    assert service(compose, name)["restart"] == "unless-stopped"


def test_migrate_runs_once(compose: Compose) -> None:
    migrate = service(compose, "migrate")

    assert migrate["restart"] == "no"
    assert migrate["command"] == ["python", "manage.py", "migrate", "--no-input"]
    assert migrate["healthcheck"] == {"disable": True}
    assert migrate["image"] == service(compose, "backend")["image"]


def test_services_start_in_order(compose: Compose) -> None:
    waits = {name: service(compose, name).get("depends_on", {}) for name in SERVICES}

    assert waits == {
        "db": {},
        "migrate": {"db": {"condition": "service_healthy"}},
        "backend": {"migrate": {"condition": "service_completed_successfully"}},
        "upkeep": {"migrate": {"condition": "service_completed_successfully"}},
        "nginx": {"backend": {"condition": "service_healthy"}},
    }


def test_backend_may_finish_its_requests_before_it_is_killed(compose: Compose) -> None:
    longest = Environment.GUNICORN_GRACEFUL_TIMEOUT_SECONDS
    grace = seconds(service(compose, "backend")["stop_grace_period"])

    longest.parse(str(grace - 5))
    with pytest.raises(Exception, match="out of range"):
        longest.parse(str(grace))


def test_nginx_may_finish_its_requests_before_it_is_killed(compose: Compose) -> None:
    workers = (ROOT / "nginx/snippets/workers.conf.template").read_text()
    shutdown = re.search(r"^worker_shutdown_timeout ([0-9]+)s;", workers, re.MULTILINE)
    assert shutdown

    grace = seconds(service(compose, "nginx")["stop_grace_period"])

    assert int(str(Environment.NGINX_UPSTREAM_TIMEOUT_SECONDS.default)) < grace < int(shutdown[1])


def test_database_may_finish_its_checkpoint_before_it_is_killed(compose: Compose) -> None:
    assert seconds(service(compose, "db")["stop_grace_period"]) >= 120


def test_nginx_has_as_many_open_files_as_it_wants(compose: Compose) -> None:
    workers = (ROOT / "nginx/snippets/workers.conf.template").read_text()
    wanted = re.search(r"^worker_rlimit_nofile ([0-9]+);", workers, re.MULTILINE)
    assert wanted

    assert service(compose, "nginx")["ulimits"]["nofile"] >= int(wanted[1])


def test_backend_runs_twice(compose: Compose) -> None:
    assert service(compose, "backend")["deploy"]["replicas"] == "${BACKEND_REPLICAS:-2}"


# What a service may see -----------------------------------------------------------------------------------------------


def test_nginx_alone_publishes_one_port_on_the_address_of_the_operators_choice(compose: Compose) -> None:
    published = {name: service(compose, name).get("ports", []) for name in SERVICES}

    assert published == {
        "db": [],
        "migrate": [],
        "backend": [],
        "upkeep": [],
        "nginx": ["${BIND_ADDRESS:-127.0.0.1}:${HTTP_PORT:-8080}:8080"],
    }
    assert not [name for name in SERVICES if "expose" in service(compose, name)]


def test_the_port_and_the_files_of_https_are_there_only_with_a_certificate(compose: Compose) -> None:
    listeners = yaml.safe_load((ROOT / "docker-compose.listeners.yml").read_text())["services"]
    extended = {name: service(compose, name).get("extends") for name in SERVICES}

    assert extended.pop("nginx") == {"file": "docker-compose.listeners.yml", "service": "http${TLS_CERT_FILE:+s}"}
    assert set(extended.values()) == {None}
    assert listeners["http"] == {}
    https = listeners["https"]
    assert https["ports"] == ["${BIND_ADDRESS:-127.0.0.1}:${HTTPS_PORT:-8443}:8443"]
    assert {mount["target"] for mount in https["volumes"]} == {"/run/tls/certificate", "/run/tls/key"}
    for mount in https["volumes"]:
        assert (mount["type"], mount["read_only"], mount["bind"]) == ("bind", True, {"create_host_path": False})
    assert set(https) == {"ports", "volumes"}


def test_database_is_reached_over_a_network_of_its_own(compose: Compose) -> None:
    networks = {name: service(compose, name)["networks"] for name in SERVICES}

    assert networks == {
        "db": ["data"],
        "migrate": ["data"],
        "backend": {"application": {"aliases": ["backend-${BACKEND_DEPLOYMENT:-0}"]}, "data": {}},
        "upkeep": ["data", "mail"],
        "nginx": ["edge", "application"],
    }
    assert compose["networks"]["data"] == {"internal": "${DATABASE_NETWORK_INTERNAL:-true}"}
    assert compose["networks"]["application"] == {"internal": True}
    assert set(compose["networks"]) == {"edge", "application", "data", "mail"}


def test_database_of_the_stack_is_not_started_where_there_is_another(compose: Compose) -> None:
    assert service(compose, "db")["deploy"]["replicas"] == "${DB_REPLICAS:-1}"


def test_addresses_of_a_database_reach_those_that_use_it_and_each_its_own(compose: Compose) -> None:
    given = {
        name: (
            {"database_url", "migrator_database_url"} & set(service(compose, name).get("secrets", [])),
            service(compose, name)["environment"].get("DATABASE_URL_FILE"),
        )
        for name in SERVICES
    }

    assert given == {
        "db": (set(), None),
        "migrate": ({"migrator_database_url"}, "/run/secrets/migrator_database_url"),
        "backend": ({"database_url"}, "/run/secrets/database_url"),
        "upkeep": ({"database_url"}, "/run/secrets/database_url"),
        "nginx": (set(), None),
    }


def test_only_mail_and_a_database_elsewhere_may_leave_the_host_and_only_where_somebody_says_so(
    compose: Compose,
) -> None:
    assert compose["networks"]["mail"] == {"internal": "${EMAIL_NETWORK_INTERNAL:-true}"}
    assert [name for name in SERVICES if "mail" in service(compose, name)["networks"]] == ["upkeep"]


def test_only_the_upkeep_process_knows_the_mail_server(compose: Compose) -> None:
    for name in SERVICES:
        mounted = "email_url" in service(compose, name).get("secrets", [])
        told = {"EMAIL_URL_FILE", "EMAIL_FROM"} & set(service(compose, name)["environment"])

        assert (mounted, bool(told)) == (name == "upkeep",) * 2


def test_upkeep_is_the_application_with_a_command_and_a_heartbeat_of_its_own(compose: Compose) -> None:
    upkeep = service(compose, "upkeep")
    *_, beat = upkeep["command"]

    assert upkeep["image"] == service(compose, "backend")["image"]
    assert upkeep["command"][:3] == ["python", "manage.py", "upkeep"]
    assert upkeep["command"][3] == "--every=${UPKEEP_INTERVAL_SECONDS:-3600}"
    command, *program, file, age = upkeep["healthcheck"]["test"]
    assert (command, program) == ("CMD", ["python", "-m", "health.heartbeat"])
    assert beat == f"--heartbeat={file}"
    # Between two beats: one turn of sending, and the five steps of one conversation with a server that went silent.
    assert int(age) > TURN.total_seconds() + 5 * settings.EMAIL_TIMEOUT
    assert "POSTGRES_USER" not in upkeep["environment"], "the default is the role that cannot change the schema"


def test_upkeep_may_hand_a_mail_over_before_it_is_killed(compose: Compose) -> None:
    assert seconds(service(compose, "upkeep")["stop_grace_period"]) >= 3 * settings.EMAIL_TIMEOUT


def test_only_the_database_and_what_nginx_is_handed_over_are_on_volumes_and_both_are_named(compose: Compose) -> None:
    volumes = {name: service(compose, name).get("volumes", []) for name in SERVICES}

    assert volumes.pop("db") == ["database:/var/lib/postgresql"]
    assert volumes.pop("nginx") == ["handover:/srv/nginx"]
    assert set(map(tuple, volumes.values())) == {()}
    assert list(compose["volumes"]) == ["database", "handover"]


def test_backends_can_be_told_apart_by_their_deployment(compose: Compose) -> None:
    assert service(compose, "backend")["labels"] == {"transactions.deployment": "${BACKEND_DEPLOYMENT:-0}"}


def test_database_guards_its_data(compose: Compose) -> None:
    db = service(compose, "db")

    assert "--data-checksums" in db["environment"]["POSTGRES_INITDB_ARGS"]
    assert not re.search(r"fsync|full_page_writes|synchronous_commit", TEXT)
    assert db["shm_size"] == "256m"


def test_secret_is_mounted_only_where_it_is_read(compose: Compose) -> None:
    for name in SERVICES:
        it = service(compose, name)
        mounted = set(it.get("secrets", []))
        sources = " ".join(str(value) for value in it.get("environment", {}).values())
        if name == "db":
            sources += "".join(path.read_text() for path in (ROOT / "db").glob("*.sh"))
        read = set(re.findall(r"/run/secrets/(\w+)", sources))
        if "DATABASE_URL_FILE" in it.get("environment", {}):
            read.add("database_root_certificate")  # the address names it

        assert mounted == read, name


def test_secrets_are_those_that_init_makes(compose: Compose) -> None:
    init = (ROOT / "scripts/init").read_text()

    for name, source in compose["secrets"].items():
        assert source == {"file": f"secrets/{name}"}
        assert name in init
    assert "/secrets/" in (ROOT / ".gitignore").read_text().splitlines()


def test_superuser_password_reaches_the_database_alone(compose: Compose) -> None:
    holders = [name for name in SERVICES if "postgres_superuser_password" in service(compose, name).get("secrets", [])]

    assert holders == ["db"]


def test_no_environment_holds_a_secret(compose: Compose) -> None:
    secret_names = {variable.name for variable in Environment.variables() if variable.secret}
    for name in SERVICES:
        for variable, value in service(compose, name)["environment"].items():
            assert variable not in secret_names, f"{name}: {variable}"
            if re.search(r"PASSWORD|SECRET|KEY|TOKEN", variable) and variable not in PATHS_AND_PAGES:
                assert variable.endswith("_FILE"), f"{name}: {variable}"
                assert str(value).startswith("/run/secrets/"), f"{name}: {variable}"


def test_build_takes_no_secret(compose: Compose) -> None:
    for name in SERVICES:
        build = service(compose, name)["build"]
        assert set(build["args"]) <= {"PYTHON_IMAGE", "POSTGRES_IMAGE", "NGINX_IMAGE"}
        assert "secrets" not in build


# The file -------------------------------------------------------------------------------------------------------------


def test_every_network_and_volume_says_what_it_is_for() -> None:
    for section in ("networks", "volumes"):
        block = re.search(rf"^{section}:\n((?:  .*\n)+)", TEXT, re.MULTILINE)
        assert block
        names = [line for line in block[1].splitlines() if re.match(r"  \w", line)]
        assert names
        for line in names:
            assert re.search(r"# .{10,}", line), line


def test_file_holds_nothing_that_belongs_elsewhere() -> None:
    assert not re.search(r"^version:", TEXT, re.MULTILINE)
    assert not re.search(r"\b(container_name|latest|env_file|docker\.sock|links|runserver|develop|watch)\b", TEXT)
    assert not re.search(r"[\"'\s]\.{1,2}/?:/", TEXT), "a folder of the host in a container"
    assert (
        not (ROOT / "docker-compose.override.yml").exists()
        or "/docker-compose.override.yml" in (ROOT / ".gitignore").read_text()
    )


def test_extension_fields_are_named_by_purpose(compose: Compose) -> None:
    assert [name for name in compose if name.startswith("x-")] == [
        "x-hardening",
        "x-application",
        "x-application-environment",
    ]


def test_service_without_its_configuration_stops_and_names_the_command() -> None:
    required = re.findall(r"\$\{(\w+):\?([^}]*)\}", TEXT)

    assert {name for name, _ in required} == {"DJANGO_ALLOWED_HOSTS"}
    for _, message in required:
        assert message.startswith("run ./scripts/init first")


def test_every_image_has_a_name_that_can_be_changed_and_a_release(compose: Compose) -> None:
    release = {
        "db": "${DB_RELEASE:-${RELEASE:-local}}",
        "nginx": "${NGINX_RELEASE:-${RELEASE:-local}}",
    }
    for name in SERVICES:
        image, _colon, tag = service(compose, name)["image"].partition("}:")
        assert re.fullmatch(r"\$\{[A-Z_]+_IMAGE:-transactions-\w+", image)
        assert tag == release.get(name, "${RELEASE:-local}")
