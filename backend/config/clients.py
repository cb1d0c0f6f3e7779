"""Who is at the other end of a request, and what it has sent with it."""

from ipaddress import ip_address

from django.conf import settings
from django.http import HttpHeaders, HttpRequest
from rest_framework.request import Request


def client_address(request: Request | HttpRequest) -> str | None:
    """Return the address of the client, as nginx saw it where nginx stands in front; None where there is none."""
    # nginx overwrites the header, so its one entry is not the client's word.
    name = "HTTP_X_FORWARDED_FOR" if settings.BEHIND_PROXY else "REMOTE_ADDR"
    try:
        # Without the zone of a link-local address, which is this host's own and no part of PostgreSQL's type.
        return str(ip_address(request.META.get(name, "").partition("%")[0]))
    except ValueError:
        return None


def header(request: Request | HttpRequest, name: str) -> str | None:
    """Return one header, None where there is none.

    ``request.headers`` would make a mapping of all of them first, a fiftieth of what a request costs.
    """
    value: str | None = request.META.get(HttpHeaders.to_wsgi_name(name))
    return value
