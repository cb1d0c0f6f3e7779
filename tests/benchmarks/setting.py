"""Where everything is during one run: folders, programs, the database server, and secrets that live as long."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "tests/benchmarks"


@dataclass
class Setting:
    """What ./scripts/bench hands over, and what follows from it."""

    work: Path
    nginx: Path
    wrk: Path
    peers_python: Path
    postgres_data: Path
    python: Path = ROOT / "var/venv/bin/python"
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    host: str = field(default_factory=lambda: os.environ["POSTGRES_HOST"])
    port: str = field(default_factory=lambda: os.environ["POSTGRES_PORT"])
    passwords: Path = field(default_factory=lambda: Path(os.environ["POSTGRES_SECRETS"]))

    def superuser_password(self) -> str:
        """Return the password of the role ``postgres``."""
        return (self.passwords / "postgres_superuser_password").read_text().rstrip("\n")

    def connect(self, database: str) -> psycopg.Connection:
        """Return a connection of the superuser that commits each statement."""
        return psycopg.connect(
            host=self.host,
            port=self.port,
            user="postgres",
            password=self.superuser_password(),
            dbname=database,
            autocommit=True,
        )

    def postmaster(self) -> int:
        """Return the process id of the database server."""
        return int((self.postgres_data / "18/postmaster.pid").read_text().splitlines()[0])

    def environment(self, **variables: str) -> dict[str, str]:
        """Return a bare environment with ``variables``: nothing of the caller's gets in between."""
        # Gunicorn puts its control socket there where its configuration does not say otherwise.
        home = self.work / "home"
        home.mkdir(exist_ok=True)
        return {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C.UTF-8", **variables}
