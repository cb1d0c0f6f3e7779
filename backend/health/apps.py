"""Whether this process answers, and whether it can serve."""

from django.apps import AppConfig


class HealthConfig(AppConfig):
    """The health endpoints."""

    name = "health"
