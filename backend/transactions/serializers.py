"""The wire format of a transaction."""

import re
from copy import copy
from decimal import Decimal
from functools import cache
from typing import Any

from rest_framework import serializers

from config.fields import TEXT_FIELDS
from transactions.models import AMOUNT_PATTERN, Transaction


class AmountField(serializers.DecimalField):
    """An amount of money: a plain decimal number, as a JSON number or a string; always a string in answers.

    Python's Decimal, and with it the framework's field, also takes ``1_000``, ``1e3`` and the digits of every
    script; each of them would be stored as something that the client did not write.
    """

    default_error_messages = {
        "invalid": "A valid amount has up to 8 digits and 2 decimal places, for example 12.50.",
    }

    def to_internal_value(self, data: Any) -> Decimal:
        """Return the amount; raise ``ValidationError`` for every other spelling."""
        if isinstance(data, bool) or not re.fullmatch(AMOUNT_PATTERN, str(data)):
            self.fail("invalid")
        # Adding zero turns -0 into 0.
        return super().to_internal_value(str(data)) + 0


class TransactionSerializer(serializers.ModelSerializer[Transaction]):
    """A transaction. Its owner, id and time are the server's to set; a client's are ignored."""

    serializer_field_mapping = TEXT_FIELDS
    amount = AmountField(
        max_digits=10,
        decimal_places=2,
        help_text="Up to 8 digits and 2 decimal places; negative for money out.",
    )

    class Meta:
        model = Transaction
        fields = ["id", "user", "amount", "description", "timestamp"]
        read_only_fields = ["id", "user", "timestamp"]
        extra_kwargs = {
            "user": {"help_text": "The id of the owner."},
            "timestamp": {"help_text": "When the transaction was recorded, UTC."},
        }

    def update(self, instance: Transaction, validated_data: dict[str, Any]) -> Transaction:
        """Write the fields that differ and nothing else; the caller holds the row's lock."""
        changed = {name: value for name, value in validated_data.items() if getattr(instance, name) != value}
        if changed:
            for name, value in changed.items():
                setattr(instance, name, value)
            instance.save(update_fields=changed.keys())
            # As the trigger did; nobody else can have, under the lock.
            instance.version += 1
        return instance


@cache
def _unused() -> TransactionSerializer:
    serializer = TransactionSerializer()
    serializer.fields  # noqa: B018 # made once, at the first look
    return serializer


def check_transaction(data: Any) -> dict[str, Any]:
    """Return amount and description of a new transaction; raise ``ValidationError`` for what a client may not send.

    By the serializer, without the fields being made anew, which takes twice as long as the check.
    """
    serializer = copy(_unused())  # shares the fields, which know nothing of what they check
    serializer.initial_data = data
    serializer.is_valid(raise_exception=True)
    return dict(serializer.validated_data)


class MonthSerializer(serializers.Serializer[Any]):
    """The transactions of one month, by UTC."""

    month = serializers.RegexField(r"^[0-9]{4}-(0[1-9]|1[0-2])$", help_text="The month, for example 2026-01.")
    count = serializers.IntegerField(min_value=1, help_text="How many transactions.")
    sum = serializers.DecimalField(max_digits=None, decimal_places=2, help_text="Their amounts together, exact.")


class SummarySerializer(serializers.Serializer[Any]):
    """What transactions amount to."""

    count = serializers.IntegerField(min_value=0, help_text="How many transactions.")
    sum = serializers.DecimalField(max_digits=None, decimal_places=2, help_text="Their amounts together, exact.")
    by_month = MonthSerializer(many=True, help_text="Every month that has any, oldest first.")
