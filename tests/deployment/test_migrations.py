"""Migrations, held to expand and contract: the release before must live with what a migration leaves (decision 0035).

While a release is deployed, and after a rollback, the release before runs on the new schema. What it would not survive,
or what locks a table for as long as it takes, needs a reason in the migration itself:

    class Migration(migrations.Migration):
        safe_because = "Release 1.4 was the last to read this column."
"""

import re
from collections.abc import Iterable, Iterator
from io import StringIO

import pytest
from django.contrib.postgres.functions import RandomUUID
from django.contrib.postgres.operations import AddConstraintNotValid
from django.core.management import call_command
from django.db import connection, migrations, models
from django.db.migrations import Migration
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.operations.base import Operation
from django.db.models.functions import Now
from django_migration_linter.sql_analyser.analyser import analyse_sql_statements, get_sql_analyser_class

APPS = {"accounts", "transactions"}
LOADER = MigrationLoader(None)
MIGRATIONS = sorted(key for key in LOADER.disk_migrations if key[0] in APPS)


ADD_CHECK = re.compile(r"ALTER TABLE\b.*\bADD CONSTRAINT\b.*\bCHECK\b", re.IGNORECASE)
"""To a table that is there: it is read whole under a lock, and the release before may write what is now refused."""

REWRITE = re.compile(
    r"\bADD COLUMN\b.*(\bSTORED\b|\bDEFAULT\b[\s(]+(?!now\b|statement_timestamp\b|transaction_timestamp\b)\w+\()",
    re.IGNORECASE,
)
"""A value of its own for each row that is there, computed or by a function that is not the same for all of them."""


def complaints(sql: str, operations: Iterable[Operation]) -> set[str]:
    """Return the codes of what is wrong with one migration, by its SQL and by what has none."""
    analyser = get_sql_analyser_class("django.db.backends.postgresql")
    errors, _ignored, warnings = analyse_sql_statements(analyser, sql.splitlines(), [])
    found = {issue.code for issue in [*errors, *warnings]}
    if any(ADD_CHECK.search(line) for line in sql.splitlines()):
        found.add("ADD_CHECK")
    if any(REWRITE.search(line) for line in sql.splitlines()):
        found.add("REWRITE")
    if any(isinstance(operation, migrations.RunPython) for operation in flattened(operations)):
        # What a program does to the rows cannot be read from it.
        found.add("RUN_PYTHON")
    return found


def flattened(operations: Iterable[Operation]) -> Iterator[Operation]:
    """Return the operations, and those inside of them that reach the database."""
    for operation in operations:
        yield operation
        if isinstance(operation, migrations.SeparateDatabaseAndState):
            yield from flattened(operation.database_operations)


@pytest.mark.django_db
@pytest.mark.parametrize(("app", "name"), MIGRATIONS, ids=str)
def test_migration_suits_the_release_before_or_says_why_not(app: str, name: str) -> None:
    sql = StringIO()
    call_command("sqlmigrate", app, name, stdout=sql)
    migration = LOADER.disk_migrations[app, name]
    found = complaints(sql.getvalue(), migration.operations)
    reason = getattr(migration, "safe_because", "")

    assert not found or len(reason) > 20, f"{', '.join(sorted(found))}: split it (decision 0035), or say safe_because"
    assert found or not reason, "a reason without a need for one"


# The check itself -----------------------------------------------------------------------------------------------------


def complaints_of(*operations: Operation) -> set[str]:
    """Return what is wrong with a migration with these operations, on the first schema of the ledger."""
    migration = type("Sample", (Migration,), {"operations": list(operations)})("0002_sample", "transactions")
    with connection.schema_editor(collect_sql=True) as editor:
        migration.apply(LOADER.project_state(("transactions", "0001_initial")), editor, collect_sql=True)
    return complaints("\n".join(editor.collected_sql), operations)


DOUBLE = models.GeneratedField(
    expression=models.F("amount") * 2,
    output_field=models.DecimalField(max_digits=12, decimal_places=2),
    db_persist=True,
)
POSITIVE = models.CheckConstraint(condition=models.Q(amount__gt=0), name="positive")


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (migrations.RemoveField("transaction", "description"), "DROP_COLUMN"),
        (migrations.DeleteModel("Transaction"), "DROP_TABLE"),
        (migrations.RenameField("transaction", "amount", "sum"), "RENAME_COLUMN"),
        (migrations.RenameModel("Transaction", "Entry"), "RENAME_TABLE"),
        (migrations.AddField("transaction", "note", models.TextField(default="")), "NOT_NULL"),
        (migrations.AlterField("transaction", "description", models.TextField()), "ALTER_COLUMN"),
        (
            migrations.AddConstraint("transaction", models.UniqueConstraint(fields=["amount"], name="one")),
            "ADD_UNIQUE",
        ),
        (migrations.AddIndex("transaction", models.Index(fields=["amount"], name="by_amount")), "CREATE_INDEX"),
        (migrations.RunSQL("ALTER TABLE transactions_transaction DROP COLUMN description"), "DROP_COLUMN"),
        (migrations.AddConstraint("transaction", POSITIVE), "ADD_CHECK"),
        (AddConstraintNotValid("transaction", POSITIVE), "ADD_CHECK"),
        (migrations.AddField("transaction", "tag", models.UUIDField(db_default=RandomUUID())), "REWRITE"),
        (migrations.AddField("transaction", "double", DOUBLE), "REWRITE"),
        (migrations.RunPython(migrations.RunPython.noop), "RUN_PYTHON"),
        (migrations.SeparateDatabaseAndState([migrations.RunPython(migrations.RunPython.noop)]), "RUN_PYTHON"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_release_before_would_not_survive_is_found(operation: Operation, expected: str) -> None:
    assert expected in complaints_of(operation)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "operation",
    [
        migrations.AddField("transaction", "note", models.TextField(null=True)),
        migrations.AddField("transaction", "note", models.TextField(db_default="")),
        migrations.AddField("transaction", "noted", models.DateTimeField(db_default=Now())),
        migrations.CreateModel("Note", [("id", models.BigAutoField(primary_key=True)), ("text", models.TextField())]),
        migrations.CreateModel(
            "Note",
            [("id", models.BigAutoField(primary_key=True)), ("lines", models.PositiveIntegerField())],
            options={"constraints": [models.CheckConstraint(condition=models.Q(lines__lt=9), name="short")]},
        ),
    ],
    ids=["nullable", "default of the database", "time", "table", "table with a constraint"],
)
def test_what_the_release_before_does_not_notice_passes(operation: Operation) -> None:
    assert complaints_of(operation) == set()
