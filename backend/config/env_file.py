"""Checks ``.env`` before anything is started: ``python -m config.env_file [--containers] FILE``.

Compose hands only those variables to a container that docker-compose.yml names. A name that was mistyped reaches no
process that could refuse it, so it is looked for here, in the file itself, on the host: this module and the registry
need nothing but Python's standard library. The values are checked too, also those that only Compose reads.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from config.env import (
    EX_CONFIG,
    ConfigurationError,
    Environment,
    InvalidError,
    Variable,
    read,
    strangers,
    surroundings,
)

PREFIXES_OF_OTHERS = {"DEBIAN_", "PYTHON_"}
"""Debian and Python have variables of their own, which somebody may set for an override."""

PREFIXES_OF_THE_STACK = tuple(
    {f"{variable.name.partition('_')[0]}_" for variable in Environment.variables()} - PREFIXES_OF_OTHERS
)
SIMILAR = 0.85
"""How like a variable a name without these prefixes must be to count as a slip; others may be for an override."""

SUPERUSER_PASSWORD = "secrets/postgres_superuser_password"  # noqa: S105 # a file
"""Of no variable: only the image of the stack's own database reads it, under the name of POSTGRES_PASSWORD."""

WORD = r"""[^\s'"$\\#][^\s'"$\\]*"""
PLAIN = re.compile(rf"""([A-Za-z_][A-Za-z0-9_]*)=(?:({WORD}(?:\s+{WORD})*|)|'([^'\\]*)'|"([^"$\\]*)")""")
"""The lines of which Compose, the scripts, the embedded stack and the doctor make the same value.

``setting`` in scripts/lib.sh reads by the same two patterns.
"""
NAMED = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*[=:](.*)")


class Lines(NamedTuple):
    """What an env file says: the values, what is written after the names that are refused, and why they are."""

    values: dict[str, str]
    refused: dict[str, str]
    problems: list[str]


def parse(text: str) -> Lines:
    """Return what an env file says. What its readers would not all take for the same value is refused, and not read."""
    lines = Lines({}, {}, [])
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        named = NAMED.fullmatch(line)
        if not named:
            lines.problems.append(f"Line {number} of .env is not NAME=value. Mend or remove it.")
            continue
        name, written = named.groups()
        # The last line of a name is the one that counts.
        lines.values.pop(name, None)
        lines.refused.pop(name, None)
        plain = PLAIN.fullmatch(line)
        if plain:
            lines.values[name] = next(value for value in plain.groups()[1:] if value is not None)
            continue
        lines.refused[name] = written
        lines.problems.append(
            f"{name} in line {number} of .env is written in a way that not everything reads alike. Accepted:"
            " NAME=value, with nothing before the name, around the = or after the value, be it a space or a carriage"
            " return; in single quotes a value that holds a quote, a $, or a # after a space; no backslash."
        )
    return lines


def problems_of(text: str, around: Mapping[str, str], *, secrets: Path | None = None) -> list[str]:
    """Return everything that is wrong with an env file; a variable of ``around``, the shell, wins as in Compose.

    With ``secrets``, the folder above the files that Compose mounts, those are checked too, and what has no effect on
    containers is refused.
    """
    given, refused, problems = parse(text)
    problems += unknown(given)
    source = {**given, **around}
    checked: dict[str, str] = {}
    variables = []
    for variable in Environment.variables():
        if secrets and (variable.secret or variable.fixed):
            problems += _idle(variable, given)
        if variable.secret and secrets:
            first, *others = variable.files
            checked[f"{variable.name}_FILE"] = str(secrets / first)
            problems += [problem for other in others for problem in _of_another_file(variable, secrets / other)]
        elif variable.secret or variable.name in refused or (secrets and variable.fixed):
            continue
        elif variable.name in source:
            checked[variable.name] = source[variable.name]
        variables.append(variable)
    values, bad = read(variables, checked)
    problems += bad
    if secrets and values.get(Environment.DB_REPLICAS.name) != 0:
        problems += _of_another_file(Environment.POSTGRES_PASSWORD, secrets / SUPERUSER_PASSWORD)
    if secrets and not any(problem.startswith(f"{Environment.DATABASE_URL.name} ") for problem in problems):
        problems += _addresses(secrets)
    return problems


def unknown(names: Iterable[str]) -> list[str]:
    """Return what is wrong with the names that no variable has, where they look as if one had them."""
    return strangers(names, prefixes=PREFIXES_OF_THE_STACK, similar=SIMILAR)


def _of_another_file(variable: Variable[Any], path: Path) -> list[str]:
    try:
        variable.read({f"{variable.name}_FILE": str(path)})
    except InvalidError as error:
        return [f"{variable.name} of {path.name}: it {error}. Accepted: {variable.accepts}."]
    return []


def _addresses(secrets: Path) -> list[str]:
    """Return what is wrong with the two addresses of a database, which no process sees together."""
    url = Environment.DATABASE_URL
    ours, migrators = (url.read({f"{url.name}_FILE": str(secrets / name)}) for name in url.files)
    both = " and ".join(url.files)
    if (ours is None) != (migrators is None):
        return [f"{url.name} is in one of {both} only. Fill both, or empty both."]
    if ours and migrators and ours.user == migrators.user:
        return [f"{url.name} names the same user in {both}. Give the first the role that cannot change the schema."]
    return []


def _idle(variable: Variable[Any], given: Mapping[str, str]) -> list[str]:
    """Return what to do instead of setting ``variable`` in the file, where containers do not get it from there."""
    reason = variable.fixed and f"Remove it: {variable.fixed}."
    if variable.secret:
        reason = f"Put its value into {' or '.join(variable.files)} and remove it."
    return [f"{name} has no effect in .env. {reason}" for name in variable.names if reason and name in given]


def main() -> None:
    """End with status 78 and everything that is wrong, or with 0."""
    parser = argparse.ArgumentParser(prog="python -m config.env_file", description="Check an env file.")
    parser.add_argument("file", type=Path)
    parser.add_argument(
        "--containers",
        action="store_true",
        help="check the files in secrets/ beside it as well, and refuse what has no effect on containers",
    )
    options = parser.parse_args()
    try:
        text = options.file.read_bytes().decode()  # with its carriage returns
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        problems = [f"{options.file} cannot be read: {reason}. Run ./scripts/init where there is none."]
    else:
        problems = problems_of(text, surroundings(), secrets=options.file.parent if options.containers else None)
    if problems:
        print(ConfigurationError(problems), file=sys.stderr)
        raise SystemExit(EX_CONFIG)


if __name__ == "__main__":
    main()
