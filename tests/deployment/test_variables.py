"""Variables: what Compose, the Dockerfiles and the scripts read is what backend/config/env.py declares, and back."""

import re
from typing import Any

import pytest

from config.env import Environment
from tests.deployment.conftest import ROOT, Compose
from tests.deployment.test_dockerfiles import ALL as DOCKERFILES

TEXT = "".join(
    (ROOT / name).read_text(encoding="utf-8") for name in ("docker-compose.yml", "docker-compose.listeners.yml")
)
SOURCE = "\n".join(line for line in TEXT.splitlines() if not line.lstrip().startswith("#"))
VARIABLES = {variable.name: variable for variable in Environment.variables()}
NAMES = {name for variable in Environment.variables() for name in variable.names}

# In containers these have one right value, which is the default, or what Compose itself writes.
FIXED = {name for name, variable in VARIABLES.items() if variable.fixed}
# What the images themselves read, which is no operator's to set.
OF_THE_IMAGES = {"POSTGRES_INITDB_ARGS"}


def read_by(reader: str) -> set[str]:
    return {variable.name for variable in Environment.variables() if reader in variable.readers}


def environment(compose: Compose, service: str) -> dict[str, Any]:
    return dict(compose["services"][service].get("environment", {}))


def handed_over(compose: Compose) -> set[str]:
    """Return what Compose takes from .env or the shell: interpolated, or named without a value."""
    names = set(re.findall(r"\$\{(\w+)", SOURCE))
    for service in compose["services"].values():
        names |= {name for name, value in service.get("environment", {}).items() if value is None}
        names |= {name for name, value in service["build"]["args"].items() if value is None}
    return names


def test_everything_that_compose_takes_is_declared(compose: Compose) -> None:
    assert handed_over(compose) <= NAMES


def test_everything_that_a_service_is_given_is_declared(compose: Compose) -> None:
    for service in compose["services"]:
        assert set(environment(compose, service)) <= NAMES | OF_THE_IMAGES, service


def test_everything_that_the_backend_reads_reaches_it(compose: Compose) -> None:
    given = environment(compose, "backend")

    for name in read_by("backend"):
        names = set(VARIABLES[name].names)
        assert names & set(given) or name in FIXED, f"{name} is declared for backend, and Compose does not pass it on"
    assert not {name for name in FIXED - {"POSTGRES_USER"} if name in TEXT}


def test_everything_that_the_upkeep_process_reads_reaches_it_and_no_other(compose: Compose) -> None:
    of_upkeep = {name for variable in read_by("upkeep") for name in VARIABLES[variable].names}
    backend, upkeep = set(environment(compose, "backend")), set(environment(compose, "upkeep"))

    assert backend <= upkeep
    assert upkeep - backend <= of_upkeep
    assert all(set(VARIABLES[name].names) & upkeep for name in read_by("upkeep"))


@pytest.mark.parametrize("service", ["migrate", "backend"])
def test_everything_that_reaches_the_backend_is_read_by_it(compose: Compose, service: str) -> None:
    of_the_backend = {name for variable in read_by("backend") for name in VARIABLES[variable].names}

    assert set(environment(compose, service)) <= of_the_backend


def test_migrate_and_backend_are_configured_alike_but_for_their_roles(compose: Compose) -> None:
    migrate, backend = environment(compose, "migrate"), environment(compose, "backend")
    different = {name for name in migrate | backend if migrate.get(name, "") != backend.get(name, "")}

    assert different == {
        "DATABASE_URL_FILE",
        "POSTGRES_USER",
        "POSTGRES_PASSWORD_FILE",
        "POSTGRES_STATEMENT_TIMEOUT_MS",
    }
    assert migrate["POSTGRES_USER"] == "transactions_migrator"
    assert VARIABLES["POSTGRES_USER"].default == "transactions_app"


@pytest.mark.parametrize("name", [name for name, variable in VARIABLES.items() if variable.secret])
def test_every_secret_comes_from_the_files_that_its_declaration_names(compose: Compose, name: str) -> None:
    mounted = {environment(compose, service).get(f"{name}_FILE") for service in ("migrate", "backend", "upkeep")}
    folders = {secret: source["file"] for secret, source in compose["secrets"].items()}

    files = {folders[path.removeprefix("/run/secrets/")] for path in mounted if path is not None}

    assert files == set(VARIABLES[name].files)


def test_what_is_fixed_in_containers_is_left_to_nobody(compose: Compose) -> None:
    of_containers = {"DJANGO_PROXY_ENABLED", "POSTGRES_HOST", "POSTGRES_PORT", "POSTGRES_USER", "GUNICORN_BIND"}
    assert of_containers | read_by("process") == FIXED
    assert not FIXED & handed_over(compose)


def test_everything_that_is_written_to_env_has_an_effect(compose: Compose) -> None:
    to_be_set = {name for name, variable in VARIABLES.items() if not variable.secret and not variable.fixed}

    assert to_be_set - read_by("scripts") <= handed_over(compose)


def test_everything_that_nginx_reads_reaches_it_and_nothing_else(compose: Compose) -> None:
    assert set(environment(compose, "nginx")) == read_by("nginx")


def test_everything_that_the_database_reads_reaches_it(compose: Compose) -> None:
    given, command = environment(compose, "db"), compose["services"]["db"]["command"]

    for name in read_by("db"):
        # Not ":-": its entry point refuses an empty one.
        assert given.get(name, "") in (None, f"${{{name}-{VARIABLES[name].default}}}"), name
    assert "max_connections=${POSTGRES_MAX_CONNECTIONS:-100}" in command


def test_everything_that_is_declared_for_compose_is_taken_by_it(compose: Compose) -> None:
    assert read_by("compose") <= handed_over(compose)


def test_everything_that_is_declared_for_the_scripts_is_read_by_them() -> None:
    scripts = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "scripts").iterdir() if path.is_file())
    tests = (ROOT / "tests/stack/images.py").read_text(encoding="utf-8")

    for name in read_by("scripts"):
        assert name in scripts + tests, name


def test_every_reader_is_a_part_of_the_stack() -> None:
    assert {reader for variable in VARIABLES.values() for reader in variable.readers} == {
        "backend",
        "upkeep",
        "nginx",
        "db",
        "compose",
        "scripts",
        "process",  # outside of Compose
    }


def test_defaults_in_compose_are_those_that_are_declared() -> None:
    # Another variable as the default of one is no default.
    defaults = re.findall(r"\$\{(\w+):-([^}$]*)\}", SOURCE)

    assert defaults
    for name, default in defaults:
        assert default == VARIABLES[name].default, name


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_default_images_in_dockerfiles_are_those_that_are_declared(dockerfile: str) -> None:
    defaults = re.findall(r"^ARG (\w+)=(\S+)$", (ROOT / dockerfile).read_text(), re.MULTILINE)

    assert defaults
    for name, default in defaults:
        assert default == VARIABLES[name].default, name


def test_names_say_whose_they_are_and_in_what_unit() -> None:
    prefixes = (
        *("DJANGO_", "JWT_", "EMAIL_", "UPKEEP_", "POSTGRES_", "GUNICORN_", "NGINX_", "BACKEND_", "DB_"),
        *("PYTHON_", "DEBIAN_", "DATABASE_", "TLS_"),
    )
    of_the_ecosystem = {"ENV_FILE", "WEB_CONCURRENCY", "BIND_ADDRESS", "HTTP_PORT", "HTTPS_PORT", "RELEASE"}
    negative = {"EMAIL_NETWORK_INTERNAL", "DATABASE_NETWORK_INTERNAL"}
    units = {"seconds": "_SECONDS", "milliseconds": "_MS", "minutes": "_MINUTES", "hours": "_HOURS", "in MB": "_MB"}
    for name, variable in VARIABLES.items():
        assert name.startswith(prefixes) or name in of_the_ecosystem, name
        for word, unit in units.items():
            if re.search(rf"\b{word}\b", variable.purpose):
                assert name.endswith(unit), name
        if variable.accepts == "true or false" and name not in negative | {"DJANGO_DEBUG"}:
            assert name.endswith("_ENABLED"), name
