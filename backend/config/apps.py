"""The composition root as a Django app: its command, templates, static files and checks."""

from django.apps import AppConfig


class ConfigConfig(AppConfig):
    """Register the schema extensions and checks when Django starts."""

    name = "config"
