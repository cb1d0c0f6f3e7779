"""Checks ``.env`` before anything is started: ``python -m config.env_file [--containers] FILE``.

Compose hands only those variables to a container that docker-compose.yml names. A name that was mistyped reaches no
process that could refuse it, so it is looked for here, in the file itself, on the host: this module and the registry
need nothing but Python's standard library. The values are checked too, also those that only Compose reads.
"""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from config.env import (
    EX_CONFIG,
    PREFIXES,
    ConfigurationError,
    Environment,
    InvalidError,
    Variable,
    read,
    strangers,
    surroundings,
)

PREFIXES_OF_THE_STACK = (*PREFIXES, "NGINX_", "UPKEEP_", "BACKEND_", "DB_")
SIMILAR = 0.85
"""How like a variable a name without these prefixes must be to count as a slip; others may be for an override."""

SUPERUSER_PASSWORD = "secrets/postgres_superuser_password"  # noqa: S105 # a file
"""Of no variable: only the image of the stack's own database reads it, under the name of POSTGRES_PASSWORD."""

LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")
QUOTED = re.compile(r"""(?:'([^']*)'|"((?:[^"\\]|\\.)*)")\s*(?:#.*)?""")

ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}
"""Between double quotes, after a backslash."""


def parse(text: str) -> tuple[dict[str, str], list[str]]:
    """Return the variables of an env file as Compose reads them, and what is wrong with its lines."""
    values: dict[str, str] = {}
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        match = LINE.fullmatch(stripped)
        if not match:
            problems.append(f"Line {number} of .env is not NAME=value. Mend or remove it.")
            continue
        name, value = match[1], match[2].lstrip()
        replaced = not value.startswith("'")
        if value[:1] in {"'", '"'}:
            quoted = QUOTED.fullmatch(value)
            if not quoted:
                problems.append(f"{name} has a quote that does not end, or something after it. Mend it in .env.")
                continue
            value = (
                quoted[1]
                if quoted[1] is not None
                else re.sub(r"\\(.)", lambda found: ESCAPES.get(found[1], found[1]), quoted[2])
            )
        else:
            value = re.split(r"(?:^|\s)#", value, maxsplit=1)[0].rstrip()
        if replaced and "$" in value:
            problems.append(
                f"{name} contains a $, with which Compose begins the name of another variable. Put the value into"
                " single quotes."
            )
            continue
        values[name] = value
    return values, problems


def problems_of(text: str, around: Mapping[str, str], *, secrets: Path | None = None) -> list[str]:
    """Return everything that is wrong with an env file; a variable of ``around``, the shell, wins as in Compose.

    With ``secrets``, the folder above the files that Compose mounts, those are checked too, and what has no effect on
    containers is refused.
    """
    given, problems = parse(text)
    named = {problem.split()[0] for problem in problems}
    problems += strangers(given, prefixes=PREFIXES_OF_THE_STACK, similar=SIMILAR)
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
        elif variable.secret or variable.name in named or (secrets and variable.fixed):
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
        text = options.file.read_text(encoding="utf-8")
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
