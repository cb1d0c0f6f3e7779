"""The composition root as a Django app."""

from django.apps import AppConfig
from django.conf import settings
from django.core.cache import close_caches
from django.core.signals import request_finished, request_started
from django.db import reset_queries


class ConfigConfig(AppConfig):
    """Let Django find the commands, templates and static files of this folder."""

    name = "config"

    def ready(self) -> None:
        """Leave out what Django does around every request for caches, and for the list of queries of its debug mode."""
        request_finished.disconnect(close_caches)
        if not settings.DEBUG:
            request_started.disconnect(reset_queries)
