"""A program that uses the generated Python client, as one of the API's consumers would write it.

usage: python consumer.py BASE-URL

test_python_client.py checks its types against the client, then runs it against the stack.
"""

import sys
from datetime import UTC, date, datetime
from decimal import Decimal
from http import HTTPStatus
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

from transactions_api_client import AuthenticatedClient, Client
from transactions_api_client.api.accounts import register
from transactions_api_client.api.sessions import end_session, list_sessions
from transactions_api_client.api.tokens import login, refresh
from transactions_api_client.api.transactions import (
    get_transaction,
    list_transactions,
    record_transaction,
    summarize_transactions,
    update_transaction,
)
from transactions_api_client.models import (
    Error,
    LoginRequest,
    PaginatedSessionList,
    PaginatedTransactionList,
    PatchedTransactionRequest,
    RefreshRequest,
    Registration,
    RegistrationRequest,
    Summary,
    TokenPair,
    Transaction,
    TransactionRequest,
)

PASSWORD = "correct horse battery staple"


ENVIRONMENT = {"trust_env": False}
"""The client goes straight to the stack, past any proxy of the host."""


def retry_safely(alice: AuthenticatedClient) -> None:
    """Send a request twice for one row, and change the row only as long as nobody else has."""
    body, key = TransactionRequest(amount="-2.80", description="Tea"), str(uuid4())
    first, again = (record_transaction.sync_detailed(client=alice, body=body, idempotency_key=key) for _ in range(2))
    assert isinstance(first.parsed, Transaction), first
    assert first.parsed == again.parsed
    assert again.headers["Idempotency-Replayed"] == "true"

    tag, row = first.headers["ETag"], str(first.parsed.id)
    change = PatchedTransactionRequest(amount="-2.90")
    changed, late = (
        update_transaction.sync_detailed(client=alice, id=row, body=change, if_match=tag) for _ in range(2)
    )
    assert isinstance(changed.parsed, Transaction), changed
    assert changed.parsed.amount == "-2.90"
    assert late.status_code == HTTPStatus.PRECONDITION_FAILED
    assert isinstance(late.parsed, Error), late


def walk(alice: AuthenticatedClient) -> None:
    """Read all rows by cursor, one a page, and compare them with their summary; then none, by time."""
    amounts, cursor = [], ""
    while True:
        page = list_transactions.sync(client=alice, cursor=cursor, limit=1)
        assert isinstance(page, PaginatedTransactionList), page
        amounts += [Decimal(row.amount) for row in page.results]
        if not page.next_:
            break
        (cursor,) = parse_qs(urlsplit(page.next_).query)["cursor"]
    assert amounts == [Decimal("-2.90"), Decimal("-3.20")]

    summary = summarize_transactions.sync(client=alice)
    assert isinstance(summary, Summary), summary
    assert (summary.count, Decimal(summary.sum_)) == (len(amounts), sum(amounts))

    for until in (date(2020, 1, 1), datetime(2020, 1, 1, tzinfo=UTC)):
        before = summarize_transactions.sync(client=alice, timestamp_before=until)
        assert isinstance(before, Summary), before
        assert before.count == 0


def end_the_other_session(alice: AuthenticatedClient) -> None:
    """End every session but the one that asks."""
    listed = list_sessions.sync(client=alice)
    assert isinstance(listed, PaginatedSessionList), listed
    others = [session for session in listed.results if not session.current]
    assert len(others) == len(listed.results) - 1 == 1
    assert end_session.sync_detailed(client=alice, id=others[0].id).status_code == HTTPStatus.NO_CONTENT
    left = list_sessions.sync(client=alice)
    assert isinstance(left, PaginatedSessionList), left
    assert [session.current for session in left.results] == [True]


def main(base_url: str) -> None:
    """Register, log in, record, list, refresh, retry, walk, end a session, and be refused."""
    username = f"alice-{uuid4().hex[:12]}"

    with Client(base_url=base_url, httpx_args=ENVIRONMENT) as anybody:
        account = register.sync(client=anybody, body=RegistrationRequest(username=username, password=PASSWORD))
        assert isinstance(account, Registration), account
        assert account.username == username

        pair = login.sync(client=anybody, body=LoginRequest(username=username, password=PASSWORD))
        assert isinstance(pair, TokenPair), pair

        next_pair = refresh.sync(client=anybody, body=RefreshRequest(refresh=pair.refresh))
        assert isinstance(next_pair, TokenPair), next_pair
        assert next_pair != pair

        other_pair = login.sync(client=anybody, body=LoginRequest(username=username, password=PASSWORD))
        assert isinstance(other_pair, TokenPair), other_pair

    with AuthenticatedClient(base_url=base_url, token=next_pair.access, httpx_args=ENVIRONMENT) as alice:
        coffee = record_transaction.sync(client=alice, body=TransactionRequest(amount="-3.20", description="Coffee"))
        assert isinstance(coffee, Transaction), coffee
        assert (coffee.amount, coffee.description, coffee.user) == ("-3.20", "Coffee", account.id)

        page = list_transactions.sync(client=alice, search="coffee")
        assert isinstance(page, PaginatedTransactionList), page
        assert page.results == [coffee]

        retry_safely(alice)
        walk(alice)
        end_the_other_session(alice)

        missing = get_transaction.sync_detailed(client=alice, id="999999999999999999")
        assert missing.status_code == HTTPStatus.NOT_FOUND
        assert isinstance(missing.parsed, Error), missing
        assert missing.parsed.detail

    with AuthenticatedClient(base_url=base_url, token="not a token", httpx_args=ENVIRONMENT) as nobody:
        refused = list_transactions.sync_detailed(client=nobody)
        assert refused.status_code == HTTPStatus.UNAUTHORIZED
        assert isinstance(refused.parsed, Error), refused


if __name__ == "__main__":
    main(sys.argv[1])
    print("done")
