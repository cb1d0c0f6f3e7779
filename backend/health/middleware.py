"""``/healthz`` and ``/readyz``, answered before anything else looks at the request."""

from collections.abc import Callable
from http import HTTPStatus

from django.http import HttpRequest, HttpResponse, JsonResponse

from health.readiness import why_not_ready


class HealthMiddleware:
    """Answer the two health paths; pass everything else on.

    A middleware, and one of the first, because a probe comes by address: Django would refuse its Host header. Neither
    answer holds a detail that a stranger could use; the reason is in the log.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Answer a probe, or pass the request on."""
        if request.path == "/healthz":
            return JsonResponse({"status": "ok"})
        if request.path == "/readyz":
            if why_not_ready() is None:
                return JsonResponse({"status": "ready"})
            return JsonResponse(
                {"detail": "The service is not ready."},
                status=HTTPStatus.SERVICE_UNAVAILABLE,
                headers={"Retry-After": "5"},
            )
        return self.get_response(request)
