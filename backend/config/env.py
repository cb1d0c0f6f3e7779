"""Every variable that anything in this stack reads, declared once.

This module is the only reader of ``os.environ``. It checks all variables together and, if any
is missing, malformed or unsafe, stops the process with exit status 78 (``EX_CONFIG``) and one
message that names every bad variable and shows no value. Printed from the same declarations:

    python -m config.env > ../env.example
    python -m config.env --format markdown > ../docs/configuration.md

``config.env_file`` checks ``.env`` itself with them, before anything is started.

Secrets are read without django-environ's ``$`` references (a value that begins with ``$`` would
be taken for the name of another variable, and printed), and booleans without its leniency
(``ture`` would mean false); the library reads the ``.env`` file where Compose does not. Nothing else here needs more
than Python's standard library, so that a bare host can check a configuration too.
"""

from __future__ import annotations

import argparse
import difflib
import ipaddress
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Generic, TypeVar, overload
from urllib.parse import unquote

from config import sizing

EX_CONFIG: Final = 78
"""Exit status for a configuration error (sysexits.h)."""

APPLICATION: Final = {"backend", "upkeep"}
"""The readers that are this code: every process of it reads what ``backend`` does, one of them what ``upkeep`` does."""

PREFIXES: Final = ("DJANGO_", "JWT_", "EMAIL_", "DATABASE_", "POSTGRES_", "GUNICORN_")
"""Of the application: any other name that begins so is a mistake, unless it is one of ``OF_OTHERS``."""

OF_OTHERS: Final = re.compile(
    r"DJANGO_(SETTINGS_MODULE|COLORS|AUTO_COMPLETE|ALLOW_ASYNC_UNSAFE|RUNSERVER_HIDE_WARNING|TEST_PROCESSES"
    r"|WATCHMAN_TIMEOUT|SUPERUSER_[A-Z_]+)"  # Django's own
    r"|GUNICORN_CMD_ARGS"  # Gunicorn's own, which config.serve takes away
    r"|POSTGRES_SECRETS"  # scripts/embedded-postgres
    r"|HTTPS?_PROXY"  # whatever fetches something
)
"""Names that begin like those of variables, and that somebody else reads."""

T = TypeVar("T")


class InvalidError(Exception):
    """What is wrong with a value, in words that do not repeat it."""


class Variable(Generic[T]):
    """One environment variable: what it is for, what it accepts, what it is without a value.

    ``default`` is written as an operator would write it; without one the variable is required.
    A ``secret`` may also come from a file named by ``<NAME>_FILE``; in containers it comes from
    ``files``. ``readers`` says who reads it; this process checks those of the application
    (``APPLICATION``), the others check their own. ``fixed`` says why Compose sets it, whatever
    ``.env`` holds; ``replaced_by`` names the variable with which it may be missing.
    """

    name: str

    def __init__(
        self,
        purpose: str,
        *,
        parse: Callable[[str], T],
        accepts: str,
        default: str | None = None,
        example: str = "",
        secret: bool = False,
        files: tuple[str, ...] = (),
        readers: tuple[str, ...] = ("backend",),
        remedy: str = "",
        fixed: str = "",
        replaced_by: str = "",
    ) -> None:
        self.purpose = purpose
        self.parse = parse
        self.accepts = accepts
        self.default = default
        self.example = example
        self.secret = secret
        self.files = files
        self.readers = readers
        self.remedy = remedy
        self.fixed = fixed
        self.replaced_by = replaced_by

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        if self.secret and not self.files:
            self.files = (f"secrets/{name.lower()}",)

    @overload
    def __get__(self, instance: None, owner: type) -> Variable[T]: ...
    @overload
    def __get__(self, instance: Environment, owner: type) -> T: ...
    def __get__(self, instance: Environment | None, owner: type) -> Variable[T] | T:
        return self if instance is None else instance.values[self.name]

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which a value may be given."""
        return (self.name, f"{self.name}_FILE") if self.secret else (self.name,)

    def origin(self, source: Mapping[str, str]) -> str:
        """Return the name of this variable and, where its value comes from a file, that of the file."""
        path = source.get(f"{self.name}_FILE") if self.secret else None
        return self.name if path is None else f"{self.name} from {path}"

    def read(self, source: Mapping[str, str]) -> T:
        """Return the checked value from ``source``; raise ``InvalidError`` otherwise."""
        raw = self._raw(source)
        if raw is None:
            raise InvalidError("is missing")
        if raw == "":
            raise InvalidError("is empty")
        return self.parse(raw)

    def _raw(self, source: Mapping[str, str]) -> str | None:
        direct = source.get(self.name)
        path = source.get(f"{self.name}_FILE") if self.secret else None
        if path is None:
            return self.default if direct is None else direct
        if direct is not None:
            raise InvalidError(f"is set together with {self.name}_FILE: keep one of the two")
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise InvalidError(f"cannot be read from the file that {self.name}_FILE names, {path}: {reason}") from None
        # Editors and `echo` end a file with a newline, and the PostgreSQL image strips it: without
        # this, one secret file would hold two passwords.
        return text.rstrip("\r\n")


class OptionalVariable(Variable[T | None]):
    """A variable that may be missing: what it configures is then not there.

    An empty secret file counts as missing too: Compose mounts a file whether or not it is needed.
    """

    def read(self, source: Mapping[str, str]) -> T | None:
        """Return the checked value from ``source``, or None; raise ``InvalidError`` for anything else."""
        raw = self._raw(source)
        if raw is None or (raw == "" and self.name not in source):
            return None
        return super().read(source)


@dataclass(frozen=True)
class Group:
    """The heading of the variables that are declared after it."""

    title: str


def text(pattern: str) -> Callable[[str], str]:
    """Accept text that matches ``pattern`` in full."""

    def parse(raw: str) -> str:
        if not re.fullmatch(pattern, raw):
            raise InvalidError("is malformed")
        return raw

    return parse


IMAGE_NAME: Final = (
    r"(?:(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?/)?"  # a registry
    r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
)
"""https://pkg.go.dev/github.com/distribution/reference, as far as an engine takes it."""

IMAGE_TAG: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
image_name: Final = text(IMAGE_NAME)
image_tag: Final = text(IMAGE_TAG)
image: Final = text(rf"{IMAGE_NAME}(?::{IMAGE_TAG})?(?:@sha256:[0-9a-f]{{64}})?")
path_of_file: Final = text(r"/[^\s:]+/[^\s:/]+")
"""Absolute, in a folder of its own."""


def choice(*options: str) -> Callable[[str], str]:
    """Accept one of ``options``."""

    def parse(raw: str) -> str:
        if raw not in options:
            raise InvalidError("is none of the accepted words")
        return raw

    return parse


def flag(raw: str) -> bool:
    """Accept ``true`` or ``false`` and nothing that looks like them."""
    return choice("true", "false")(raw) == "true"


def whole(minimum: int, maximum: int) -> Callable[[str], int]:
    """Accept a whole number between ``minimum`` and ``maximum``, both included."""

    def parse(raw: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", raw):
            raise InvalidError("is not a whole number")
        if not minimum <= int(raw) <= maximum:
            raise InvalidError("is out of range")
        return int(raw)

    return parse


def automatic(otherwise: Callable[[str], T]) -> Callable[[str], T | None]:
    """Accept ``auto``, for None, or what ``otherwise`` accepts."""
    return lambda raw: None if raw == "auto" else otherwise(raw)


def host_names(raw: str) -> list[str]:
    """Accept a comma-separated list of host names and addresses; refuse wildcards."""
    hosts = [item.strip() for item in raw.split(",")]
    for host in hosts:
        if "*" in host or host == ".":
            raise InvalidError("would accept every host name")
        if host.startswith("[") and host.endswith("]"):
            try:
                ipaddress.IPv6Address(host[1:-1])
            except ValueError:
                raise InvalidError("contains a malformed IPv6 address") from None
        elif not re.fullmatch(r"\.?[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9-]+)*", host):
            raise InvalidError("contains an item that is no host name or address")
    return hosts


def networks(raw: str) -> list[str]:
    """Accept a comma-separated list of addresses and networks; refuse those of everybody."""
    found = [item.strip() for item in raw.split(",")]
    try:
        for item in found:
            # A zone, and a mask that is written out, are known to Python and not to nginx.
            if not re.fullmatch(r"[0-9A-Fa-f:.]+(/[1-9][0-9]{0,2})?", item):
                raise ValueError
            ipaddress.ip_network(item, strict=False)
    except ValueError:
        raise InvalidError("contains an item that is no address or network") from None
    return found


def address_of_host(raw: str) -> str:
    """Accept an address as Compose takes it before a port."""
    try:
        if raw.startswith("[") and raw.endswith("]") and "%" not in raw:
            ipaddress.IPv6Address(raw[1:-1])
        else:
            ipaddress.IPv4Address(raw)
    except ValueError:
        raise InvalidError("is no address") from None
    return raw


def endpoint(raw: str) -> str:
    """Accept an address and a port, separated by a colon."""
    address, _colon, port = raw.rpartition(":")
    text(r"[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\]")(address)
    whole(1, 65535)(port)
    return raw


def key_ring(raw: str) -> list[str]:
    """Accept one or more keys, one a line."""
    return [secret(50)(line) for line in raw.split("\n")]


def password_ring(raw: str) -> list[str]:
    """Accept one or more passwords, one a line."""
    return [secret(12)(line) for line in raw.split("\n")]


URL_PART: Final = r"(?:[A-Za-z0-9._~!$&'()*,;=-]|%[0-9A-Fa-f]{2})+"
"""A user, a password or a name in a URL. A slash or a question mark would end it, and a plus is a space to some."""

URL_HOST: Final = r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]"


def url_parts(pattern: str, raw: str) -> list[str]:
    """Return the groups of ``pattern`` in ``raw``, decoded; those that are not there are empty."""
    match = re.fullmatch(pattern, raw)
    if not match:
        raise InvalidError("is malformed")
    try:
        return [unquote(group or "", errors="strict") for group in match.groups()]
    except UnicodeDecodeError:
        raise InvalidError("is malformed") from None


@dataclass(frozen=True)
class MailServer:
    """Where mail is handed over."""

    backend: str
    host: str = "localhost"
    port: int = 25
    user: str = ""
    password: str = ""
    use_tls: bool = False
    use_ssl: bool = False


MAIL_PORTS: Final = {"smtp": 25, "smtp+tls": 587, "smtp+ssl": 465}


def mail_server(raw: str) -> MailServer:
    """Accept the address of a mail server, or ``consolemail://``."""
    if raw == "consolemail://":
        return MailServer("django.core.mail.backends.console.EmailBackend")
    pattern = rf"(smtp(?:\+tls|\+ssl)?)://(?:({URL_PART}):({URL_PART})@)?({URL_HOST})(?::([0-9]{{1,5}}))?/?"
    scheme, user, password, host, port = url_parts(pattern, raw)
    if user and scheme == "smtp":
        raise InvalidError("would send a password in clear")
    return MailServer(
        "django.core.mail.backends.smtp.EmailBackend",
        host.strip("[]"),
        whole(1, 65535)(port) if port else MAIL_PORTS[scheme],
        user,
        password,
        use_tls=scheme == "smtp+tls",
        use_ssl=scheme == "smtp+ssl",
    )


@dataclass(frozen=True)
class Database:
    """Where the database is, and who signs in."""

    host: str
    port: int
    name: str
    user: str
    password: str = field(repr=False)
    other_passwords: Sequence[str] = field(default=(), repr=False)
    """What the server may take instead, while the password is being changed."""
    options: Mapping[str, str] = field(default_factory=dict)
    """libpq's, beyond those that settings.py states."""


SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

DATABASE_OPTIONS: Final = {
    "application_name", "channel_binding", "gssencmode", "hostaddr", "krbsrvname", "load_balance_hosts", "require_auth",
    "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcert", "sslcrl", "sslkey", "sslmode", "sslnegotiation",
    "sslrootcert", "sslsni", "target_session_attrs",
}  # fmt: skip
"""Those of libpq that an address may hold: not the time limits, which have variables of their own, nor a pass file."""


def database_url(raw: str) -> Database:
    """Accept the address of a PostgreSQL server, as libpq writes it."""
    pattern = rf"postgres(?:ql)?://({URL_PART}):({URL_PART})@({URL_HOST})(?::([0-9]{{1,5}}))?/({URL_PART})"
    address, mark, query = raw.partition("?")
    user, password, host, port, name = url_parts(pattern, address)
    if not (user + name).isprintable():
        raise InvalidError("contains an unprintable character")
    try:
        secret(12)(password)
    except InvalidError as error:
        raise InvalidError(f"has a password that {error}") from None
    options = {"sslmode": "require"}  # libpq's own default would go on without TLS where a server offers none
    given = [url_parts(r"([a-z_]+)=((?:[/:]|" + URL_PART + ")+)", item) for item in query.split("&")] if mark else []
    for option, value in given:
        if option not in DATABASE_OPTIONS:
            raise InvalidError("has an option that is none of the accepted ones")
        options[option] = value
    if len({option for option, _ in given}) < len(given):
        raise InvalidError("has an option twice")
    if options["sslmode"] not in SSL_MODES:
        raise InvalidError("has an sslmode that does not exist")
    if options["sslmode"].startswith("verify-") and "sslrootcert" not in options:
        raise InvalidError("verifies the server without sslrootcert")
    number = whole(1, 65535)(port) if port else 5432
    return Database(host.strip("[]"), number, name, user, password, options=options)


def link_template(raw: str) -> str:
    """Accept the address of a page with ``{uid}`` and ``{token}`` in it."""
    if not re.fullmatch(r"https?://[^\s{}<>\"]+", raw.replace("{uid}", "uid").replace("{token}", "token")):
        raise InvalidError("is no address of a page")
    if raw.count("{uid}") != 1 or raw.count("{token}") != 1:
        raise InvalidError("lacks {uid} or {token}, or has one of them twice")
    return raw


def secret(minimum_length: int) -> Callable[[str], str]:
    """Accept a secret of at least ``minimum_length`` characters that is no placeholder."""

    def parse(raw: str) -> str:
        if re.search(r"\s", raw) or not raw.isprintable():
            raise InvalidError("contains a space or an unprintable character")
        if len(raw) < minimum_length:
            raise InvalidError("is too short")
        # Django's own placeholder prefix, and values that a person typed to have something there.
        if raw.startswith("django-insecure-") or len(set(raw)) < minimum_length // 5:
            raise InvalidError("is easy to guess")
        return raw

    return parse


TRUE_OR_FALSE: Final = "true or false"
INIT_REMEDY: Final = "run ./scripts/init, which makes a random one"


class Environment:
    """The checked configuration; one attribute for each variable."""

    renamed: ClassVar[Mapping[str, str]] = {}
    """What a variable was called before, and its name now. The old one is refused, since it would have no effect."""

    group_django = Group("Django")

    DJANGO_SECRET_KEY = Variable(
        "Signs admin sessions and one-time links: one key, or several, one a line. The first signs, all of them verify."
        " Not the key of the API's tokens.",
        parse=key_ring,
        accepts="50 or more random characters a line",
        secret=True,
        remedy=INIT_REMEDY,
    )
    DJANGO_ALLOWED_HOSTS = Variable(
        "The host names that clients use, separated by commas; a leading dot includes subdomains."
        " nginx refuses every other host.",
        parse=host_names,
        accepts="host names or addresses separated by commas, never *",
        example="localhost,127.0.0.1,[::1]",
        readers=("backend", "nginx"),
        remedy="list the names under which clients reach this service",
    )
    DJANGO_ENVIRONMENT = Variable(
        "In production every unsafe setting is refused.",
        parse=choice("production", "development"),
        accepts="production or development",
        default="production",
    )
    DJANGO_DEBUG = Variable(
        "Shows tracebacks to clients. Only together with DJANGO_ENVIRONMENT=development.",
        parse=flag,
        accepts=TRUE_OR_FALSE,
        default="false",
    )
    DJANGO_PROXY_ENABLED = Variable(
        "nginx stands in front: its X-Forwarded-For, X-Forwarded-Proto and X-Request-ID are believed and"
        " static files are left to it. false serves clients directly, as the embedded mode does.",
        parse=flag,
        accepts=TRUE_OR_FALSE,
        default="true",
        fixed="nginx always stands in front there",
    )
    DJANGO_DOCS_ENABLED = Variable(
        "Serves the OpenAPI schema, Swagger UI and ReDoc under /api/.",
        parse=flag,
        accepts=TRUE_OR_FALSE,
        default="true",
    )
    DJANGO_ADMIN_ENABLED = Variable(
        "Serves Django's admin site under /admin/.",
        parse=flag,
        accepts=TRUE_OR_FALSE,
        default="false",
    )
    DJANGO_LOG_LEVEL = Variable(
        "The least severe level that is logged.",
        parse=choice("DEBUG", "INFO", "WARNING", "ERROR"),
        accepts="DEBUG, INFO, WARNING or ERROR",
        default="INFO",
    )

    group_tokens = Group("Tokens")

    JWT_SIGNING_KEY = Variable(
        "Signs access and refresh tokens (HS256): one key, or several, one a line. The first signs, all of them"
        " verify, so that a key can be replaced without signing anybody out.",
        parse=key_ring,
        accepts="50 or more random characters a line, not those of DJANGO_SECRET_KEY",
        secret=True,
        remedy=INIT_REMEDY,
    )
    JWT_ACCESS_LIFETIME_MINUTES = Variable(
        "How long an access token lives, in minutes.",
        parse=whole(1, 1440),
        accepts="1 to 1440",
        default="15",
    )
    JWT_REFRESH_LIFETIME_HOURS = Variable(
        "How long a refresh token lives, in hours.",
        parse=whole(1, 8760),
        accepts="1 to 8760",
        default="24",
    )

    JWT_SESSION_LIFETIME_DAYS = Variable(
        "How long a login lasts at the most, however often it is refreshed, in days.",
        parse=whole(1, 3650),
        accepts="1 to 3650",
        default="30",
    )
    JWT_REUSE_GRACE_SECONDS = Variable(
        "A spent refresh token that comes back later than this ends its session, in seconds; sooner, it is only"
        " refused.",
        parse=whole(0, 300),
        accepts="0 to 300",
        default="5",
    )

    group_accounts = Group("Accounts")

    DJANGO_ACCOUNT_FAILURES_LIMIT = Variable(
        "How many attempts on the password of one account may fail in one window: from all addresses together that the"
        " account has not been used from, and from each that it has.",
        parse=whole(1, 1_000_000),
        accepts="1 to 1000000",
        default="10",
    )
    DJANGO_ACCOUNT_FAILURES_WINDOW_SECONDS = Variable(
        "How long such a window is, in seconds; it begins with the first failure.",
        parse=whole(1, 86_400),
        accepts="1 to 86400",
        default="900",
    )
    DJANGO_ACTIVATION_ENABLED = Variable(
        "A registration is confirmed by a mail before anybody can log in. Needs EMAIL_URL.",
        parse=flag,
        accepts=TRUE_OR_FALSE,
        default="false",
    )
    DJANGO_ACTIVATION_URL = OptionalVariable(
        "The page of your frontend that confirms a registration, for the link in the mail.",
        parse=link_template,
        accepts="an address with {uid} and {token} in it",
        example="https://app.example.com/activate/{uid}/{token}",
    )
    DJANGO_PASSWORD_RESET_URL = OptionalVariable(
        "The page of your frontend where a new password is chosen, for the link in the mail. Without one there is no"
        " password reset. Needs EMAIL_URL.",
        parse=link_template,
        accepts="an address with {uid} and {token} in it",
        example="https://app.example.com/reset-password/{uid}/{token}",
    )

    group_mail = Group("Mail")

    EMAIL_URL = OptionalVariable(
        "The mail server. Only the upkeep process talks to it, and reads this. consolemail:// writes mail to the log"
        " instead, which is the embedded mode's default.",
        parse=mail_server,
        accepts="smtp://host:port, smtp+tls://user:password@host:port (STARTTLS), smtp+ssl://user:password@host:port"
        " or consolemail://; in the user and the password everything but letters, digits and -._~ as %XX",
        secret=True,
        readers=("upkeep",),
    )
    EMAIL_FROM = OptionalVariable(
        "The sender of mail.",
        parse=text(r"([^<>@\"\r\n]+ <[^<>@\s]+@[A-Za-z0-9.-]+>|[^<>@\s]+@[A-Za-z0-9.-]+)"),
        accepts="an address, or a name and an address in angle brackets",
        example="Transactions <noreply@example.com>",
        readers=("upkeep",),
    )
    EMAIL_NETWORK_INTERNAL = Variable(
        "false gives the upkeep container, which sends mail, a way out to a mail server outside of this host. Compose"
        " cannot negate, hence the negative name.",
        parse=flag,
        accepts=TRUE_OR_FALSE,
        default="true",
        readers=("compose",),
    )

    group_upkeep = Group("Upkeep")

    UPKEEP_INTERVAL_SECONDS = Variable(
        "How often expired rows are removed, in seconds.",
        parse=whole(1, 86_400),
        accepts="1 to 86400",
        default="3600",
        readers=("compose", "scripts"),
    )
    UPKEEP_MEMORY_MB = Variable(
        "The most memory that the upkeep container may use, in MB.",
        parse=whole(64, 1_000_000),
        accepts="64 or more",
        default="192",
        readers=("compose",),
    )

    group_database = Group("Database")

    DATABASE_URL = OptionalVariable(
        "A PostgreSQL server that somebody else runs, in place of POSTGRES_HOST, POSTGRES_PORT, POSTGRES_DB,"
        " POSTGRES_USER and POSTGRES_PASSWORD. Needs DB_REPLICAS=0. Without an sslmode in it, TLS is required. In"
        " containers `migrate` has an address of its own, with the only role that may change the schema.",
        parse=database_url,
        accepts="postgresql://user:password@host:port/database, with libpq's options after a question mark, such as"
        " sslmode=verify-full&sslrootcert=/run/secrets/database_root_certificate; the password has 12 or more"
        " characters; in the user, the password and the database everything but letters, digits and -._~ as %XX",
        secret=True,
        files=("secrets/database_url", "secrets/migrator_database_url"),
    )
    DB_REPLICAS = Variable(
        "1 starts the stack's own database, 0 leaves it to the server that DATABASE_URL names.",
        parse=whole(0, 1),
        accepts="0 or 1",
        default="1",
        readers=("backend", "compose"),
    )
    DATABASE_NETWORK_INTERNAL = Variable(
        "false gives the containers that use the database a way out to a server outside of this host. Compose cannot"
        " negate, hence the negative name.",
        parse=flag,
        accepts=TRUE_OR_FALSE,
        default="true",
        readers=("compose",),
    )
    POSTGRES_HOST = Variable(
        "The database server.",
        parse=text(r"[A-Za-z0-9._:-]{1,253}"),
        accepts="a host name or an address",
        default="db",
        fixed="it is the service `db`; another server is named in DATABASE_URL",
    )
    POSTGRES_PORT = Variable(
        "The port of the database server.",
        parse=whole(1, 65535),
        accepts="1 to 65535",
        default="5432",
        fixed="it is that of the service `db`; another server is named in DATABASE_URL",
    )
    POSTGRES_DB = Variable(
        "The name of the database.",
        parse=text(r"[a-z_][a-z0-9_]{0,62}"),
        accepts="lower-case letters, digits and underscores",
        default="transactions",
        readers=("backend", "db"),
    )
    POSTGRES_USER = Variable(
        "The role that this process signs in as. Compose gives `backend` the role that reads and writes rows and"
        " `migrate` the only one that may change the schema.",
        parse=text(r"[a-z_][a-z0-9_]{0,62}"),
        accepts="lower-case letters, digits and underscores",
        default="transactions_app",
        fixed="`migrate` has one role and the others have another",
    )
    POSTGRES_PASSWORD = Variable(
        "The password of POSTGRES_USER; or several, one a line: while it is being changed, the database takes one of"
        " them.",
        parse=password_ring,
        accepts="12 or more characters without spaces a line",
        secret=True,
        files=("secrets/postgres_app_password", "secrets/postgres_migrator_password"),
        remedy=INIT_REMEDY,
        replaced_by="DATABASE_URL",
    )
    POSTGRES_CONNECT_TIMEOUT_SECONDS = Variable(
        "How long one attempt to connect may take, in seconds.",
        parse=whole(2, 60),  # libpq takes 1 for 2
        accepts="2 to 60",
        default="3",
    )
    POSTGRES_STATEMENT_TIMEOUT_MS = Variable(
        "How long one statement may run, in milliseconds; 0 is without end, as for `migrate`.",
        parse=whole(0, 600_000),
        accepts="0 to 600000",
        default="5000",
    )
    POSTGRES_LOCK_TIMEOUT_MS = Variable(
        "How long one statement may wait for a lock, in milliseconds; 0 is without end.",
        parse=whole(0, 600_000),
        accepts="0 to 600000",
        default="3000",
    )
    POSTGRES_CONNECTION_MAX_AGE_SECONDS = Variable(
        "How long a database connection is kept and used again, in seconds.",
        parse=whole(0, 86_400),
        accepts="0 to 86400",
        default="600",
    )
    POSTGRES_PREPARED_STATEMENTS_ENABLED = Variable(
        "Whether the statements of the busiest endpoints are parsed and planned once for each connection. Switch it off"
        " behind a pooler that does not know prepared statements. A pooler must keep sessions in any case: migrations"
        " and upkeep hold locks in theirs, and end with status 78 where it does not.",
        parse=flag,
        accepts="true or false",
        default="true",
    )
    POSTGRES_MAX_CONNECTIONS = Variable(
        "The connections that the database server accepts. Workers x threads x replicas must fit, with"
        " POSTGRES_RESERVED_CONNECTIONS to spare.",
        parse=whole(10, 10_000),
        accepts="10 to 10000",
        default="100",
        readers=("backend", "db"),
    )
    POSTGRES_RESERVED_CONNECTIONS = Variable(
        "Connections left to upkeep, migrations, backups and people.",
        parse=whole(3, 1_000),
        accepts="3 to 1000",
        default="10",
    )

    group_gunicorn = Group("Gunicorn")

    WEB_CONCURRENCY = Variable(
        "Worker processes in each backend container; `auto` is one for each processor that the container may use, at"
        f" most {sizing.MOST}, no more than POSTGRES_MAX_CONNECTIONS has room for, and two at least in all of them"
        " together.",
        parse=automatic(whole(1, 64)),
        accepts="auto, or 1 to 64",
        default="auto",
    )
    GUNICORN_THREADS = Variable(
        "Threads in each worker process.",
        parse=whole(1, 64),
        accepts="1 to 64",
        default="4",
    )
    GUNICORN_BIND = Variable(
        "Where Gunicorn listens.",
        parse=endpoint,
        accepts="address:port",
        default="0.0.0.0:8000",
        fixed="nginx and the health check look for it there",
    )
    GUNICORN_TIMEOUT_SECONDS = Variable(
        "A worker that is silent for this long is replaced, in seconds.",
        parse=whole(5, 600),
        accepts="5 to 600",
        default="30",
    )
    GUNICORN_GRACEFUL_TIMEOUT_SECONDS = Variable(
        "How long requests may take to finish when a worker stops, in seconds.",
        # No less than idle connections linger (config/worker.py); Compose kills the container after 40 s.
        parse=whole(6, 35),
        accepts="6 to 35",
        default="30",
    )
    BACKEND_REPLICAS = Variable(
        "Backend containers.",
        parse=whole(1, 32),
        accepts="1 to 32",
        default="2",
        readers=("backend", "compose"),
    )

    group_nginx = Group("nginx")

    NGINX_WORKER_PROCESSES = Variable(
        "Worker processes of nginx.", parse=whole(1, 64), accepts="1 to 64", default="2", readers=("nginx",)
    )
    NGINX_CLIENT_MAX_BODY_KB = Variable(
        "The largest request body, in kB.",
        parse=whole(1, 2048),
        accepts="1 to 2048",
        default="1024",
        readers=("nginx",),
    )
    NGINX_CONNECTIONS_PER_ADDRESS = Variable(
        "Connections that one client address may hold open.",
        parse=whole(1, 100_000),
        accepts="1 to 100000",
        default="100",
        readers=("nginx",),
    )
    NGINX_AUTH_RATE = Variable(
        "How often one client address may send something to the account endpoints, which take passwords and tokens,"
        " or log in to the admin site; a burst of 5 more is let through, or of what the rate allows in one second."
        " Where another proxy stands in front, set NGINX_TRUSTED_PROXIES: otherwise all clients have its address.",
        parse=text(r"[1-9][0-9]{0,4}r/[sm]"),
        accepts="a number from 1 to 99999 and r/s or r/m",
        default="30r/m",
        readers=("nginx",),
    )
    NGINX_TRUSTED_PROXIES = OptionalVariable(
        "The proxies in front of nginx, such as a load balancer. X-Forwarded-For and X-Forwarded-Proto are"
        " believed from them alone: limits, sessions and logs then know the client's own address, and links keep"
        " https. Whoever can reach the published port from one of these addresses can pretend to be anybody. For a"
        " proxy on the same host it is the gateway of the network `edge`, which `docker network inspect` shows.",
        parse=networks,
        accepts="addresses or networks, separated by commas, never all addresses",
        example="192.0.2.10,2001:db8::/48",
        readers=("nginx",),
    )
    NGINX_UPSTREAM_TIMEOUT_SECONDS = Variable(
        "How long nginx waits for an answer of the backend, in seconds.",
        parse=whole(1, 600),
        accepts="1 to 600",
        default="12",
        readers=("nginx",),
    )

    group_tls = Group("TLS")

    TLS_CERT_FILE = OptionalVariable(
        "The certificate of this server, followed by those between it and a known authority. Together with TLS_KEY_FILE"
        " it switches HTTPS on: plain HTTP then only redirects. Of the containers, nginx alone sees the folder of the"
        " file; a new file is served within a minute, without a restart.",
        parse=path_of_file,
        accepts="the absolute path of a PEM file, in a folder of its own, that user 101 may read",
        example="/etc/transactions/tls/certificate.pem",
        readers=("compose", "nginx", "scripts"),
    )
    TLS_KEY_FILE = OptionalVariable(
        "The private key of the certificate, without a password.",
        parse=path_of_file,
        accepts="the absolute path of a PEM file, in a folder of its own, that user 101 may read",
        example="/etc/transactions/tls/key.pem",
        readers=("compose", "nginx", "scripts"),
    )
    HTTPS_PORT = Variable(
        "The port on which the API is published over TLS, and to which plain HTTP redirects.",
        parse=whole(1, 65535),
        accepts="1 to 65535",
        default="8443",
        readers=("compose", "nginx", "scripts"),
    )

    group_compose = Group("Compose")

    BIND_ADDRESS = Variable(
        "The address of this host on which the API is published; 0.0.0.0 is every address.",
        parse=address_of_host,
        accepts="an IPv4 address, or an IPv6 address in brackets",
        default="127.0.0.1",
        readers=("compose", "scripts"),
    )
    HTTP_PORT = Variable(
        "The port on which the API is published.",
        parse=whole(1, 65535),
        accepts="1 to 65535",
        default="8080",
        readers=("compose", "scripts"),
    )
    RELEASE = Variable(
        "The tag of the images that are built and started.",
        parse=image_tag,
        accepts="an image tag",
        default="local",
        readers=("compose", "scripts"),
    )
    BACKEND_DEPLOYMENT = Variable(
        "Which deployment the backend containers belong to. ./scripts/deploy counts it, together with RELEASE.",
        parse=whole(0, 999_999_999),
        accepts="0 to 999999999",
        default="0",
        readers=("compose", "scripts"),
    )
    NGINX_RELEASE = OptionalVariable(
        "The tag of the image that the nginx container was made of, where it is not RELEASE: ./scripts/deploy hands"
        " newer releases over to the container that runs, and writes this.",
        parse=image_tag,
        accepts="an image tag",
        example="local",
        readers=("compose", "scripts"),
    )
    DB_RELEASE = OptionalVariable(
        "The tag of the database's image, where it is not RELEASE: ./scripts/deploy does not replace the database, and"
        " writes this.",
        parse=image_tag,
        accepts="an image tag",
        example="local",
        readers=("compose", "scripts"),
    )
    BACKEND_IMAGE = Variable(
        "The name of the backend image, without its tag.",
        parse=image_name,
        accepts="an image name",
        default="transactions-backend",
        readers=("compose",),
    )
    NGINX_PROXY_IMAGE = Variable(
        "The name of the image that is nginx with this release's configuration and static files, without its tag.",
        parse=image_name,
        accepts="an image name",
        default="transactions-nginx",
        readers=("compose",),
    )
    DB_IMAGE = Variable(
        "The name of the image that is PostgreSQL with this stack's roles, without its tag.",
        parse=image_name,
        accepts="an image name",
        default="transactions-db",
        readers=("compose",),
    )
    PYTHON_IMAGE = Variable(
        "The image that the backend is built on.",
        parse=image,
        accepts="an image of Python 3.14 on Debian",
        default="python:3.14-slim-trixie",
        readers=("compose",),
    )
    POSTGRES_IMAGE = Variable(
        "The image that the database is built on.",
        parse=image,
        accepts="an image of PostgreSQL 18 on Debian",
        default="postgres:18-trixie",
        readers=("compose",),
    )
    NGINX_IMAGE = Variable(
        "The image that nginx is built on.",
        parse=image,
        accepts="an unprivileged image of nginx 1.29.8 or newer",
        default="nginxinc/nginx-unprivileged:1.30",
        readers=("compose",),
    )
    BACKEND_MEMORY_MB = Variable(
        "The most memory that one backend container may use, in MB.",
        parse=whole(128, 1_000_000),
        accepts="128 or more",
        default="512",
        readers=("compose",),
    )
    DB_MEMORY_MB = Variable(
        "The most memory that the database container may use, in MB.",
        parse=whole(256, 1_000_000),
        accepts="256 or more",
        default="1024",
        readers=("compose",),
    )
    NGINX_MEMORY_MB = Variable(
        "The most memory that the nginx container may use, in MB.",
        parse=whole(32, 1_000_000),
        accepts="32 or more",
        default="128",
        readers=("compose",),
    )

    group_outside = Group("Outside of Compose")

    ENV_FILE = OptionalVariable(
        "The file from which a process reads what its environment has not.",
        parse=text(r"[^\s*?]+"),
        accepts="a path",
        example=".env",
        readers=("process",),
        fixed="Compose reads .env by itself",
    )

    group_tests = Group("Tests")

    DEBIAN_IMAGE = Variable(
        "What the programs in tests/images are built on: a browser, where the host has none, testssl.sh, a registry, a"
        " pooler.",
        parse=image,
        accepts="an image of Debian",
        default="debian:trixie-slim",
        readers=("scripts",),
    )

    def __init__(self, values: Mapping[str, Any], *, password_origin: str) -> None:
        self.values = values
        self.password_origin = password_origin

    @classmethod
    def variables(cls) -> list[Variable[Any]]:
        """Return every declared variable, in the order of declaration."""
        return [item for item in vars(cls).values() if isinstance(item, Variable)]

    @classmethod
    def groups(cls) -> list[tuple[str, list[Variable[Any]]]]:
        """Return the headings, each with the variables under it."""
        found: list[tuple[str, list[Variable[Any]]]] = []
        for item in vars(cls).values():
            if isinstance(item, Group):
                found.append((item.title, []))
            elif isinstance(item, Variable):
                found[-1][1].append(item)
        return found

    @property
    def workers(self) -> int:
        """How many worker processes this container starts."""
        return self.WEB_CONCURRENCY or sizing.workers(
            threads=self.GUNICORN_THREADS,
            replicas=self.BACKEND_REPLICAS,
            connections=self.POSTGRES_MAX_CONNECTIONS - self.POSTGRES_RESERVED_CONNECTIONS,
        )

    @property
    def database(self) -> Database:
        """The database of this process, however it was named."""
        if self.DATABASE_URL:
            return self.DATABASE_URL
        password, *others = self.POSTGRES_PASSWORD
        return Database(self.POSTGRES_HOST, self.POSTGRES_PORT, self.POSTGRES_DB, self.POSTGRES_USER, password, others)


class ConfigurationError(Exception):
    """Every bad variable, each with what is wrong, what is accepted and what to do."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
        lines = [f"The configuration has {count}; nothing was started.", ""]
        lines += [f"  - {problem}" for problem in problems]
        lines += [
            "",
            "Variables are set in .env, secrets in files under secrets/. env.example explains each of them.",
        ]
        super().__init__("\n".join(lines))


def check(source: Mapping[str, str]) -> Environment:
    """Return the configuration that ``source`` holds; raise ``ConfigurationError`` with all that is wrong."""
    values, problems = read([item for item in Environment.variables() if APPLICATION & set(item.readers)], source)
    problems += strangers(source, prefixes=PREFIXES)
    if problems:
        raise ConfigurationError(problems)
    password = Environment.DATABASE_URL if values["DATABASE_URL"] else Environment.POSTGRES_PASSWORD
    return Environment(values, password_origin=password.origin(source))


def read(variables: Iterable[Variable[Any]], source: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Return the values of ``variables`` in ``source``, and what is wrong with them, each by itself and together."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for variable in variables:
        # Where the other one is there but bad, only that is worth saying.
        replaced = bool(variable.replaced_by) and values.get(variable.replaced_by, "bad") is not None
        if replaced and not any(name in source for name in variable.names):
            continue
        try:
            values[variable.name] = variable.read(source)
        except InvalidError as error:
            remedy = f"; {variable.remedy}" if variable.remedy else ""
            problems.append(f"{variable.name} {error}. Accepted: {variable.accepts}{remedy}.")
    return values, problems + _contradictions(values)


def strangers(names: Iterable[str], *, prefixes: tuple[str, ...], similar: float = 1.0) -> list[str]:
    """Return what is wrong with the names that no variable has, or has any more.

    Refused is what begins with one of ``prefixes``, or is at least so ``similar`` to a variable: it would have no
    effect, and nobody would notice.
    """
    known = [name for variable in Environment.variables() for name in variable.names]
    problems = []
    for name in names:
        if name in Environment.renamed:
            problems.append(
                f"{name} is now called {Environment.renamed[name]}. Rename it, or remove it where both are set."
            )
        elif name not in known and not OF_OTHERS.fullmatch(name):
            meant = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
            if name.startswith(prefixes) or difflib.get_close_matches(name, known, n=1, cutoff=similar):
                question = f"Did you mean {meant[0]}? Rename or remove it" if meant else "Remove it"
                problems.append(f"{name} is unknown. {question}; docs/configuration.md lists every variable.")
    return problems


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    """What is wrong between variables that are each well-formed; a variable already named is left out."""
    problems = []
    if values.get("DJANGO_DEBUG") and values.get("DJANGO_ENVIRONMENT") == "production":
        problems.append(
            "DJANGO_DEBUG is true in production, where it would show secrets to clients. Accepted: false;"
            " to debug on your own machine set DJANGO_ENVIRONMENT=development as well."
        )
    if set(values.get("DJANGO_SECRET_KEY", [])) & set(values.get("JWT_SIGNING_KEY", [])):
        problems.append(
            "JWT_SIGNING_KEY is the same as DJANGO_SECRET_KEY. Accepted: a key of its own, so that one can be replaced"
            f" without the other; {INIT_REMEDY}."
        )
    for name, reason, needed in (
        ("EMAIL_FROM", "EMAIL_URL is set", values.get("EMAIL_URL")),
        ("DJANGO_PASSWORD_RESET_URL", "EMAIL_URL is set", values.get("EMAIL_URL")),
        # Whoever can confirm a registration by mail can choose a new password by mail: one way to have mail, not three.
        ("DJANGO_PASSWORD_RESET_URL", "DJANGO_ACTIVATION_ENABLED is true", values.get("DJANGO_ACTIVATION_ENABLED")),
        ("DJANGO_ACTIVATION_URL", "DJANGO_ACTIVATION_ENABLED is true", values.get("DJANGO_ACTIVATION_ENABLED")),
    ):
        if needed and name in values and values[name] is None:
            problems.append(
                f"{name} is missing although {reason}. Accepted: {getattr(Environment, name).accepts}; set it, or"
                f" {'remove EMAIL_URL' if reason.startswith('EMAIL') else 'set DJANGO_ACTIVATION_ENABLED=false'}."
            )
    if "DATABASE_URL" in values and "DB_REPLICAS" in values and bool(values["DATABASE_URL"]) == values["DB_REPLICAS"]:
        problems.append(
            "DB_REPLICAS is 1 although DATABASE_URL is set. Accepted: 0, with which the stack starts no database of its"
            " own; set it, or empty secrets/database_url and secrets/migrator_database_url."
            if values["DATABASE_URL"]
            else f"DATABASE_URL is missing although DB_REPLICAS is 0. Accepted: {Environment.DATABASE_URL.accepts}; put"
            " it into secrets/database_url, and that of the migrator into secrets/migrator_database_url, or set"
            " DB_REPLICAS=1."
        )
    sizes = (
        "WEB_CONCURRENCY",
        "GUNICORN_THREADS",
        "BACKEND_REPLICAS",
        "POSTGRES_RESERVED_CONNECTIONS",
        "POSTGRES_MAX_CONNECTIONS",
    )
    if all(name in values for name in sizes):
        workers, threads, replicas, reserved, available = (values[name] for name in sizes)
        # By itself it takes no more than there is, and never fewer than the least.
        workers = workers or sizing.least(replicas)
        if workers * threads * replicas + reserved > available:
            problems.append(
                "POSTGRES_MAX_CONNECTIONS is too small. Accepted: at least WEB_CONCURRENCY x GUNICORN_THREADS x"
                " BACKEND_REPLICAS + POSTGRES_RESERVED_CONNECTIONS; raise it or lower one of the others."
            )
    return list(dict.fromkeys(problems))


def load() -> Environment:
    """Return this process's configuration, or end the process with the reason on stderr.

    Where Compose does not hand the variables over, ``ENV_FILE`` names the file to read them from; what
    the environment already has wins.
    """
    if file := Environment.ENV_FILE.read(os.environ):
        import environ  # noqa: PLC0415 # the one thing here that a bare host has not

        environ.Env.read_env(file)
    try:
        return check(os.environ)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        raise SystemExit(EX_CONFIG) from None


def surroundings() -> Mapping[str, str]:
    """Return the variables of this process, unchecked."""
    return os.environ


def example() -> str:
    """Return the text of ``env.example``."""
    lines = [
        "# Every variable of this stack. ./scripts/init copies this file to .env; set there what differs.",
        "# Made from backend/config/env.py by `python -m config.env`: edit that file, not this one.",
        "# One NAME=value a line, nothing around it; in single quotes what holds a quote, a $, or a # after a space.",
        "# An upgrade may bring new files under secrets/, which Compose only misses: ./scripts/init makes them.",
    ]
    for variable in Environment.variables():
        lines += ["", f"# {variable.purpose}"]
        lines.append(f"# Read by {', '.join(variable.readers)}. Accepted: {variable.accepts}.")
        if isinstance(variable, OptionalVariable):
            lines.append(
                "# Optional."
                + (
                    f" A secret: Compose mounts {' and '.join(variable.files)}; outside give one of the two:"
                    if variable.secret
                    else ""
                )
            )
            lines += [f"#{name}={variable.example}" for name in variable.names]
        elif variable.secret:
            lines.append(f"# Required. A secret: Compose mounts {' and '.join(variable.files)},")
            lines.append("# which ./scripts/init makes. Outside Compose give one of the two:")
            lines += [f"#{name}=" for name in variable.names]
        elif variable.default is None:
            lines.append("# Required.")
            lines.append(f"{variable.name}={variable.example}")
        else:
            lines.append(f"#{variable.name}={variable.default}")
    return "\n".join(lines) + "\n"


def markdown() -> str:
    """Return the text of ``docs/configuration.md``."""
    lines = [
        "# Configuration",
        "",
        _wrapped(
            "Every variable of this stack. Variables are set in `.env`, one `NAME=value` a line, in single quotes where"
            " the value holds a quote, a `$`, or a `#` after a space; secrets are files under `secrets/`."
            " `./scripts/up` checks both before it starts anything, and every process checks what it reads; what is"
            " wrong is named in one message, without its value."
        ),
        "",
        "Made from `backend/config/env.py` by `python -m config.env --format markdown`: edit that file, not this one.",
    ]
    for title, variables in Environment.groups():
        lines += ["", f"## {title}"]
        for variable in variables:
            lines += ["", f"### {variable.name}", "", _wrapped(_literal(variable.purpose)), ""]
            lines += [
                _wrapped(f"- {label}: {_literal(value)}", indent="  ") for label, value in _facts(variable) if value
            ]
    return "\n".join(lines) + "\n"


def _facts(variable: Variable[Any]) -> list[tuple[str, str]]:
    default = f"`{variable.default}`" if variable.default is not None else "none; required"
    if isinstance(variable, OptionalVariable):
        default = "none; optional"
    elif variable.replaced_by:
        default += f" unless {variable.replaced_by} is given"
    files = " and ".join(f"`{name}`" for name in variable.files)
    return [
        ("Accepted", variable.accepts),
        ("Default", default),
        ("Example", f"`{variable.example}`" if variable.example else ""),
        ("Read by", ", ".join(variable.readers)),
        ("Secret", f"in containers {files}; elsewhere `{variable.name}` or `{variable.name}_FILE`" if files else ""),
        ("Fixed in containers", variable.fixed),
    ]


def _wrapped(words: str, indent: str = "") -> str:
    return textwrap.fill(words, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _literal(words: str) -> str:
    """Return ``words`` with what Markdown would take for markup between backquotes."""
    kept = re.split(r"(`[^`]*`)", words)
    return "".join(
        item if item.startswith("`") else re.sub(r"[^\s;,]*[_*~{<|][^\s;,]*[^\s;,.:]", r"`\g<0>`", item)
        for item in kept
    )


def main() -> None:
    """Print one of the texts that are made from the registry."""
    parser = argparse.ArgumentParser(
        prog="python -m config.env", description="Print what the registry of variables says."
    )
    parser.add_argument(
        "--format", choices=("env", "markdown"), default="env", help="env.example or docs/configuration.md"
    )
    sys.stdout.write({"env": example, "markdown": markdown}[parser.parse_args().format]())


if __name__ == "__main__":
    main()
