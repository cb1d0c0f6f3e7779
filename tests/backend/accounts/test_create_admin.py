"""The account of an administrator, made on the command line."""

import re
import sys
from io import StringIO
from unittest.mock import patch

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command, get_commands, load_command_class
from django.db import IntegrityError, connection

from accounts.management.commands import create_admin
from accounts.models import User
from tests.backend.conftest import Python

pytestmark = pytest.mark.django_db

GOOD = "correct-horse-battery"


def run(*arguments: str) -> tuple[str, str]:
    out, err = StringIO(), StringIO()
    call_command("create_admin", *arguments, stdout=out, stderr=err, no_color=True)
    return out.getvalue(), err.getvalue()


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of what is typed at the prompts; a terminal is there."""
    words: list[str] = []

    def answer(_prompt: str) -> str:
        if not words:
            raise EOFError
        return words.pop(0)

    monkeypatch.setattr(create_admin, "getpass", answer)
    monkeypatch.setattr("sys.stdin", type("Terminal", (StringIO,), {"isatty": lambda _self: True})())
    return words


def test_password_is_asked_for_twice_and_shown_nowhere(typed: list[str]) -> None:
    typed += [GOOD, GOOD]

    out, err = run("root", "--email", "root@example.com")

    admin = User.objects.get(username="root")
    assert admin.check_password(GOOD)
    assert (admin.is_superuser, admin.is_staff, admin.is_active, admin.email) == (True, True, True, "root@example.com")
    assert out == ""
    assert err.startswith("root is an administrator now.\n")
    assert GOOD not in err


def test_generated_password_is_the_only_line_on_stdout() -> None:
    out, err = run("root", "--generate")

    password = out.removesuffix("\n")
    assert re.fullmatch(r"[A-Za-z0-9_-]{24}", password)
    assert password not in err
    assert User.objects.get(username="root").check_password(password)


def test_password_is_no_argument() -> None:
    with pytest.raises(CommandError, match="unrecognized arguments"):
        run("root", "--password", GOOD)
    with pytest.raises(CommandError, match="unrecognized arguments"):
        run("root", GOOD)

    options = load_command_class(get_commands()["create_admin"], "create_admin").create_parser("", "create_admin")
    assert "password" not in {action.dest for action in options._actions}


def test_a_second_time_changes_nothing_and_says_so(admin: User, password: str) -> None:
    out, err = run("ADMIN", "--generate")

    admin.refresh_from_db()
    assert admin.check_password(password)
    assert (out, err) == ("", "admin is an administrator already; nothing was changed.\n")
    assert User.objects.count() == 1


def test_name_of_somebody_else_is_refused(alice: User) -> None:
    with pytest.raises(CommandError, match="taken by an account that is no administrator"):
        run("Alice", "--generate")

    alice.refresh_from_db()
    assert not alice.is_superuser


def test_address_of_somebody_else_is_refused(alice: User) -> None:
    with pytest.raises(CommandError, match="A user with that email address already exists"):
        run("root", "--email", alice.email.upper(), "--generate")


@pytest.mark.parametrize("name", ["", "a b", "x" * 151, "closed:1"])
def test_name_that_no_account_may_have_is_refused(name: str) -> None:
    with pytest.raises(CommandError, match=r"username: .* Nothing was changed\."):
        run(name, "--generate")

    assert not User.objects.exists()


def test_password_that_is_refused_is_asked_for_again(typed: list[str]) -> None:
    typed += ["password", "password", GOOD, "another", GOOD, GOOD]

    _out, err = run("root")

    assert "This password is too common." in err
    assert "These were two different ones." in err
    assert User.objects.get(username="root").check_password(GOOD)


@pytest.mark.parametrize("words", [[], ["password", "password"] * 3, [GOOD, "another"] * 3], ids=len)
def test_without_a_password_there_is_no_account(typed: list[str], words: list[str]) -> None:
    typed += words

    with pytest.raises(CommandError, match=r"No password was chosen; nothing was changed\."):
        run("root")

    assert not User.objects.exists()


def test_without_a_terminal_it_asks_nobody(manage: Python) -> None:
    done = manage("create_admin", "nobody-asked", POSTGRES_DB=str(connection.settings_dict["NAME"]))

    assert done.returncode == 1
    assert done.stderr == "CommandError: There is no terminal to ask for the password at. Use --generate.\n"


def test_without_a_name_and_a_terminal_it_asks_nobody(manage: Python) -> None:
    done = manage("create_admin", "--generate", POSTGRES_DB=str(connection.settings_dict["NAME"]))

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "CommandError: No name was given, and there is no terminal to ask for one at. Add it: create_admin NAME.\n"
    )


@pytest.mark.parametrize(("typed_name", "made"), [("root\n", True), ("\n", False), ("", False)])
def test_a_name_that_was_not_given_is_asked_for(typed: list[str], typed_name: str, made: bool) -> None:
    typed += [GOOD, GOOD]
    sys.stdin.write(typed_name)
    sys.stdin.seek(0)

    if made:
        out, err = run()
        assert (out, err.startswith("Name: root is an administrator now.\n")) == ("", True)
    else:
        with pytest.raises(CommandError, match=r"username: .* Nothing was changed\."):
            run()

    assert User.objects.filter(username="root").exists() == made


def test_of_two_at_once_the_slower_one_changes_nothing() -> None:
    there = patch.object(create_admin.Command, "exists", side_effect=[False, True])
    with there as exists, patch.object(User, "save", side_effect=IntegrityError):
        out, _err = run("root", "--generate")

    assert exists.call_count == 2
    assert out == ""


def test_it_says_that_the_admin_site_is_off() -> None:
    _out, err = run("root", "--generate")

    assert ("DJANGO_ADMIN_ENABLED=true" in err) == ("django.contrib.admin" not in settings.INSTALLED_APPS)
