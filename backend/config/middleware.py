"""What every request passes through."""

import re
from collections.abc import Callable
from http import HTTPStatus
from uuid import uuid4

from csp.constants import HEADER
from csp.middleware import CSPMiddleware
from csp.utils import build_policy
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.request import UnreadablePostError
from django.http.response import HttpResponseBase
from rest_framework.exceptions import APIException

from config.clients import header
from config.errors import (
    DATABASE_ERRORS,
    RETRY_AFTER_SECONDS,
    error,
    log_database_error,
    owner_is_gone,
    service_unavailable,
)
from config.logs import request_id

GetResponse = Callable[[HttpRequest], HttpResponse]


class RequestIdMiddleware:
    """Give every request an id, in its answer and in each of its log lines.

    nginx makes the id and overwrites what the client sent; without nginx a client's own id is not
    believed either.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer the request under its id."""
        given = header(request, "X-Request-ID") if settings.BEHIND_PROXY else None
        value = given if given and re.fullmatch(r"[0-9a-f]{32}", given) else uuid4().hex
        token = request_id.set(value)
        try:
            response = self.get_response(request)
        finally:
            request_id.reset(token)
        response["X-Request-ID"] = value
        return response


class ContentSecurityPolicyMiddleware(CSPMiddleware):
    """The policy, made once; where a view asks for one of its own, django-csp's middleware makes it."""

    def __init__(self, get_response: GetResponse) -> None:
        super().__init__(get_response)
        self.policy = build_policy()

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        """Add the header."""
        # One look for the names that all marks of django-csp begin with, in place of one for each of some forty.
        if settings.DEBUG or "\0_csp" in "\0".join(("", *vars(request), *vars(response))):
            return super().process_response(request, response)
        response.setdefault(HEADER, self.policy)
        return response


class DatabaseUnavailableMiddleware:
    """Answer 503 where a view outside Django REST framework cannot reach the database, and 429 where one may not go on.

    The admin site's views are such.
    """

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer the request."""
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Turn a database that is away into 503, too many attempts into 429, a lost race into 409; leave the rest."""
        if isinstance(exception, DATABASE_ERRORS):
            log_database_error(exception)
            return service_unavailable()
        if owner_is_gone(exception):
            # Mostly the other side of it: an account that is deleted while it writes.
            return error(HTTPStatus.CONFLICT, "Somebody else has changed what this depends on. Try again.")
        if isinstance(exception, APIException) and exception.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            response = error(HTTPStatus.TOO_MANY_REQUESTS, str(exception.detail))
            response["Retry-After"] = str(getattr(exception, "wait", RETRY_AFTER_SECONDS))
            return response
        return None


class ReadWholeBodyMiddleware:
    """Read what a view has left of the body.

    Gunicorn closes a connection on which more than 64 kB are left, after an answer that promised to keep it. nginx may
    have sent the next client's request there by then, and cannot send it again: 100 kB to ``/auth/jwt/logout/`` were
    somebody else's 503.
    """

    PIECE = 64 * 1024

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer the request, then read on."""
        response = self.get_response(request)
        left = settings.DATA_UPLOAD_MAX_MEMORY_SIZE or 0
        try:
            while left > 0 and (piece := request.read(self.PIECE)):
                left -= len(piece)
        except UnreadablePostError:
            pass  # the client has gone, and the connection with it
        return response
