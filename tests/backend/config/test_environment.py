"""The registry of variables: what each accepts, and the one message that names everything that is wrong."""

import os
import secrets
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from django.db import connection
from psycopg import sql

from config.env import (
    APPLICATION,
    EX_CONFIG,
    ConfigurationError,
    Environment,
    InvalidError,
    OptionalVariable,
    Variable,
    check,
)
from tests.backend.conftest import Python

CANARY = "canary-4c1d9e"
"""Part of every bad value: no message may hold it."""

READ = [variable for variable in Environment.variables() if APPLICATION & set(variable.readers)]
REQUIRED = [variable for variable in READ if variable.default is None and not isinstance(variable, OptionalVariable)]
OPTIONAL = [variable for variable in READ if variable.default is not None]
SECRETS = [variable for variable in READ if variable.secret]
REQUIRED_SECRETS = [variable for variable in REQUIRED if variable.secret]

MAIL = {
    "EMAIL_FROM": "Transactions <noreply@example.com>",
    "DJANGO_PASSWORD_RESET_URL": "https://app.example.com/reset/{uid}/{token}",
}
MAIL_SERVER = "smtp+tls://user:p%40ss@mail.example.com:587"
MANAGED = "postgresql://transactions_app:correct-horse@db.example.com:6432/ledger"


def named(variable: Variable[Any]) -> str:
    return variable.name


@pytest.fixture
def sound() -> dict[str, str]:
    """Return the least configuration that is accepted."""
    return {
        "DJANGO_SECRET_KEY": secrets.token_urlsafe(48),
        "JWT_SIGNING_KEY": secrets.token_urlsafe(48),
        "POSTGRES_PASSWORD": secrets.token_urlsafe(24),
        "DJANGO_ALLOWED_HOSTS": "localhost,127.0.0.1,[::1]",
    }


@pytest.fixture
def complete(sound: dict[str, str]) -> dict[str, str]:
    """Return a configuration with every secret, and what some of them need."""
    return {**sound, **MAIL, "EMAIL_URL": MAIL_SERVER, "DATABASE_URL": MANAGED, "DB_REPLICAS": "0"}


def problems(source: Mapping[str, str]) -> list[str]:
    """Return what is wrong with ``source``, and make sure that no value is in the message."""
    with pytest.raises(ConfigurationError) as caught:
        check(source)
    assert CANARY not in str(caught.value)
    return caught.value.problems


# Each variable --------------------------------------------------------------------------------------------------------


def test_configuration_needs_nothing_but_what_is_required(sound: dict[str, str]) -> None:
    assert set(sound) == {variable.name for variable in REQUIRED}

    environment = check(sound)

    assert environment.DJANGO_ENVIRONMENT == "production"
    assert (environment.DJANGO_DEBUG, environment.DJANGO_ADMIN_ENABLED) == (False, False)
    assert environment.DJANGO_ALLOWED_HOSTS == ["localhost", "127.0.0.1", "[::1]"]


@pytest.mark.parametrize("variable", REQUIRED, ids=named)
def test_required_variable_that_is_missing_is_named(sound: dict[str, str], variable: Variable[Any]) -> None:
    del sound[variable.name]

    (problem,) = problems(sound)

    assert problem.startswith(f"{variable.name} is missing. Accepted: {variable.accepts}; {variable.remedy}.")


@pytest.mark.parametrize("variable", OPTIONAL, ids=named)
def test_default_of_an_optional_variable_is_accepted(sound: dict[str, str], variable: Variable[Any]) -> None:
    spelled_out = check({**sound, variable.name: str(variable.default)})

    assert spelled_out.values == check(sound).values


@pytest.mark.parametrize("variable", READ, ids=named)
def test_variable_that_is_empty_is_named(sound: dict[str, str], variable: Variable[Any]) -> None:
    (problem,) = problems({**sound, variable.name: ""})

    assert problem.startswith(f"{variable.name} is empty. Accepted: {variable.accepts}")


@pytest.mark.parametrize(
    "garbage", [f"{CANARY} with spaces", f"{CANARY}\\n", f"{CANARY}\n*", f"{CANARY}\x00", f"{CANARY}=*"]
)
@pytest.mark.parametrize("variable", READ, ids=named)
def test_variable_with_garbage_is_named_without_its_value(
    sound: dict[str, str], variable: Variable[Any], garbage: str
) -> None:
    if variable.secret and garbage.isprintable() and " " not in garbage:
        garbage = CANARY[:11]  # a password may hold what other variables may not; it may not be short

    (problem,) = problems({**sound, variable.name: garbage})

    assert problem.startswith(f"{variable.name} ")
    assert f"Accepted: {variable.accepts}" in problem


@pytest.mark.parametrize("variable", READ, ids=named)
def test_variable_that_ends_with_a_newline_is_named_or_is_the_same(
    sound: dict[str, str], variable: Variable[Any]
) -> None:
    value = sound.get(variable.name, variable.default or variable.example or CANARY)

    try:
        accepted = check({**sound, variable.name: f"{value}\n"}).values[variable.name]
    except ConfigurationError as error:
        named_there = [problem.split()[0] for problem in error.problems]
    else:
        named_there = [variable.name] if accepted == variable.parse(value) else []

    assert named_there == [variable.name]


@pytest.mark.parametrize("variable", [item for item in READ if item not in REQUIRED_SECRETS], ids=named)
def test_variable_that_begins_with_a_dollar_is_named(sound: dict[str, str], variable: Variable[Any]) -> None:
    (problem,) = problems({**sound, variable.name: f"${CANARY}"})

    assert problem.startswith(f"{variable.name} ")


@pytest.mark.parametrize(
    "boolean", ["ture", "True", "TRUE", "1", "0", "yes", "no", "on", "off", "enabled", "true ", "-1"]
)
@pytest.mark.parametrize("name", [variable.name for variable in READ if variable.accepts == "true or false"])
def test_boolean_is_true_or_false_and_nothing_like_it(sound: dict[str, str], name: str, boolean: str) -> None:
    (problem,) = problems({**sound, name: boolean})

    assert problem == f"{name} is none of the accepted words. Accepted: true or false."


def whole_numbers() -> list[str]:
    values = check({variable.name: "x" * 13 + str(n) + "abcdefghij" * 5 for n, variable in enumerate(REQUIRED)})
    return [name for name, value in values.values.items() if type(value) is int]


@pytest.mark.parametrize(
    "number", ["-1", "1.5", "1e3", "1_000", "0x10", " 5", "5 ", "5\n", "\u0665", "9" * 40, "five", "999999999"]
)
@pytest.mark.parametrize("name", whole_numbers())
def test_number_is_whole_and_in_range(sound: dict[str, str], name: str, number: str) -> None:
    (problem,) = problems({**sound, name: number})

    assert problem.startswith(f"{name} is ")


@pytest.mark.parametrize("bind", ["0.0.0.0", ":8000", "0.0.0.0:0", "0.0.0.0:65536", "0.0.0.0:99999", "unix:/x", "[::1"])  # noqa: S104 # only read
def test_address_to_listen_on_has_a_host_and_a_port(sound: dict[str, str], bind: str) -> None:
    (problem,) = problems({**sound, "GUNICORN_BIND": bind})

    assert problem.startswith("GUNICORN_BIND is ")


@pytest.mark.parametrize("bind", ["127.0.0.1:1", "10.0.0.7:8000", "[::]:65535", "localhost:8000"])
def test_address_to_listen_on_is_accepted(sound: dict[str, str], bind: str) -> None:
    assert bind == check({**sound, "GUNICORN_BIND": bind}).GUNICORN_BIND


# Hosts ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hosts",
    ["*", "a,*", "*.example.com", ".", "a,,b", ",", "a,", "http://a", "a:8080", "a/b", "a b", "[::1", "[::g]", "a..b",
     "-a", "a-", "ä.example", "a\nb", "::1"],
)  # fmt: skip
def test_hosts_are_names_and_addresses_and_never_everything(sound: dict[str, str], hosts: str) -> None:
    (problem,) = problems({**sound, "DJANGO_ALLOWED_HOSTS": hosts})

    assert problem.startswith("DJANGO_ALLOWED_HOSTS ")


@pytest.mark.parametrize("hosts", ["*", "a,*", "*.example.com", "."])
def test_hosts_that_would_accept_everything_are_refused_in_those_words(sound: dict[str, str], hosts: str) -> None:
    (problem,) = problems({**sound, "DJANGO_ALLOWED_HOSTS": hosts})

    assert problem.startswith("DJANGO_ALLOWED_HOSTS would accept every host name.")


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ("a.example", ["a.example"]),
        ("a.example, b.example", ["a.example", "b.example"]),
        (".example.com", [".example.com"]),
        ("127.0.0.1,[::1]", ["127.0.0.1", "[::1]"]),
        ("xn--bcher-kva.example", ["xn--bcher-kva.example"]),
    ],
)
def test_hosts_are_separated_by_commas(sound: dict[str, str], hosts: str, expected: list[str]) -> None:
    assert expected == check({**sound, "DJANGO_ALLOWED_HOSTS": hosts}).DJANGO_ALLOWED_HOSTS


# Secrets --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("variable", SECRETS, ids=named)
def test_secret_from_a_file_is_read_without_the_newline_at_its_end(
    complete: dict[str, str], variable: Variable[Any], ending: str, tmp_path: Path
) -> None:
    value = complete.pop(variable.name)
    file = tmp_path / "secret"
    file.write_bytes((value + ending).encode())

    environment = check({**complete, f"{variable.name}_FILE": str(file)})

    assert environment.values[variable.name] == variable.parse(value)


@pytest.mark.parametrize("variable", SECRETS, ids=named)
def test_secret_given_twice_is_named(complete: dict[str, str], variable: Variable[Any], tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(complete[variable.name])

    (problem,) = problems({**complete, f"{variable.name}_FILE": str(file)})

    assert problem.startswith(f"{variable.name} is set together with {variable.name}_FILE: keep one of the two.")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "No such file or directory"),
        (b"\xff\xfe", "it is not UTF-8 text"),
        (CANARY.encode() + b" " + CANARY.encode() * 5, "Accepted: "),
    ],
    ids=["missing", "binary", "space"],
)
@pytest.mark.parametrize("variable", SECRETS, ids=named)
def test_secret_file_that_holds_none_is_named(
    complete: dict[str, str], variable: Variable[Any], content: bytes | None, complaint: str, tmp_path: Path
) -> None:
    del complete[variable.name]
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)

    (problem,) = problems({**complete, f"{variable.name}_FILE": str(file)})

    assert problem.startswith(f"{variable.name} ")
    assert complaint in problem


@pytest.mark.parametrize("content", ["", "\n"])
@pytest.mark.parametrize("variable", SECRETS, ids=named)
def test_empty_secret_file_is_named_where_the_secret_is_required(
    sound: dict[str, str], variable: Variable[Any], content: str, tmp_path: Path
) -> None:
    sound.pop(variable.name, None)
    file = tmp_path / "secret"
    file.write_text(content)
    source = {**sound, f"{variable.name}_FILE": str(file)}

    if variable not in REQUIRED_SECRETS:
        assert check(source).values[variable.name] is None
        return
    (problem,) = problems(source)

    assert problem.startswith(f"{variable.name} is empty.")


@pytest.mark.parametrize("variable", SECRETS, ids=named)
def test_secret_file_that_cannot_be_read_is_named_with_its_path(
    complete: dict[str, str], variable: Variable[Any], tmp_path: Path
) -> None:
    del complete[variable.name]

    # A folder cannot be read as a file by anybody, root included.
    (problem,) = problems({**complete, f"{variable.name}_FILE": str(tmp_path)})

    assert f"{variable.name}_FILE names, {tmp_path}: Is a directory" in problem


@pytest.mark.parametrize("variable", REQUIRED_SECRETS, ids=named)
def test_secret_that_begins_with_a_dollar_is_taken_as_it_is(sound: dict[str, str], variable: Variable[Any]) -> None:
    value = f"$HOME${{PATH}}{sound[variable.name]}"

    assert check({**sound, variable.name: value}).values[variable.name] == [value]


@pytest.mark.parametrize("special", "!#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\"")
def test_password_may_hold_any_special_character(sound: dict[str, str], special: str) -> None:
    password = f"{special}abc{special}defghijk{special}"

    assert [password] == check({**sound, "POSTGRES_PASSWORD": password}).POSTGRES_PASSWORD


@pytest.mark.parametrize("name", ["DJANGO_SECRET_KEY", "JWT_SIGNING_KEY"])
@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        ("0123456789" * 4 + "012345678", "is too short"),
        ("django-insecure-" + "0123456789abcdef" * 4, "is easy to guess"),
        ("x" * 60, "is easy to guess"),
        ("changeme" * 8, "is easy to guess"),
    ],
)
def test_key_that_is_short_or_a_placeholder_is_refused(
    sound: dict[str, str], name: str, key: str, complaint: str
) -> None:
    (problem,) = problems({**sound, name: key})

    assert problem.startswith(f"{name} {complaint}. Accepted: 50 or more random characters")
    assert "run ./scripts/init" in problem


# What may be missing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", "\n"])
def test_mail_server_may_be_in_a_file(sound: dict[str, str], ending: str, tmp_path: Path) -> None:
    file = tmp_path / "email_url"
    file.write_text(MAIL_SERVER + ending)

    server = check({**sound, **MAIL, "EMAIL_URL_FILE": str(file)}).EMAIL_URL

    assert server is not None
    assert (server.host, server.port, server.user, server.password) == ("mail.example.com", 587, "user", "p@ss")
    assert (server.use_tls, server.use_ssl) == (True, False)


def test_what_mail_needs_is_named(sound: dict[str, str]) -> None:
    found = problems({**sound, "EMAIL_URL": f"smtp+tls://user:{CANARY}@mail.example.com:587"})

    assert [problem.split(".")[0] for problem in found] == [
        "EMAIL_FROM is missing although EMAIL_URL is set",
        "DJANGO_PASSWORD_RESET_URL is missing although EMAIL_URL is set",
    ]


def test_activation_needs_both_pages(sound: dict[str, str]) -> None:
    found = problems({**sound, "DJANGO_ACTIVATION_ENABLED": "true"})

    pages = ["DJANGO_PASSWORD_RESET_URL", "DJANGO_ACTIVATION_URL"]
    assert [problem.split(" is missing ")[0] for problem in found] == pages


def test_process_that_answers_people_needs_no_mail_server(sound: dict[str, str]) -> None:
    page = MAIL["DJANGO_PASSWORD_RESET_URL"]

    assert check({**sound, "DJANGO_PASSWORD_RESET_URL": page}).EMAIL_URL is None


def test_process_that_sends_mail_names_the_mail_server_that_it_lacks(manage: Python) -> None:
    started = time.monotonic()

    done = manage("upkeep", DJANGO_PASSWORD_RESET_URL=MAIL["DJANGO_PASSWORD_RESET_URL"])

    assert done.returncode == EX_CONFIG
    assert time.monotonic() - started < 5
    assert "  - EMAIL_URL is missing although DJANGO_PASSWORD_RESET_URL is set. Accepted: smtp://" in done.stderr
    assert "secrets/email_url" in done.stderr


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://mail", ("mail", 25, "", False, False)),
        ("smtp://mail:2525", ("mail", 2525, "", False, False)),
        ("smtp+tls://u:p@mail.example.com", ("mail.example.com", 587, "p", True, False)),
        ("smtp+ssl://u%40x:%2F%23%24%3A@mail", ("mail", 465, "/#$:", False, True)),
    ],
)
def test_mail_server_is_an_address(sound: dict[str, str], url: str, expected: tuple[object, ...]) -> None:
    server = check({**sound, **MAIL, "EMAIL_URL": url}).EMAIL_URL

    assert server is not None
    assert (server.host, server.port, server.password, server.use_tls, server.use_ssl) == expected


@pytest.mark.parametrize(
    "url",
    ["smtp", "smtp://", "mail:25", "http://mail", "smtp://u:p@mail", "smtp+tls://u@mail", "smtp+tls://u:p/q@mail",
     "smtp+tls://u:p+q@mail", "smtp://mail:0x19", "smtp://mail:999999", "smtp://mail/path", "consolemail://x",
     "smtp://mail?tls=true", "smtp://ma il"],
)  # fmt: skip
def test_what_is_no_mail_server_is_refused(sound: dict[str, str], url: str) -> None:
    (problem,) = problems({**sound, **MAIL, "EMAIL_URL": url})

    assert problem.startswith("EMAIL_URL ")
    assert url in {"smtp", "smtp://"} or url not in problem


@pytest.mark.parametrize(
    "page", ["/reset/{uid}/{token}", "https://a/{uid}", "https://a/{uid}/{token}/{uid}", "https://a/{uid}/{token}/{x}"]
)
def test_what_is_no_page_is_refused(sound: dict[str, str], page: str) -> None:
    (problem,) = problems({**sound, "DJANGO_PASSWORD_RESET_URL": page})

    assert problem.startswith("DJANGO_PASSWORD_RESET_URL ")


# A database that somebody else runs -----------------------------------------------------------------------------------

SPECIALS = "!#$%&'()*+,/:;=?@[]"
"""What a URL gives a meaning to; every other character that can be printed is in the test as well."""


@pytest.fixture
def managed(sound: dict[str, str]) -> dict[str, str]:
    """Return the least configuration with which the stack has no database of its own."""
    del sound["POSTGRES_PASSWORD"]
    return {**sound, "DB_REPLICAS": "0"}


def test_address_of_a_database_replaces_everything_that_names_one(managed: dict[str, str]) -> None:
    database = check({**managed, "DATABASE_URL": MANAGED, "POSTGRES_HOST": "elsewhere"}).database

    assert (database.host, database.port, database.name) == ("db.example.com", 6432, "ledger")
    assert (database.user, database.password) == ("transactions_app", "correct-horse")
    assert database.password not in repr(database)


def test_without_an_address_the_database_is_that_of_the_stack(sound: dict[str, str]) -> None:
    database = check({**sound, "DATABASE_URL_FILE": os.devnull}).database

    assert (database.host, database.port, database.name, database.user) == (
        *("db", 5432, "transactions"),
        "transactions_app",
    )
    assert database.password == sound["POSTGRES_PASSWORD"]
    assert database.options == {}


@pytest.mark.parametrize("special", [*SPECIALS, *'"-.<>\\^_`{|}~', "%41", "ü"])
def test_password_in_an_address_may_hold_any_special_character(managed: dict[str, str], special: str) -> None:
    password = f"{special}abc{special}defghijk{special}"

    url = MANAGED.replace("correct-horse", quote(password, safe=""))

    assert check({**managed, "DATABASE_URL": url}).database.password == password


@pytest.mark.parametrize("special", '/?#@:%[] "')
def test_special_character_that_is_not_encoded_is_refused_and_not_shown(managed: dict[str, str], special: str) -> None:
    (problem,) = problems({**managed, "DATABASE_URL": MANAGED.replace("correct", f"{CANARY}{special}x")})

    assert problem.startswith("DATABASE_URL is malformed. Accepted: postgresql://")
    assert "as %XX" in problem


def test_address_may_be_in_a_file_with_a_newline(managed: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text(MANAGED + "\n")

    assert check({**managed, "DATABASE_URL_FILE": str(file)}).database.name == "ledger"


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("", {"sslmode": "require"}),
        ("?sslmode=disable", {"sslmode": "disable"}),
        ("?sslmode=verify-full&sslrootcert=/run/secrets/database_root_certificate",
         {"sslmode": "verify-full", "sslrootcert": "/run/secrets/database_root_certificate"}),
        ("?application_name=ledger%20api&target_session_attrs=read-write",
         {"sslmode": "require", "application_name": "ledger api", "target_session_attrs": "read-write"}),
    ],
)  # fmt: skip
def test_address_has_options_of_libpq_and_tls_unless_it_says_otherwise(
    managed: dict[str, str], query: str, options: dict[str, str]
) -> None:
    assert check({**managed, "DATABASE_URL": MANAGED + query}).database.options == options


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("mysql://u:correct-horse@h/d", "is malformed"),
        ("postgresql://h/d", "is malformed"),
        ("postgresql://u@h/d", "is malformed"),
        ("postgresql://u:correct-horse@h", "is malformed"),
        ("postgresql://u:correct-horse@h/", "is malformed"),
        ("postgresql://u:correct-horse@h:x/d", "is malformed"),
        ("postgresql://u:correct-horse@h:0/d", "is out of range"),
        ("postgresql://u:correct-horse@h:65536/d", "is out of range"),
        ("postgresql://u:correct-horse@h1,h2/d", "is malformed"),
        ("postgresql://u:correct%FFhorse@h/d", "is malformed"),
        ("postgresql://u:correct%00horse@h/d", "has a password that contains a space or an unprintable character"),
        ("postgresql://u%0A:correct-horse@h/d", "contains an unprintable character"),
        ("postgresql://u:short@h/d", "has a password that is too short"),
        (MANAGED + "?", "is malformed"),
        (MANAGED + "?sslmode", "is malformed"),
        (MANAGED + "?sslmode=on", "has an sslmode that does not exist"),
        (MANAGED + "?sslmode=require&sslmode=disable", "has an option twice"),
        (MANAGED + "?sslmode=verify-full", "verifies the server without sslrootcert"),
        (MANAGED + "?password=correct-horse", "has an option that is none of the accepted ones"),
        (MANAGED + "?pool=true", "has an option that is none of the accepted ones"),
        (MANAGED + "?connect_timeout=1", "has an option that is none of the accepted ones"),
    ],
)
def test_what_is_no_address_of_a_database_is_refused(managed: dict[str, str], url: str, complaint: str) -> None:
    (problem,) = problems({**managed, "DATABASE_URL": url})

    assert problem.startswith(f"DATABASE_URL {complaint}. Accepted: ")
    assert url not in problem


def test_two_databases_at_once_are_refused_and_none_too(managed: dict[str, str]) -> None:
    (both,) = problems({**managed, "DATABASE_URL": MANAGED, "DB_REPLICAS": "1"})
    (none,) = problems({**managed, "POSTGRES_PASSWORD": "correct-horse"})

    assert both.startswith("DB_REPLICAS is 1 although DATABASE_URL is set.")
    assert none.startswith("DATABASE_URL is missing although DB_REPLICAS is 0.")
    assert "secrets/migrator_database_url" in both
    assert "secrets/migrator_database_url" in none


@pytest.mark.django_db
@pytest.mark.parametrize("word", ["hunter2'!#$%&()*+,/:;=?@[]", '\\^_`{|}~<>"-. correct'.replace(" ", "")])
def test_django_signs_in_with_an_address_whose_password_is_special(
    manage: Python, configuration: dict[str, str], word: str
) -> None:
    parameters = connection.get_connection_params()
    name = str(connection.settings_dict["NAME"])
    with psycopg.connect(**parameters, autocommit=True) as server:
        role = sql.Identifier(f"special_{secrets.token_hex(4)}")
        server.execute(sql.SQL("CREATE ROLE {} LOGIN SUPERUSER PASSWORD {}").format(role, sql.Literal(word)))
        try:
            url = f"postgresql://{role.as_string()[1:-1]}:{quote(word, safe='')}@{parameters['host']}"
            url += f":{parameters['port']}/{name}?sslmode=disable&application_name=special"
            code = "from django.db import connection as c; k = c.cursor(); k.execute("
            code += "\"SELECT current_user || ' ' || current_setting('application_name')\"); print(k.fetchone()[0])"

            done = manage(
                *("shell", "-v0", "-c", code),
                DATABASE_URL=url,
                DB_REPLICAS="0",
                POSTGRES_PASSWORD_FILE=None,
                POSTGRES_HOST="nowhere.invalid",
            )
        finally:
            server.execute(sql.SQL("DROP ROLE {}").format(role))

    assert done.stdout == f"{role.as_string()[1:-1]} special\n", done.stderr


# Names that no variable has -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DJANGO_ALOWED_HOSTS", "DJANGO_ALLOWED_HOSTS"),
        ("DJANGO_DEBUG_FILE", "DJANGO_DEBUG"),
        ("JWT_SIGNINGKEY", "JWT_SIGNING_KEY"),
        ("POSTGRES_PASSWORD_FILES", "POSTGRES_PASSWORD_FILE"),
        ("DATABASE_URI", "DATABASE_URL"),
        ("EMAIL_URLS", "EMAIL_URL"),
        ("GUNICORN_THREAD", "GUNICORN_THREADS"),
    ],
)
def test_name_that_was_mistyped_is_named_with_the_one_that_was_meant(
    sound: dict[str, str], name: str, meant: str
) -> None:
    (problem,) = problems({**sound, name: CANARY})

    assert problem.startswith(f"{name} is unknown. Did you mean {meant}? ")


def test_name_that_is_like_no_other_is_named_all_the_same(sound: dict[str, str]) -> None:
    assert problems({**sound, "JWT_XYZZY": CANARY})[0].startswith("JWT_XYZZY is unknown. Remove it; docs/")


@pytest.mark.parametrize(
    "name", ["DJANGO_SETTINGS_MODULE", "DJANGO_COLORS", "GUNICORN_CMD_ARGS", "POSTGRES_SECRETS", "PATH", "DB_X", "TZ"]
)
def test_name_that_somebody_else_reads_is_left_alone(sound: dict[str, str], name: str) -> None:
    check({**sound, name: CANARY})


def test_name_that_a_variable_had_before_is_refused_with_the_one_it_has_now(
    sound: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Environment, "renamed", {"DJANGO_HOSTS": "DJANGO_ALLOWED_HOSTS"})

    (problem,) = problems({**sound, "DJANGO_HOSTS": CANARY})

    assert problem == ("DJANGO_HOSTS is now called DJANGO_ALLOWED_HOSTS. Rename it, or remove it where both are set.")


def test_names_of_before_lead_to_names_of_now() -> None:
    names = {name for variable in Environment.variables() for name in variable.names}

    assert set(Environment.renamed.values()) <= names
    assert not set(Environment.renamed) & names


def test_process_refuses_a_name_that_was_mistyped_in_the_file_it_reads(manage: Python, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text(f"DJANGO_DEBG={CANARY}\n")

    done = manage("check", ENV_FILE=str(file))

    assert done.returncode == EX_CONFIG
    assert "  - DJANGO_DEBG is unknown. Did you mean DJANGO_DEBUG?" in done.stderr
    assert CANARY not in done.stderr


# Between variables ----------------------------------------------------------------------------------------------------


def test_debug_in_production_is_refused(sound: dict[str, str]) -> None:
    (problem,) = problems({**sound, "DJANGO_DEBUG": "true"})

    assert problem.startswith("DJANGO_DEBUG is true in production")
    assert check({**sound, "DJANGO_DEBUG": "true", "DJANGO_ENVIRONMENT": "development"}).DJANGO_DEBUG


def test_one_key_for_two_purposes_is_refused(sound: dict[str, str]) -> None:
    (problem,) = problems({**sound, "JWT_SIGNING_KEY": sound["DJANGO_SECRET_KEY"]})

    assert problem.startswith("JWT_SIGNING_KEY is the same as DJANGO_SECRET_KEY")


def test_a_key_that_was_replaced_is_for_one_purpose_too(sound: dict[str, str]) -> None:
    old, new = secrets.token_urlsafe(48), secrets.token_urlsafe(48)

    (problem,) = problems({**sound, "DJANGO_SECRET_KEY": f"{new}\n{old}", "JWT_SIGNING_KEY": old})

    assert problem.startswith("JWT_SIGNING_KEY is the same as DJANGO_SECRET_KEY")


@pytest.mark.parametrize("name", ["DJANGO_SECRET_KEY", "JWT_SIGNING_KEY", "POSTGRES_PASSWORD"])
def test_a_secret_that_is_being_replaced_is_several_lines(sound: dict[str, str], name: str) -> None:
    old, new = secrets.token_urlsafe(48), secrets.token_urlsafe(48)

    assert check({**sound, name: f"{new}\n{old}"}).values[name] == [new, old]
    for wrong in (f"{new}\n\n{old}", f"{new}\nshort", f"{new} {old}"):
        (problem,) = problems({**sound, name: wrong})
        assert problem.startswith(name)


@pytest.mark.parametrize(
    ("sizes", "fits"),
    [
        ({"WEB_CONCURRENCY": "9", "GUNICORN_THREADS": "5", "BACKEND_REPLICAS": "2"}, True),  # 90 + 10 = 100
        ({"WEB_CONCURRENCY": "9", "GUNICORN_THREADS": "5", "BACKEND_REPLICAS": "3"}, False),
        ({"POSTGRES_RESERVED_CONNECTIONS": "92"}, True),  # 1 x 4 x 2 + 92 = 100
        ({"POSTGRES_RESERVED_CONNECTIONS": "93"}, False),
        ({"POSTGRES_MAX_CONNECTIONS": "18"}, True),
        ({"POSTGRES_MAX_CONNECTIONS": "17"}, False),
        ({"POSTGRES_MAX_CONNECTIONS": "18", "BACKEND_REPLICAS": "1"}, True),  # 2 x 4 x 1 + 10
        ({"POSTGRES_MAX_CONNECTIONS": "17", "BACKEND_REPLICAS": "1"}, False),
    ],
)
def test_connections_must_fit_those_of_the_database(sound: dict[str, str], sizes: dict[str, str], fits: bool) -> None:
    if fits:
        check({**sound, **sizes})
        return

    (problem,) = problems({**sound, **sizes})

    assert problem.startswith("POSTGRES_MAX_CONNECTIONS is too small.")


def test_everything_that_is_wrong_is_in_one_message(sound: dict[str, str]) -> None:
    wrong = {variable.name: f"{CANARY} \x00" for variable in READ}

    found = problems({**sound, **wrong})

    assert [problem.split()[0] for problem in found] == [variable.name for variable in READ]


def test_message_says_how_many_what_is_accepted_and_what_to_do() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check({"DJANGO_DEBUG": "ture"})

    assert str(caught.value).splitlines() == [
        "The configuration has 5 errors; nothing was started.",
        "",
        "  - DJANGO_SECRET_KEY is missing. Accepted: 50 or more random characters a line;"
        " run ./scripts/init, which makes a random one.",
        "  - DJANGO_ALLOWED_HOSTS is missing. Accepted: host names or addresses separated by commas, never *;"
        " list the names under which clients reach this service.",
        "  - DJANGO_DEBUG is none of the accepted words. Accepted: true or false.",
        "  - JWT_SIGNING_KEY is missing. Accepted: 50 or more random characters a line, not those of DJANGO_SECRET_KEY;"
        " run ./scripts/init, which makes a random one.",
        "  - POSTGRES_PASSWORD is missing. Accepted: 12 or more characters without spaces a line;"
        " run ./scripts/init, which makes a random one.",
        "",
        "Variables are set in .env, secrets in files under secrets/. env.example explains each of them.",
    ]


def test_variable_that_another_service_reads_is_not_checked_here(sound: dict[str, str]) -> None:
    check({**sound, "NGINX_WORKER_PROCESSES": "many", "HTTP_PORT": "x"})


@pytest.mark.parametrize("variable", Environment.variables(), ids=named)
def test_default_or_example_of_every_variable_is_accepted_by_itself(variable: Variable[Any]) -> None:
    text = variable.default or variable.example
    if variable.secret:
        assert text == ""
        with pytest.raises(InvalidError):
            variable.parse(text)
    else:
        variable.parse(text)


# The process ----------------------------------------------------------------------------------------------------------

BAD: dict[str, str | None] = {
    "DJANGO_SECRET_KEY": f"{CANARY}-short",
    "DJANGO_ALLOWED_HOSTS": f"*,{CANARY}",
    "DJANGO_DEBUG": f"{CANARY}-true",
    "JWT_SIGNING_KEY": None,
    "POSTGRES_PASSWORD_FILE": "/nowhere/postgres_password",
    "POSTGRES_PORT": f"{CANARY}5432",
    "WEB_CONCURRENCY": "",
}


def assert_refusal(done: "subprocess.CompletedProcess[str]", seconds: float) -> None:
    assert done.returncode == EX_CONFIG == 78
    assert seconds < 5
    assert done.stdout == ""
    assert CANARY not in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("The configuration has 7 errors; nothing was started.")
    for name in BAD:
        assert f"  - {name.removesuffix('_FILE')} " in done.stderr
    assert "/nowhere/postgres_password: No such file or directory" in done.stderr


@pytest.mark.parametrize("command", ["check", "migrate", "collectstatic"])
def test_manage_stops_at_once_with_one_message(manage: Python, command: str) -> None:
    started = time.monotonic()

    done = manage(command, **BAD)

    assert_refusal(done, time.monotonic() - started)


def test_gunicorn_stops_at_once_with_one_message(serve: Python) -> None:
    started = time.monotonic()

    done = serve(**BAD)

    assert_refusal(done, time.monotonic() - started)


def test_gunicorn_accepts_a_sound_configuration(serve: Python) -> None:
    done = serve("--check-config")

    assert (done.returncode, done.stderr) == (0, "")


def test_env_file_is_read_and_the_environment_wins(manage: Python, tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# comment\nDJANGO_DEBUG=ture\nDJANGO_LOG_LEVEL=LOUD\n")

    done = manage("check", ENV_FILE=str(file), DJANGO_LOG_LEVEL="INFO")

    assert done.returncode == EX_CONFIG
    assert "DJANGO_DEBUG is none of the accepted words" in done.stderr
    assert "DJANGO_LOG_LEVEL" not in done.stderr
