"""Dockerfiles: who runs, what is checked, and what is not in an image."""

import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.deployment.conftest import ROOT

SERVICES = ["backend/Dockerfile", "db/Dockerfile"]
OF_TESTS = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "tests/images").glob("*/Dockerfile"))]
assert OF_TESTS
ALL = [*SERVICES, *OF_TESTS]
# The stages that become images which run.
FINAL = {"backend/Dockerfile": ["nginx", "backend"], "db/Dockerfile": [""]}


class Instruction(NamedTuple):
    """One instruction, in one line, and the stage that it belongs to."""

    stage: str
    word: str
    rest: str


def instructions(name: str) -> list[Instruction]:
    lines = [
        line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if not line.lstrip().startswith("#")
    ]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found: list[Instruction] = []
    stage = ""
    for line in filter(None, joined.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            stage = (re.findall(r" AS (\w+)$", rest) or [""])[0]
        found.append(Instruction(stage, word, rest))
    return found


def of_stage(name: str, stage: str, word: str) -> list[str]:
    return [item.rest for item in instructions(name) if item.stage == stage and item.word == word]


def final_stages() -> list[tuple[str, str]]:
    return [(name, stage) for name, stages in FINAL.items() for stage in stages]


@pytest.mark.parametrize(("name", "stage"), [*final_stages(), *((name, "") for name in OF_TESTS)])
def test_image_runs_as_a_number_that_is_not_root(name: str, stage: str) -> None:
    *_, user = of_stage(name, stage, "USER")

    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", user)


@pytest.mark.parametrize(("name", "stage"), final_stages())
def test_image_has_a_health_check_in_exec_form(name: str, stage: str) -> None:
    (check,) = of_stage(name, stage, "HEALTHCHECK")
    options, _, command = check.partition("CMD ")

    assert isinstance(json.loads(command), list)
    for option in ("--interval=", "--timeout=", "--start-period=", "--start-interval=", "--retries="):
        assert option in options


def test_the_database_is_healthy_when_the_application_can_sign_in_over_tcp() -> None:
    (check,) = of_stage("db/Dockerfile", "", "HEALTHCHECK")
    shell, option, command = json.loads(check.partition("CMD ")[2])

    assert (shell, option) == ("sh", "-c")
    words = command.split()
    # On the socket a temporary server answers during the first start, which has no role of the application yet.
    assert words[words.index("-h") + 1] == "127.0.0.1"
    assert words[words.index("-U") + 1] == "transactions_app"
    assert "'SELECT 1'" in command


def test_nginx_is_told_to_answer_what_is_under_way_before_it_ends() -> None:
    assert of_stage("backend/Dockerfile", "nginx", "STOPSIGNAL") == ["SIGQUIT"]


@pytest.mark.parametrize(("name", "stage"), final_stages())
def test_image_starts_in_exec_form(name: str, stage: str) -> None:
    started = of_stage(name, stage, "ENTRYPOINT") + of_stage(name, stage, "CMD")

    assert started
    for command in started:
        assert isinstance(json.loads(command), list), command


@pytest.mark.parametrize(("name", "stage"), final_stages())
def test_image_says_what_it_is(name: str, stage: str) -> None:
    assert "org.opencontainers.image.title=" in " ".join(of_stage(name, stage, "LABEL"))


def test_final_stages_are_the_targets_of_compose_and_the_last_is_the_default() -> None:
    assert instructions("backend/Dockerfile")[-1].stage == "backend"
    compose = (ROOT / "docker-compose.yml").read_text()
    assert set(re.findall(r"target: (\w+)", compose)) == set(FINAL["backend/Dockerfile"])


@pytest.mark.parametrize("name", ALL)
def test_every_base_is_an_argument_with_a_tag_or_a_stage(name: str) -> None:
    found = instructions(name)
    arguments = dict(item.rest.split("=", 1) for item in found if item.word == "ARG")
    stages = {item.stage for item in found}

    for item in found:
        if item.word != "FROM":
            continue
        base = item.rest.split()[0]
        variable = re.fullmatch(r"\$\{(\w+)\}", base)
        assert base in stages or (variable and variable[1] in arguments), base
    for name_, image in arguments.items():
        assert name_.endswith("_IMAGE")
        assert re.fullmatch(r"[a-z0-9./-]+:[a-z0-9.-]+", image), image


def test_the_runbook_fetches_every_base_of_what_is_deployed() -> None:
    bases = {item.rest.split("=", 1)[1] for name in SERVICES for item in instructions(name) if item.word == "ARG"}
    pulled = re.findall(r"^    docker pull (\S+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)

    assert sorted(pulled) == sorted(bases)


@pytest.mark.parametrize("name", ALL)
def test_dockerfile_holds_nothing_that_is_fetched_or_floats(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")

    assert not re.search(r"^#\s*(syntax|escape)\s*=", text, re.MULTILINE | re.IGNORECASE), "a frontend from a registry"
    assert "latest" not in text
    assert not [item for item in instructions(name) if item.word == "ADD"]
    assert not re.search(r"\b(curl|wget)\b[^\n]*\|\s*(ba)?sh", text)
    assert not re.search(r"https?://(?!127\.0\.0\.1)", "\n".join(item.rest for item in instructions(name)))


@pytest.mark.parametrize("name", ALL)
def test_no_layer_holds_a_secret(name: str) -> None:
    for item in instructions(name):
        if item.word in {"ENV", "ARG", "LABEL"}:
            assert not re.search(r"(?i)secret|passw|_key|token", item.rest), item.rest
        if item.word == "COPY":
            assert not re.search(r"(?i)\.env|secrets", item.rest), item.rest


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_copied_from_an_image_by_name(name: str) -> None:
    known = {item.stage for item in instructions(name)} | {"configuration"}
    for item in instructions(name):
        if item.word == "COPY" and (source := re.search(r"--from=(\S+)", item.rest)):
            assert source[1] in known, item.rest


def test_python_packages_are_installed_by_hash_and_never_compiled() -> None:
    (install,) = [
        item.rest for item in instructions("backend/Dockerfile") if "pip" in item.rest and "--requirement" in item.rest
    ]

    for option in ("--require-hashes", "--only-binary :all:", "--no-deps", "--requirement requirements.txt"):
        assert option in install


def test_dependencies_are_installed_before_the_code_is_copied() -> None:
    copies = [item for item in instructions("backend/Dockerfile") if item.word == "COPY"]

    assert [item.rest for item in copies][:2] == ["requirements.txt .", ". ."]
    assert [item.stage for item in copies][:2] == ["dependencies", "code"]


@pytest.mark.parametrize(("name", "stage"), final_stages())
def test_image_that_runs_installs_nothing(name: str, stage: str) -> None:
    for command in of_stage(name, stage, "RUN"):
        assert not re.search(r"apt|pip install|\bgcc\b|build-essential|-dev\b|npm", command), command


def test_static_files_of_nginx_and_backend_come_from_one_stage() -> None:
    assert "--from=static /app/static /usr/share/nginx/static" in of_stage("backend/Dockerfile", "nginx", "COPY")
    assert "--from=static /app/static/staticfiles.json /app/static/staticfiles.json" in of_stage(
        "backend/Dockerfile", "backend", "COPY"
    )


def test_static_files_of_the_admin_site_are_there_for_who_switches_it_on() -> None:
    (collect,) = [item.rest for item in instructions("backend/Dockerfile") if "collectstatic" in item.rest]

    assert "DJANGO_ADMIN_ENABLED=true" in collect


def test_nginx_configuration_is_tested_while_the_image_is_built() -> None:
    assert any("/entrypoint.sh --test" in command for command in of_stage("backend/Dockerfile", "nginx", "RUN"))


@pytest.mark.parametrize("stage", ["base", "dependencies", "code", "static", "trimmed", "nginx", "backend"])
def test_every_stage_says_why_it_exists(stage: str) -> None:
    text = (ROOT / "backend/Dockerfile").read_text()

    assert re.search(rf"^# {stage}: .+\n(#.*\n)*FROM \S+ AS {stage}$", text, re.MULTILINE)


def test_build_context_leaves_out_what_is_not_the_application() -> None:
    ignored = Path(ROOT / "backend/.dockerignore").read_text().splitlines()

    for pattern in (".env*", "static", "**/__pycache__", "requirements-*.txt"):
        assert pattern in ignored
    assert not list((ROOT / "backend").rglob("test_*.py"))
    assert not list((ROOT / "backend").rglob("tests"))
