"""The user model: this project's own from the first migration, since a database cannot change to one later."""

from importlib import import_module

from django.conf import settings
from django.db.migrations import CreateModel


def test_the_first_migration_makes_the_user_model() -> None:
    migration = import_module("accounts.migrations.0001_initial").Migration

    made = {f"accounts.{step.name}" for step in migration.operations if isinstance(step, CreateModel)}

    assert migration.initial
    assert settings.AUTH_USER_MODEL in made
