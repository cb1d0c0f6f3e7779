"""What a check says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum

FORMAT = 1
"""The number of the JSON form; it grows when a reader of the old form would misread the new one."""


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    UNKNOWN = "unknown"
    """Could not be looked at: neither good nor bad, and it says why."""


@dataclass(frozen=True)
class Finding:
    """One sentence about one thing, and the command that mends it where something is wrong."""

    id: str
    level: Level
    message: str
    mend: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return it as it stands in the JSON form."""
        return asdict(self)


Findings = Iterator[Finding]


class NotSeen(Exception):  # noqa: N818 - no error of the program: a fact that is out of its sight
    """Something that could not be looked at, and why."""


def ok(identity: str, message: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(identity, Level.OK, message)


def warning(identity: str, message: str, mend: str) -> Finding:
    """Return a finding that will be a problem, or is one for some."""
    return Finding(identity, Level.WARNING, message, mend)


def problem(identity: str, message: str, mend: str) -> Finding:
    """Return a finding that keeps the stack from serving as it should."""
    return Finding(identity, Level.PROBLEM, message, mend)


def unknown(identity: str, reason: str) -> Finding:
    """Return a finding that nothing was found out."""
    return Finding(identity, Level.UNKNOWN, f"Not looked at: {reason}.")


def listed(names: list[str] | set[str]) -> str:
    """Return names as they stand in a sentence."""
    return ", ".join(sorted(names))
