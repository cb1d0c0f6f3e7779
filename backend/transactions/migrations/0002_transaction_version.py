"""How often a transaction has been changed, counted by the database."""

from django.db import migrations, models

COUNT_VERSIONS = """
CREATE FUNCTION transaction_count_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := OLD.version + 1;
    RETURN NEW;
END
$$;
CREATE TRIGGER transaction_count_version BEFORE UPDATE ON transactions_transaction
    FOR EACH ROW EXECUTE FUNCTION transaction_count_version();
"""
STOP_COUNTING = """
DROP TRIGGER transaction_count_version ON transactions_transaction;
DROP FUNCTION transaction_count_version();
"""


class Migration(migrations.Migration):
    """Add the column and its trigger: no row is rewritten, and a release that knows of neither keeps working."""

    dependencies = [("transactions", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="transaction",
            name="version",
            field=models.IntegerField(db_default=1, default=1, editable=False),
        ),
        migrations.RunSQL(COUNT_VERSIONS, STOP_COUNTING),
    ]
