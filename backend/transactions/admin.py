"""Transactions in the admin site: to look at, not to change; the ledger is its owner's."""

from django.contrib import admin
from django.http import HttpRequest

from transactions.models import Transaction


@admin.register(Transaction)
class TransactionAdmin(admin.ModelAdmin):  # type: ignore[type-arg] # generic in its types only
    """Show transactions."""

    list_display = ["id", "user", "amount", "description", "timestamp"]
    list_select_related = ["user"]
    search_fields = ["description", "user__username"]
    date_hierarchy = "timestamp"

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Nobody adds a row for somebody else."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Transaction | None = None) -> bool:
        """Nobody changes somebody else's row."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Transaction | None = None) -> bool:
        """Nobody deletes somebody else's row."""
        return False
