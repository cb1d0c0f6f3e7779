"""Who is at the other end of a request."""

from django.conf import settings
from django.http import HttpRequest
from rest_framework.request import Request


def client_address(request: Request | HttpRequest) -> str | None:
    """Return the address of the client, as nginx saw it where nginx stands in front."""
    if settings.BEHIND_PROXY:
        # nginx overwrites the header, so its one entry is not the client's word.
        return request.META.get("HTTP_X_FORWARDED_FOR") or None
    return request.META.get("REMOTE_ADDR") or None
