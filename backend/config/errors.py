"""Every error as JSON in the shape of Django REST framework: ``{"detail": ...}`` or ``{"field": [...]}``."""

import logging
from http import HTTPStatus
from typing import Any

from django.db import IntegrityError, InterfaceError, InternalError, OperationalError
from django.http import HttpRequest, JsonResponse
from psycopg.errors import ForeignKeyViolation
from rest_framework.exceptions import APIException
from rest_framework.renderers import JSONRenderer
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.views import exception_handler as rest_framework_handler
from rest_framework_simplejwt.exceptions import DetailDictMixin

from config.exceptions import SessionOver
from config.postgresql.base import RefusedPasswordError

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 5
"""What a client is asked to wait while the database is away: about the time of its restart."""

DATABASE_ERRORS = (OperationalError, InterfaceError, InternalError)
"""The database cannot be reached, ran out of time or refused work: nothing the client did.

InternalError is what psycopg makes of a transaction that PostgreSQL ended because this process stood still in it.
"""


class ServiceUnavailable(APIException):
    """503: the request was sound, the service cannot answer now."""

    status_code = HTTPStatus.SERVICE_UNAVAILABLE
    default_detail = "The service is not available right now. Try again in a few seconds."
    default_code = "service_unavailable"
    wait = RETRY_AFTER_SECONDS  # Django REST framework sends it as Retry-After


class JsonErrors(APIView):
    """Answer errors in JSON although the view itself answers in HTML, YAML or CSV."""

    def handle_exception(self, exc: Exception) -> Response:
        """Answer ``exc`` with the renderer of the rest of the API."""
        response: Response = super().handle_exception(exc)
        self.request.accepted_renderer = JSONRenderer()
        self.request.accepted_media_type = JSONRenderer.media_type
        return response


def exception_handler(exc: Exception, context: dict[str, Any]) -> Response | None:
    """Answer 503 with ``Retry-After`` while the database is away, 401 to an account that is deleted while it asks.

    Everything else is answered as the framework does.
    """
    if isinstance(exc, DATABASE_ERRORS):
        log_database_error(exc)
        exc = ServiceUnavailable()
    elif owner_is_gone(exc):
        exc = SessionOver()
        exc.auth_header = context["view"].get_authenticate_header(context["request"])  # type: ignore[attr-defined]
    response = rest_framework_handler(exc, context)
    if response is not None and isinstance(exc, DetailDictMixin):
        # simplejwt adds which class of token refused what.
        response.data = {name: response.data[name] for name in ("detail", "code")}
    return response


def owner_is_gone(exc: BaseException) -> bool:
    """Return whether what was to be written belongs to a row that was deleted meanwhile: in the end, an account.

    It is found out when the transaction commits. To lock the account before that would cost every request for what
    hardly ever happens, since accounts are closed (docs/decisions/0004).
    """
    return isinstance(exc, IntegrityError) and isinstance(exc.__cause__, ForeignKeyViolation)


def log_database_error(exc: BaseException) -> None:
    """Log why the database cannot be used."""
    logger.error("database unavailable: %s", kind_of_failure(exc))


def kind_of_failure(exc: BaseException) -> str:
    """Return the kind of failure, not its text: PostgreSQL's messages may quote values.

    A password that is refused stays so until somebody does something: that text is ours, and says what.
    """
    failure = exc.__cause__ or exc
    return str(failure) if isinstance(failure, RefusedPasswordError) else type(failure).__name__


def error(status: HTTPStatus, detail: str) -> JsonResponse:
    """Return the JSON answer for an error outside Django REST framework."""
    return JsonResponse({"detail": detail}, status=status)


def service_unavailable() -> JsonResponse:
    """Return the 503 for a view outside Django REST framework."""
    response = error(HTTPStatus.SERVICE_UNAVAILABLE, ServiceUnavailable.default_detail)
    response["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def bad_request(request: HttpRequest, exception: Exception) -> JsonResponse:
    """Answer what Django refuses by itself: an unknown host, a body that is too large."""
    return error(HTTPStatus.BAD_REQUEST, "Bad request.")


def permission_denied(request: HttpRequest, exception: Exception) -> JsonResponse:
    """Answer a refusal outside Django REST framework."""
    return error(HTTPStatus.FORBIDDEN, "You do not have permission to perform this action.")


def csrf_failure(request: HttpRequest, reason: str = "") -> JsonResponse:
    """Answer a form of the admin site that came without its cookie; Django's own answer is a page."""
    return error(HTTPStatus.FORBIDDEN, "The form has no valid CSRF token. Allow cookies and load the page again.")


def not_found(request: HttpRequest, exception: Exception) -> JsonResponse:
    """Answer a path that no view has."""
    return error(HTTPStatus.NOT_FOUND, "Not found.")


def server_error(request: HttpRequest) -> JsonResponse:
    """Answer a defect of this application; its traceback is in the log, under the request id."""
    return error(HTTPStatus.INTERNAL_SERVER_ERROR, "Internal server error.")
