"""The composition root as a Django app."""

from django.apps import AppConfig


class ConfigConfig(AppConfig):
    """Let Django find the commands, templates and static files of this folder."""

    name = "config"
