"""The transaction and its truths, which the database holds whatever wrote the row."""

from collections.abc import Sequence
from decimal import Decimal
from typing import cast

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.models import AnonymousUser
from django.contrib.postgres.indexes import GinIndex
from django.db import models
from django.db.models.functions import Now

from transactions.search import VECTOR, Search

LARGEST_AMOUNT = Decimal("99999999.99")
"""What ten digits with two decimal places hold."""

AMOUNT_PATTERN = r"-?[0-9]{1,8}(\.[0-9]{1,2})?"
"""How an amount is written by a client, wherever it writes one."""


class TransactionQuerySet(models.QuerySet["Transaction"]):
    """Transactions, never without an owner."""

    # What these rows were looked for by, for who reads them next: unknown again of any rows that are made from them.
    search: Search | None = None

    def for_user(self, user: AbstractBaseUser | AnonymousUser) -> "TransactionQuerySet":
        """Return the rows that ``user`` owns: the one place that decides who sees what."""
        return self.filter(user_id=user.pk)  # type: ignore[misc] # None for an anonymous user: no rows

    def search_for(self, words: Sequence[str], *, owner: AbstractBaseUser | AnonymousUser) -> "TransactionQuerySet":
        """Return those of these rows, which are of one owner, whose description holds every word in any case."""
        search = (self.search or Search(self)).also_for(words, owner=owner.pk)
        found = cast(TransactionQuerySet, search.everything())
        found.search = search
        return found


class Transaction(models.Model):
    """One movement of money. Negative amounts are money that went out."""

    # PROTECT: deleting an account must never take its ledger with it (docs/decisions/0004).
    # No index of its own: transaction_newest_first begins with it.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="transactions", db_index=False
    )
    amount = models.DecimalField(max_digits=10, decimal_places=2)
    description = models.CharField(max_length=255)
    # The database's clock, one for all replicas, not that of the process that happened to answer.
    timestamp = models.DateTimeField(db_default=Now(), editable=False)
    # Counted up by a trigger at every UPDATE, whoever sends it (docs/decisions/0010); with a default in the database,
    # so that a release that knows nothing of it can still insert.
    version = models.IntegerField(default=1, db_default=1, editable=False)

    objects = TransactionQuerySet.as_manager()

    class Meta:
        # Newest first; the id settles the order of rows of one moment, so that no page repeats or skips a row.
        ordering = ["-timestamp", "-id"]
        # Either is read in both directions.
        indexes = [
            models.Index(fields=["user", "-timestamp", "-id"], name="transaction_newest_first"),
            models.Index(fields=["user", "amount", "id"], name="transaction_by_amount"),
            # What was written lately is read by every search until it is sorted in: kB. More would make an insert
            # cheaper only by a few us, and a search dearer.
            GinIndex(VECTOR, gin_pending_list_limit=256, name="transaction_search"),
        ]
        constraints = [
            # numeric(10, 2) bounds every number but accepts NaN, which sorts above them all.
            models.CheckConstraint(
                condition=models.Q(amount__gte=-LARGEST_AMOUNT, amount__lte=LARGEST_AMOUNT),
                name="transaction_amount_is_a_number",
            ),
            models.CheckConstraint(condition=~models.Q(description=""), name="transaction_description_is_not_empty"),
        ]

    def __str__(self) -> str:
        return f"{self.timestamp:%Y-%m-%d %H:%M} {self.amount} {self.description}"


class IdempotencyRecord(models.Model):
    """The answer that a keyed request got, kept so that the same request can get it again."""

    # No index of its own: the constraint's begins with it.
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="idempotency_records", db_index=False
    )
    key = models.CharField(max_length=255)
    # SHA-256 of what was asked for.
    request_hash = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField()
    headers = models.JSONField()
    body = models.TextField()
    created_at = models.DateTimeField(db_default=Now(), editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["user", "key"], name="idempotency_key_unique_for_user")]
        # For the removal of what has expired.
        indexes = [models.Index(fields=["created_at"], name="idempotency_record_by_age")]

    def __str__(self) -> str:
        return f"answer {self.status} to account {self.user_id}"
