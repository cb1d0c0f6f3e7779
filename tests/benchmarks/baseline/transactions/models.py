"""The sample's one table: no index but that of the foreign key."""

from django.contrib.auth.models import User
from django.db import models


class Transaction(models.Model):
    """One movement of money."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="transactions")
    amount = models.DecimalField(max_digits=10, decimal_places=2)
    description = models.CharField(max_length=255)
    timestamp = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"{self.user} {self.amount}"
