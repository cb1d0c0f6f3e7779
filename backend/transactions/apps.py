"""The ledger: each account's own transactions."""

from django.apps import AppConfig


class TransactionsConfig(AppConfig):
    """Transactions and their endpoints."""

    name = "transactions"
