"""The sample's endpoint."""

from rest_framework import filters, permissions, viewsets

from .models import Transaction
from .serializers import TransactionSerializer


class TransactionViewSet(viewsets.ModelViewSet):
    """The transactions of whoever asks, in the order in which the table holds them."""

    serializer_class = TransactionSerializer
    permission_classes = [permissions.IsAuthenticated]
    filter_backends = [filters.SearchFilter]
    search_fields = ["description"]

    def get_queryset(self):
        """Return the rows of the account."""
        return Transaction.objects.filter(user=self.request.user)
