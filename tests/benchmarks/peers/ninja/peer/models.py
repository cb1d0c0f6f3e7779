"""The tables, which ./scripts/bench makes."""

from django.contrib.auth.models import User
from django.db import models
from django.db.models.functions import Now


class Transaction(models.Model):
    """One movement of money."""

    user = models.ForeignKey(User, on_delete=models.CASCADE)
    amount = models.DecimalField(max_digits=10, decimal_places=2)
    description = models.CharField(max_length=255)
    timestamp = models.DateTimeField(db_default=Now())

    class Meta:
        managed = False
        db_table = "transactions_transaction"
        ordering = ["-timestamp", "-id"]

    def __str__(self) -> str:
        return self.description


class RefreshToken(models.Model):
    """A refresh token, spent or not."""

    jti = models.CharField(max_length=32, primary_key=True)
    user = models.ForeignKey(User, on_delete=models.CASCADE)
    expires_at = models.DateTimeField()
    spent_at = models.DateTimeField(null=True)

    class Meta:
        managed = False
        db_table = "refresh_token"

    def __str__(self) -> str:
        return self.jti
