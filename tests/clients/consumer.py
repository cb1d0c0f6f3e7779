"""A program that uses the generated Python client, as one of the API's consumers would write it.

usage: python consumer.py BASE-URL

test_python_client.py checks its types against the client, then runs it against the stack.
"""

import sys
from http import HTTPStatus
from uuid import uuid4

from transactions_api_client import AuthenticatedClient, Client
from transactions_api_client.api.accounts import register
from transactions_api_client.api.tokens import login, refresh
from transactions_api_client.api.transactions import get_transaction, list_transactions, record_transaction
from transactions_api_client.models import (
    Error,
    LoginRequest,
    PaginatedTransactionList,
    RefreshRequest,
    Registration,
    RegistrationRequest,
    TokenPair,
    Transaction,
    TransactionRequest,
)

PASSWORD = "correct horse battery staple"


ENVIRONMENT = {"trust_env": False}
"""The client goes straight to the stack, past any proxy of the host."""


def main(base_url: str) -> None:
    """Register, log in, record, list, refresh, and be refused."""
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

    with AuthenticatedClient(base_url=base_url, token=next_pair.access, httpx_args=ENVIRONMENT) as alice:
        coffee = record_transaction.sync(client=alice, body=TransactionRequest(amount="-3.20", description="Coffee"))
        assert isinstance(coffee, Transaction), coffee
        assert (coffee.amount, coffee.description, coffee.user) == ("-3.20", "Coffee", account.id)

        page = list_transactions.sync(client=alice, search="coffee")
        assert isinstance(page, PaginatedTransactionList), page
        assert page.results == [coffee]

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
