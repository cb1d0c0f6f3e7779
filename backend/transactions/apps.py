"""The ledger: each account's own transactions."""

from django.apps import AppConfig


class TransactionsConfig(AppConfig):
    """Transactions and their endpoints."""

    name = "transactions"

    def ready(self) -> None:
        """Register the OpenAPI description of the amount."""
        import transactions.schema  # noqa: F401, PLC0415 # needs the apps to be loaded
