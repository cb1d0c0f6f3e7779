"""Every error is JSON, says nothing about the inside, and carries the request's id."""

import logging
import re
from http import HTTPStatus
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.test import RequestFactory
from django.urls import path
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.test import APIClient
from rest_framework.views import APIView

from config import urls

handler400, handler403 = urls.handler400, urls.handler403
handler404, handler500 = urls.handler404, urls.handler500

SECRET_OF_THE_INSIDE = "canary-4c1d9e at /app/transactions/views.py"


class BrokenView(APIView):
    """A view of the API with a defect."""

    permission_classes = [AllowAny]

    def get(self, request: Request) -> Response:
        """Fail."""
        raise RuntimeError(SECRET_OF_THE_INSIDE)


def broken_page(request: HttpRequest) -> HttpResponse:
    """Fail outside of Django REST framework."""
    raise RuntimeError(SECRET_OF_THE_INSIDE)


urlpatterns = [path("api/broken/", BrokenView.as_view()), path("broken/", broken_page)]


def assert_json_error(response: Any, status: HTTPStatus, detail: str | None = None) -> None:
    assert response.status_code == status
    assert response["Content-Type"] == "application/json"
    body = response.json()
    assert set(body) <= {"detail", "code"}
    if detail is not None:
        assert body == {"detail": detail}
    assert re.fullmatch(r"[0-9a-f]{32}", response["X-Request-ID"])


def test_bad_token_answers_401_without_names_of_the_inside(anonymous: APIClient) -> None:
    response = anonymous.get("/api/transactions/", headers={"Authorization": "Bearer abc"})

    assert_json_error(response, HTTPStatus.UNAUTHORIZED)
    assert response.json() == {"detail": "Given token not valid for any token type", "code": "token_not_valid"}
    assert response["WWW-Authenticate"].startswith("Bearer")


def test_form_without_its_cookie_answers_403_in_json(rf: RequestFactory) -> None:
    middleware = CsrfViewMiddleware(lambda _: HttpResponse())

    response = middleware.process_view(rf.post("/admin/login/"), broken_page, (), {})

    assert response is not None
    assert (response.status_code, response["Content-Type"]) == (HTTPStatus.FORBIDDEN, "application/json")
    assert b"CSRF" in response.content


@pytest.mark.parametrize(
    "path", ["/auth/users/", "/auth/users/me/", "/auth/jwt/create/", "/auth/sessions/", "/api/transactions/"]
)
def test_options_name_media_types_and_nothing_of_the_inside(as_alice: APIClient, path: str) -> None:
    response = as_alice.options(path)

    assert response.status_code == HTTPStatus.OK
    assert response.json() == {"renders": ["application/json"], "parses": ["application/json"]}
    assert "OPTIONS" in response["Allow"]


@pytest.mark.parametrize(
    "unknown",
    ["/nothing", "/api/", "/api/nothing/", "/api/v1/transactions/", "/transactions/", "/static/nothing.js",
     "/.env", "/.git/config", "/api/../manage.py", "/admin/", "/%00", "/%FF", "/%0d%0aSet-Cookie:a=b"],
)  # fmt: skip
def test_unknown_path_answers_404_in_json(anonymous: APIClient, unknown: str) -> None:
    assert_json_error(anonymous.get(unknown), HTTPStatus.NOT_FOUND, "Not found.")


@pytest.mark.parametrize("host", ["evil.example", "testserver.evil.example", "a b", "testserver:x", "[::1", "*", "."])
def test_unknown_host_answers_400_in_json(anonymous: APIClient, host: str) -> None:
    for target in ("/api/transactions/", "/nothing", "/auth/jwt/create/"):
        assert_json_error(anonymous.get(target, headers={"Host": host}), HTTPStatus.BAD_REQUEST, "Bad request.")


@pytest.mark.parametrize("broken", ["/api/broken/", "/broken/"])
def test_defect_answers_500_in_json_without_a_trace_of_it(
    anonymous: APIClient, settings: Any, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    settings.ROOT_URLCONF = __name__

    response = anonymous.get(broken)

    assert_json_error(response, HTTPStatus.INTERNAL_SERVER_ERROR, "Internal server error.")
    assert "canary" in caplog.text, "the traceback is in the log"


def test_error_of_the_api_names_no_class_or_path(anonymous: APIClient, as_alice: APIClient) -> None:
    for response in (
        anonymous.get("/api/transactions/"),
        as_alice.get("/api/transactions/1/"),
        as_alice.post("/api/transactions/", {"amount": "x"}),
        as_alice.post("/api/transactions/", "{", content_type="application/json"),
        anonymous.get("/api/transactions/", headers={"Authorization": "Bearer x"}),
    ):
        assert not re.search(r"Traceback|django|psycopg|SELECT|/app|\.py|Python", response.content.decode())


@pytest.mark.parametrize("accept", ["text/html", "application/xml", "text/plain", "text/html,application/xhtml+xml"])
def test_other_formats_than_json_are_refused_in_json(as_alice: APIClient, accept: str) -> None:
    response = as_alice.get("/api/transactions/", headers={"Accept": accept})

    assert_json_error(response, HTTPStatus.NOT_ACCEPTABLE, "Could not satisfy the request Accept header.")


@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/*", "text/html,*/*;q=0.1"])
def test_json_is_given_to_who_takes_it(as_alice: APIClient, accept: str) -> None:
    response = as_alice.get("/api/transactions/", headers={"Accept": accept})

    assert response.status_code == HTTPStatus.OK
    assert response["Content-Type"] == "application/json"


@pytest.mark.parametrize("query", ["?format=html", "?format=api", "?format=json"])
def test_format_cannot_be_chosen_by_a_parameter(as_alice: APIClient, query: str) -> None:
    response = as_alice.get(f"/api/transactions/{query}")

    assert response["Content-Type"] == "application/json"
    assert response.status_code in {HTTPStatus.OK, HTTPStatus.NOT_FOUND}


def test_answers_carry_the_headers_of_a_closed_service(as_alice: APIClient, anonymous: APIClient) -> None:
    for response in (
        as_alice.get("/api/transactions/"),
        anonymous.get("/nothing"),
        anonymous.get("/api/transactions/"),
    ):
        assert response["X-Content-Type-Options"] == "nosniff"
        assert response["X-Frame-Options"] == "DENY"
        assert response["Referrer-Policy"] == "same-origin"
        assert "default-src 'none'" in response["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in response["Content-Security-Policy"]
        assert not response.cookies
        assert "Server" not in response
        assert "Access-Control-Allow-Origin" not in response


# Request ids ----------------------------------------------------------------------------------------------------------


def test_request_id_of_nginx_is_kept(anonymous: APIClient) -> None:
    given = "0123456789abcdef" * 2

    assert anonymous.get("/nothing", headers={"X-Request-ID": given})["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "x", "0" * 31, "0" * 33, "A" * 32, "0" * 31 + "\n", "<script>" * 4, "é" * 32])
def test_request_id_in_another_form_is_replaced(anonymous: APIClient, given: str) -> None:
    answered = anonymous.get("/nothing", headers={"X-Request-ID": given})["X-Request-ID"]

    assert answered != given
    assert re.fullmatch(r"[0-9a-f]{32}", answered)


def test_request_id_of_a_client_is_not_believed_without_nginx(anonymous: APIClient, settings: Any) -> None:
    settings.BEHIND_PROXY = False
    given = "0123456789abcdef" * 2

    assert anonymous.get("/nothing", headers={"X-Request-ID": given})["X-Request-ID"] != given


def test_request_id_is_on_every_log_line_of_its_request(
    anonymous: APIClient, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.ROOT_URLCONF = __name__
    handler = logging.getLogger().handlers[0]
    lines: list[str] = []

    def keep(record: logging.LogRecord) -> bool:
        handler.filter(record)
        lines.append(handler.format(record))
        return True

    caplog.handler.addFilter(keep)
    given = "0123456789abcdef" * 2

    anonymous.get("/broken/", headers={"X-Request-ID": given})
    logging.getLogger("afterwards").error("something else")

    assert f"request_id={given}" in lines[0]
    assert "request_id=-" in lines[-1]
