"""An index for searching a ledger of any length."""

from django.contrib.postgres.indexes import GinIndex
from django.db import migrations, models

CREATE_FUNCTIONS = (
    # The owner and every three letters in a row: 'owner=7' 'COF' 'OFF' 'FFE' 'FEE'. PostgreSQL's own text search would
    # find whole words only.
    """
    CREATE OR REPLACE FUNCTION transaction_search_vector(owner bigint, description text) RETURNS tsvector
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
    DECLARE
        folded text := upper(description);
        parts text[] := ARRAY['owner=' || owner];
    BEGIN
        FOR place IN 1 .. length(folded) - 2 LOOP
            parts := parts || substr(folded, place, 3);
        END LOOP;
        RETURN array_to_tsvector(parts);
    END
    $$
    """,
    # What is in the vector of every description that holds the word; maybe in those of others as well.
    r"""
    CREATE OR REPLACE FUNCTION transaction_search_query(owner bigint, word text) RETURNS tsquery
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
    DECLARE
        folded text := upper(word);
        part text;
        parts text := 'owner=' || owner;
    BEGIN
        FOR place IN 1 .. length(folded) - 2 LOOP
            -- Between quotes, where a backslash and a quote are written twice.
            part := replace(replace(substr(folded, place, 3), '\', '\\'), '''', '''''');
            parts := parts || ' & ''' || part || '''';
        END LOOP;
        RETURN parts::tsquery;
    END
    $$
    """,
)
DROP_FUNCTIONS = (
    "DROP FUNCTION transaction_search_query(bigint, text)",
    "DROP FUNCTION transaction_search_vector(bigint, text)",
)


class Migration(migrations.Migration):
    """Build the index while the ledger is read and written, as 0003 does: it can be interrupted and run again."""

    atomic = False

    dependencies = [("transactions", "0004_idempotency")]

    operations = [
        migrations.RunSQL(CREATE_FUNCTIONS, DROP_FUNCTIONS),
        migrations.RunSQL(
            [
                "DROP INDEX CONCURRENTLY IF EXISTS transaction_search",
                "CREATE INDEX CONCURRENTLY transaction_search ON transactions_transaction"
                " USING gin (transaction_search_vector(user_id, description)) WITH (gin_pending_list_limit = 256)",
                # No statistics, so that PostgreSQL takes every search for rare: it is asked only for those that are
                # (search.py), and whatever it guessed from the ledgers of others would be worse.
                "ALTER INDEX transaction_search ALTER COLUMN 1 SET STATISTICS 0",
            ],
            "DROP INDEX CONCURRENTLY IF EXISTS transaction_search",
            state_operations=[
                migrations.AddIndex(
                    model_name="transaction",
                    index=GinIndex(
                        models.Func(models.F("user_id"), models.F("description"), function="transaction_search_vector"),
                        gin_pending_list_limit=256,
                        name="transaction_search",
                    ),
                ),
            ],
        ),
    ]
