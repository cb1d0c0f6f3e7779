"""What schemathesis cannot read in a schema: who asks, and which values only this server can judge."""

import os
import unicodedata
from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from http import HTTPStatus
from itertools import cycle
from typing import Any
from uuid import uuid4

import schemathesis
from schemathesis.auths import AuthContext
from schemathesis.core.transport import Response
from schemathesis.generation.case import Case
from schemathesis.generation.meta import TestPhase
from schemathesis.hooks import HookContext
from schemathesis.schemas import APIOperation

# The one part that is not schemathesis's public face: its public way to name two users is a document with two logins,
# and a login in a document cannot be done again by a new account once the account is closed.
from schemathesis.wfc.escalation import EscalatingAuthProvider

from tests.stack.people import PASSWORD, Person, sign_up

BASE_URL = os.environ["CONTRACT_BASE_URL"]
IDENTITIES = ("alice", "bob")


class Identity:
    """Somebody who asks, and whose rows outlive every session.

    What ends a session is asked with this account's own token, and the next request logs in again. What takes the
    password may end the account, or change its password: a throwaway asks that.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.owner: Person | None = None
        self.throwaway: Person | None = None

    def get(self, case: Case, context: AuthContext) -> str:
        """Return an access token that works now."""
        if takes_the_password(context.operation):
            if self.throwaway is None or not works(self.throwaway):
                self.throwaway = sign_up(BASE_URL, "throwaway")
            return self.throwaway.access
        if self.owner is None:
            self.owner = sign_up(BASE_URL, self.name)
        elif not works(self.owner):
            self.owner = log_in(self.owner)
        return self.owner.access

    def set(self, case: Case, data: str, context: AuthContext) -> None:
        """Send it."""
        case.headers["Authorization"] = f"Bearer {data}"


def takes_the_password(operation: APIOperation) -> bool:
    return any("current_password" in str(body.raw_schema) for body in operation.body)


def works(person: Person) -> bool:
    return person.client.get("/auth/users/me/").status_code == HTTPStatus.OK


def log_in(person: Person) -> Person:
    """Return the person with a new session."""
    answer = person.client.post("/auth/jwt/create/", json={"username": person.name, "password": PASSWORD})
    assert answer.status_code == HTTPStatus.OK, answer.text
    pair = answer.json()
    person.client.headers["Authorization"] = f"Bearer {pair['access']}"
    return Person(person.name, pair["access"], pair["refresh"], person.client)


@schemathesis.hook
def after_load_schema(context: HookContext, schema: Any) -> None:
    """Ask as alice; ask again as bob for what alice has read, which is how one identity's rows leak to another."""
    identities = [Identity(name) for name in IDENTITIES]
    names = list(IDENTITIES)
    schema.auth.providers = [EscalatingAuthProvider(list(identities), names, peers=IDENTITIES, pinned="alice")]


@schemathesis.hook
def before_call(context: HookContext, case: Case, kwargs: dict[str, Any]) -> None:
    """Make a request that keeps to the schema acceptable in what no schema can say; leave every other as it is."""
    if isinstance(case.body, MutableMapping):
        guess_at_nobody_who_asks(case.body)
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if isinstance(case.query, MutableMapping):
        choose_one_way_of_paging(case.query)
        if isinstance(case.query.get("search"), str):  # ten words at most
            case.query["search"] = " ".join(case.query["search"].replace('"', " ").split()[:10])
    choose_conditions_that_hold(case.headers)
    if case.meta.phase.name != TestPhase.STATEFUL:  # which knows the ids of what it has made
        rows.choose(case)
    if isinstance(case.body, MutableMapping):
        make_acceptable(case.body, registers=case.path == "/auth/users/")
        session.lend(case.body, logs_in=case.path == "/auth/jwt/create/")


@schemathesis.hook
def after_call(context: HookContext, case: Case, response: Response) -> None:
    """Remember what was made."""
    rows.learn(case, response)
    session.learn(case, response)


def guess_at_nobody_who_asks(body: MutableMapping[str, Any]) -> None:
    """Change a name that the tool has read in an answer: its guesses at the password would shut out who asks."""
    if "password" in body and str(body.get("username")).startswith(IDENTITIES):
        body["username"] = uuid4().hex


def choose_one_way_of_paging(query: MutableMapping[str, Any]) -> None:
    if "cursor" in query:
        query["cursor"] = ""  # the first page; any other cursor comes from a link
    for more in ("cursor", "page", "offset"):
        if more in query:
            for other in {"cursor", "page", "offset", "limit"} - {more} - ({"limit"} if more != "page" else set()):
                query.pop(other, None)


def choose_conditions_that_hold(headers: MutableMapping[str, Any]) -> None:
    headers.pop("If-Match", None)
    if "Idempotency-Key" in headers:
        headers["Idempotency-Key"] = str(uuid4())


def make_acceptable(body: MutableMapping[str, Any], *, registers: bool) -> None:
    if registers:
        # A name is stored in Unicode's form NFKC, which may hold characters that no name may.
        name = "".join(letter for letter in body["username"] if unicodedata.normalize("NFKC", letter) == letter)
        body["username"] = f"{uuid4().hex}{name}"[:150]
        body["password"] = hard_to_guess(body["password"], name)
    if body.get("email"):
        body["email"] = f"{uuid4().hex}@{body['email'].rpartition('@')[2]}"
    if "new_password" in body:
        body["new_password"] = hard_to_guess(body["new_password"], "")
    if "current_password" in body or "email" in body:
        body["current_password"] = PASSWORD


def hard_to_guess(password: str, name: str) -> str:
    """Return a password that is neither common nor, letter by letter, like the name."""
    return ("Zyxwvuts rqponm!" + "".join(letter for letter in password if letter not in name))[:128]


class Rows:
    """The ids of what was made, for the operations on one row: an id that was made up is hardly ever one."""

    def __init__(self) -> None:
        self.of: dict[str, list[Any]] = {}

    def learn(self, case: Case, response: Response) -> None:
        """Remember the id in the answer to a POST."""
        if case.method == "POST" and response.status_code == HTTPStatus.CREATED and case.path != "/auth/users/":
            self.of.setdefault(case.path, []).append(response.json().get("id"))

    def choose(self, case: Case) -> None:
        """Put an id that is there into every other request, and give up that of a row that is deleted."""
        ids = self.of.get(case.path.removesuffix("{id}/"))
        if ids and "{id}" in case.path and next(self.turn):
            case.path_parameters["id"] = str(ids.pop() if case.method == "DELETE" else ids[-1])

    turn = cycle([True, False])


class Session:
    """A session for every other request that takes a token or a name: one that was made up is never good."""

    def __init__(self) -> None:
        self.person: Person | None = None
        self.turn = cycle([True, False])

    def lend(self, body: MutableMapping[str, Any], *, logs_in: bool) -> None:
        """Put what works where a token, or a name and a password, are asked for."""
        if not (logs_in or "refresh" in body or "token" in body) or not next(self.turn):
            return
        if self.person is None or not works(self.person):
            self.person = sign_up(BASE_URL, "session")
        if logs_in:
            body.update({"username": self.person.name, "password": PASSWORD})
        else:
            body["refresh" if "refresh" in body else "token"] = self.person.refresh

    def learn(self, case: Case, response: Response) -> None:
        """Take the next pair from the answer to a refresh."""
        if self.person is None or response.status_code != HTTPStatus.OK or not case.path.endswith("/refresh/"):
            return
        if isinstance(case.body, Mapping) and case.body.get("refresh") == self.person.refresh:
            pair = response.json()
            self.person.client.headers["Authorization"] = f"Bearer {pair['access']}"
            self.person = replace(self.person, access=pair["access"], refresh=pair["refresh"])


rows = Rows()
session = Session()
