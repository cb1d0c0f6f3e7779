"""The sample's wire format; ``user`` is writable, as there."""

from rest_framework import serializers

from .models import Transaction


class TransactionSerializer(serializers.ModelSerializer):
    """A transaction."""

    class Meta:
        model = Transaction
        fields = ["id", "user", "amount", "description", "timestamp"]
