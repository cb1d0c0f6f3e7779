"""An index for reading a ledger by amount."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Build the index while the ledger is read and written.

    Outside a transaction, which CONCURRENTLY needs; a build that was interrupted leaves an invalid index, so what may
    be there is dropped first and the migration can simply be run again.
    """

    atomic = False

    dependencies = [("transactions", "0002_transaction_version")]

    operations = [
        migrations.RunSQL(
            [
                "DROP INDEX CONCURRENTLY IF EXISTS transaction_by_amount",
                "CREATE INDEX CONCURRENTLY transaction_by_amount ON transactions_transaction (user_id, amount, id)",
            ],
            "DROP INDEX CONCURRENTLY IF EXISTS transaction_by_amount",
            state_operations=[
                migrations.AddIndex(
                    model_name="transaction",
                    index=models.Index(fields=["user", "amount", "id"], name="transaction_by_amount"),
                ),
            ],
        ),
    ]
