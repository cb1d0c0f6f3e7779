"""env.example and the registry: each lists what the other lists."""

import re
import subprocess
import sys

from config.env import Environment, OptionalVariable, example, markdown
from tests.backend.conftest import BACKEND, ROOT

EXAMPLE = (ROOT / "env.example").read_text(encoding="utf-8")


def listed() -> list[str]:
    return re.findall(r"^#?([A-Z][A-Z0-9_]*)=", EXAMPLE, re.MULTILINE)


def test_env_example_is_what_the_registry_prints() -> None:
    assert example() == EXAMPLE, "run: cd backend && python -m config.env > ../env.example"


def test_env_example_is_printed_without_a_configuration() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "config.env"], cwd=BACKEND, env={}, capture_output=True, text=True, check=True
    )

    assert done.stdout == EXAMPLE


def test_table_of_variables_is_what_the_registry_prints() -> None:
    again = "run: cd backend && python -m config.env --format markdown > ../docs/configuration.md"

    assert markdown() == (ROOT / "docs/configuration.md").read_text(encoding="utf-8"), again


def test_table_of_variables_is_printed_without_a_configuration() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "config.env", "--format", "markdown"],
        cwd=BACKEND,
        env={},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == markdown()


def test_table_of_variables_says_everything_about_each_under_its_group() -> None:
    chapters = dict(re.findall(r"(?ms)^### (\w+)\n\n(.*?)(?=^##|\Z)", markdown()))
    plain = {name: re.sub(r"\s+", " ", chapter.replace("`", "")) for name, chapter in chapters.items()}

    assert list(plain) == [variable.name for variable in Environment.variables()]
    for variable in Environment.variables():
        said = plain[variable.name]
        assert variable.purpose.replace("`", "") in said
        assert f"Accepted: {variable.accepts}" in said
        assert f"Read by: {', '.join(variable.readers)}" in said
        assert (f"Default: {variable.default}" in said) == (variable.default is not None)
        for name in (*variable.files, *(variable.names if variable.secret else ())):
            assert name in said
        assert variable.fixed.replace("`", "") in said
    assert all(variables for _, variables in Environment.groups())
    assert re.findall(r"(?m)^## (.*)$", markdown()) == [title for title, _ in Environment.groups()]


def test_env_example_lists_every_declared_variable_once() -> None:
    declared = [name for variable in Environment.variables() for name in variable.names]

    assert listed() == declared


def test_env_example_sets_nothing_but_what_is_required_and_no_secret() -> None:
    set_there = re.findall(r"^([A-Z][A-Z0-9_]*)=(.+)$", EXAMPLE, re.MULTILINE)

    assert [name for name, _ in set_there] == [
        variable.name
        for variable in Environment.variables()
        if variable.default is None and not variable.secret and not isinstance(variable, OptionalVariable)
    ]


def test_env_example_says_for_every_variable_who_reads_it_and_what_is_accepted() -> None:
    for variable in Environment.variables():
        block = next(part for part in EXAMPLE.split("\n\n") if re.search(rf"^#?{variable.name}=", part, re.MULTILINE))

        assert f"# {variable.purpose}\n" in block
        assert f"Read by {', '.join(variable.readers)}. Accepted: {variable.accepts}." in block
        if variable.default is not None:
            assert f"#{variable.name}={variable.default}\n" in block + "\n"


def test_nothing_but_the_registry_reads_the_environment() -> None:
    readers = {
        path.relative_to(BACKEND).as_posix()
        for path in BACKEND.rglob("*.py")
        if re.search(
            r"\benviron\b(?!\.setdefault\(\"DJANGO_SETTINGS_MODULE\"|\.pop\()|getenv", path.read_text(encoding="utf-8")
        )
    }

    assert readers == {"config/env.py"}
