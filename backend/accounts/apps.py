"""Who may use the API: accounts and their tokens."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """Accounts, registration and tokens."""

    name = "accounts"

    def ready(self) -> None:
        """Register the OpenAPI description of the tokens."""
        import accounts.schema  # noqa: F401, PLC0415 # needs the apps to be loaded
