"""The statements of the hot endpoints answer what the ORM and the serializer would."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http import HTTPStatus
from typing import Any, NamedTuple

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rest_framework.exceptions import ValidationError
from rest_framework.renderers import JSONRenderer
from rest_framework.test import APIClient
from rest_framework_simplejwt.tokens import Token

from accounts.models import Session, User
from tests.backend.tokens import new_session
from tests.backend.transactions.plans import plan_of, register
from transactions import counts, statements
from transactions.models import LARGEST_AMOUNT, Transaction
from transactions.serializers import TransactionSerializer, check_transaction

pytestmark = pytest.mark.django_db

LIST = "/api/transactions/"

amounts = st.decimals(-LARGEST_AMOUNT, LARGEST_AMOUNT, places=2)
descriptions = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=255)
moments = st.datetimes(
    datetime.fromisoformat("0001-01-02"), datetime.fromisoformat("9999-12-30"), timezones=st.just(UTC)
)
# Without a fraction, which is written in another form.
moments |= moments.map(lambda moment: moment.replace(microsecond=0))
rows = st.lists(st.tuples(amounts, descriptions, moments), max_size=14)


# The two accounts are the same in every example; each sets its own rows.
examples = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Owner(NamedTuple):
    """An account, and a token of it."""

    account: User
    token: Token


@pytest.fixture
def owners(alice: User, bob: User) -> tuple[Owner, Owner]:
    """Return Alice, whose rows are compared, and Bob, who has others."""
    Transaction.objects.create(user=bob, amount=1, description="Bob's")
    return Owner(alice, new_session(alice).access_token), Owner(bob, new_session(bob).access_token)


def keep(owner: User, given_rows: list[tuple[Decimal, str, datetime]]) -> list[Transaction]:
    """Let ``owner`` have these rows and no others."""
    Transaction.objects.filter(user=owner).delete()
    return Transaction.objects.bulk_create(
        Transaction(user=owner, amount=amount, description=description, timestamp=moment)
        for amount, description, moment in given_rows
    )


def as_sent(data: Any) -> Any:
    """Return ``data`` as the bytes that a client gets."""
    return JSONRenderer().render(data)


# The same answers -----------------------------------------------------------------------------------------------------


@examples
@given(given_rows=rows)
def test_first_page_is_that_of_the_orm(owners: tuple[Owner, Owner], given_rows: list[Any]) -> None:
    alice, _ = owners
    with transaction.atomic():
        keep(alice.account, given_rows)

        number, page = statements.read_first_page(token=alice.token, size=10, counted=12)

        queryset = Transaction.objects.filter(user=alice.account)
        assert number == queryset[:12].count()
        assert as_sent(page) == as_sent(TransactionSerializer(queryset[:10], many=True).data)


@examples
@given(given_rows=rows)
def test_one_is_that_of_the_orm(owners: tuple[Owner, Owner], given_rows: list[Any]) -> None:
    alice, bob = owners
    with transaction.atomic():
        kept = keep(alice.account, given_rows)
        for row in kept[::2]:
            Transaction.objects.filter(pk=row.pk).update(amount=0)

        for row in Transaction.objects.filter(user=alice.account):
            read = statements.read_one(token=alice.token, pk=row.pk)
            assert read is not None
            assert (read.pk, read.version) == (row.pk, row.version)
            assert as_sent(read.data) == as_sent(TransactionSerializer(row).data)
            assert statements.read_one(token=bob.token, pk=row.pk) is None


@examples
@given(amount=amounts, description=descriptions)
def test_record_stores_and_returns_what_the_orm_would(
    owners: tuple[Owner, Owner], amount: Decimal, description: str
) -> None:
    alice, _ = owners
    with transaction.atomic():
        recorded = statements.record(token=alice.token, amount=amount, description=description)

        row = Transaction.objects.get(pk=recorded.pk, user=alice.account)
        assert (row.amount, row.description, row.version) == (amount, description, recorded.version)
        assert as_sent(recorded.data) == as_sent(TransactionSerializer(row).data)


@settings(max_examples=200, deadline=None)
@given(
    data=st.one_of(
        st.none(),
        st.integers(),
        st.lists(st.integers(), max_size=2),
        st.fixed_dictionaries(
            {},
            optional={
                "amount": st.one_of(amounts, amounts.map(str), st.text(max_size=5), st.none(), st.booleans()),
                "description": st.one_of(descriptions, st.text(max_size=260), st.none(), st.integers()),
                "id": st.integers(),
                "user": st.integers(),
            },
        ),
    )
)
def test_what_is_refused_is_refused_in_the_words_of_the_serializer(data: Any) -> None:
    serializer = TransactionSerializer(data=data)
    if serializer.is_valid():
        assert check_transaction(data) == serializer.validated_data
        return

    with pytest.raises(ValidationError) as refusal:
        check_transaction(data)

    assert json.dumps(refusal.value.detail) == json.dumps(serializer.errors)


@pytest.mark.parametrize("number", [0, 1, 10, 11, 20, 21, 33])
@pytest.mark.parametrize("search", ["", "search=coffee", "search=%22offe%22+c"])
def test_first_page_is_the_same_by_its_number(
    as_alice: APIClient, alice: User, monkeypatch: pytest.MonkeyPatch, number: int, search: str
) -> None:
    monkeypatch.setattr(counts, "COUNTED_ROWS", 20)
    Transaction.objects.bulk_create(Transaction(user=alice, amount=n, description="Coffee") for n in range(number))

    plain, numbered = as_alice.get(f"{LIST}?{search}"), as_alice.get(f"{LIST}?page=1&{search}")

    assert plain.content == numbered.content
    assert plain.headers.keys() == numbered.headers.keys()


# The session ----------------------------------------------------------------------------------------------------------

OVER = {"detail": "The session of this token is over."}
REQUESTS = [
    ("get", "", None),
    ("get", "?page=1", None),
    ("get", "?page=x", None),
    ("get", "?search=coffee", None),
    ("get", "?search=", None),
    ("get", "?search=%00", None),
    ("get", "{id}/", None),
    ("get", "999999/", None),
    ("post", "", {"amount": "1", "description": "Tea"}),
    ("post", "", {"amount": "x"}),
    ("post", "", None),
    ("put", "{id}/", {"amount": "1", "description": "Tea"}),
    ("patch", "{id}/", {"amount": "x"}),
    ("delete", "{id}/", None),
    ("put", "", {}),
    ("options", "", None),
    ("get", "summary/", None),
    ("get", "export/", None),
    ("get", "export/?amount_min=x", None),
]


def end(session: Session) -> None:
    Session.objects.filter(pk=session.pk).update(ended_at=timezone.now())


def run_out(session: Session) -> None:
    Session.objects.filter(pk=session.pk).update(expires_at=timezone.now())


def disable(session: Session) -> None:
    User.objects.filter(sessions=session.pk).update(is_active=False)


@pytest.mark.parametrize("finish", [end, run_out, disable])
@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
def test_session_that_is_over_opens_nothing_and_is_told_so_before_anything_else(
    as_alice: APIClient, coffee: Transaction, method: str, path: str, body: Any, finish: Callable[[Session], None]
) -> None:
    assert as_alice.get(f"{LIST}{coffee.pk}/").status_code == HTTPStatus.OK
    finish(Session.objects.get())

    answer = getattr(as_alice, method)(LIST + path.format(id=coffee.pk), body)

    assert answer.status_code == HTTPStatus.UNAUTHORIZED
    assert answer.json() == {**OVER, "code": "session_over"}
    assert answer["WWW-Authenticate"] == 'Bearer realm="api"'
    assert list(Transaction.objects.values_list("pk", "amount")) == [(coffee.pk, Decimal("-3.20"))]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("get", "", None),
        ("get", "?search=coffee", None),
        ("get", "{id}/", None),
        ("post", "", {"amount": "1", "description": "Tea"}),
    ],
)
def test_hot_endpoints_note_the_last_use(
    as_alice: APIClient, coffee: Transaction, method: str, path: str, body: Any
) -> None:
    for minutes, noted in ((4, False), (6, True)):
        before = timezone.now() - timedelta(minutes=minutes)
        Session.objects.update(last_used_at=before)

        with CaptureQueriesContext(connection) as captured:
            getattr(as_alice, method)(LIST + path.format(id=coffee.pk), body)

        assert (Session.objects.get().last_used_at > before, len(captured)) == (noted, 2 if noted else 1)


# What they cost -------------------------------------------------------------------------------------------------------


@pytest.fixture
def asking(alice: User, bob: User) -> dict[str, Any]:
    """Give both many rows, and return what a statement wants to know of Alice, who asks."""
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO transactions_transaction (user_id, amount, description)"
            " SELECT (array[%s, %s])[1 + n %% 2], n, 'Coffee' FROM generate_series(1, 20000) AS n",
            [alice.pk, bob.pk],
        )
        cursor.execute("ANALYZE transactions_transaction")

    now = timezone.now()
    return {"session": new_session(alice)["sid"], "account": alice.pk, "now": now, "noted_before": now}


def test_first_page_reads_its_index_and_nothing_else(asking: dict[str, Any]) -> None:
    plan = plan_of(statements.first_page_statement(size=10, counted=2001), **asking)

    assert plan.count("using transaction_newest_first") == 2
    assert "Index Only Scan using transaction_newest_first" in plan
    assert "Seq Scan on transactions_transaction" not in plan
    assert plan.count("Sort Key") == 1  # of the ten rows, which are in order already


def test_one_is_read_by_its_id(asking: dict[str, Any]) -> None:
    plan = plan_of(statements.READ_ONE, **asking, pk=Transaction.objects.latest("pk").pk)

    assert plan.count(" on transactions_transaction") == 1
    assert "Index Scan using transactions_transaction_pkey on transactions_transaction" in plan


def test_recording_reads_no_transaction(asking: dict[str, Any]) -> None:
    plan = plan_of(statements.RECORD, **asking, amount=1, description="Tea")

    assert [line.strip("-> ") for line in plan.splitlines() if "transactions_transaction" in line] == [
        "Insert on transactions_transaction"
    ]


def test_statements_of_the_hot_endpoints_are_planned_once_for_a_connection(as_alice: APIClient, alice: User) -> None:
    """PostgreSQL plans a statement anew for each request as long as a plan for any values looks dearer to it."""
    register(20)
    with connection.cursor() as cursor:
        # What an earlier test's tables made PostgreSQL expect would decide here; the driver keeps a list of its own.
        cursor.execute("DEALLOCATE ALL")
        connection.connection._prepared.clear()
        cursor.execute(
            "INSERT INTO transactions_transaction (user_id, amount, description)"
            " SELECT id, n, 'Coffee' FROM generate_series(1, 2000) AS n, accounts_user"
        )
        cursor.execute("ANALYZE transactions_transaction, accounts_user, accounts_session")
        # As after VACUUM, which no test can run within its transaction.
        cursor.execute("UPDATE pg_class SET relallvisible = relpages WHERE relname = 'transactions_transaction'")
    coffee = Transaction.objects.filter(user=alice).latest("pk")

    for _ in range(12):
        assert as_alice.get(LIST).status_code == HTTPStatus.OK
        assert as_alice.get(f"{LIST}{coffee.pk}/").status_code == HTTPStatus.OK
        assert as_alice.get(f"{LIST}?search=coffee").status_code == HTTPStatus.OK
        assert as_alice.post(LIST, {"amount": "1", "description": "Tea"}).status_code == HTTPStatus.CREATED

    with connection.cursor() as cursor:
        cursor.execute("SELECT generic_plans, statement FROM pg_prepared_statements WHERE statement LIKE '%asking%'")
        plans = cursor.fetchall()
    assert len(plans) == 4
    assert [statement for number, statement in plans if number < 7] == []


def test_statements_of_the_hot_endpoints_are_prepared_once_for_a_connection(
    as_alice: APIClient, coffee: Transaction
) -> None:
    def prepared() -> set[str]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT statement FROM pg_prepared_statements WHERE statement LIKE '%asking%'")
            return {statement for (statement,) in cursor.fetchall()}

    def ask() -> None:
        for _ in range(2):
            assert as_alice.get(LIST).status_code == HTTPStatus.OK
            assert as_alice.get(f"{LIST}{coffee.pk}/").status_code == HTTPStatus.OK
            assert as_alice.get(f"{LIST}?search=coffee").status_code == HTTPStatus.OK
            answer = as_alice.post(LIST, {"amount": "1", "description": "Tea"})
            assert answer.status_code == HTTPStatus.CREATED

    ask()
    before = prepared()
    with CaptureQueriesContext(connection) as captured:
        ask()

    assert len(before) == 4
    assert prepared() == before
    assert len(captured) == 8
    assert all(query["sql"] for query in captured)
