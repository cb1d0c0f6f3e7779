"""Who may use the API: accounts and their tokens."""

from django.apps import AppConfig


class AccountsConfig(AppConfig):
    """Accounts, registration and tokens."""

    name = "accounts"
