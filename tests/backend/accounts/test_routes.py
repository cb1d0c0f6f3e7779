"""Which routes there are under /auth/, and that there are no others."""

from http import HTTPStatus
from uuid import UUID

import pytest
from rest_framework.test import APIClient

from accounts import urls

pytestmark = pytest.mark.django_db

# Everything else that djoser.urls, djoser.urls.jwt and djoser.urls.authtoken would route.
NOT_ROUTED = [
    "/auth/users/1/",
    "/auth/users/activation/",
    "/auth/users/resend_activation/",
    "/auth/users/reset_password/",
    "/auth/users/reset_password_confirm/",
    "/auth/users/reset_username/",
    "/auth/users/reset_username_confirm/",
    "/auth/users/set_username/",
    "/auth/token/login/",
    "/auth/token/logout/",
    "/auth/o/google-oauth2/",
    "/auth/",
]
ROUTES = [
    "users",
    "users/me",
    "users/set_password",
    "jwt/create",
    "jwt/refresh",
    "jwt/verify",
    "jwt/blacklist",
    "jwt/logout",
    "jwt/logout-all",
    "sessions",
    f"sessions/{UUID(int=1)}",
]
ROUTES_WITH_MAIL = [
    "users/activation",
    "users/resend_activation",
    "users/reset_password",
    "users/reset_password_confirm",
]
METHODS = ["get", "post", "put", "patch", "delete"]


@pytest.mark.parametrize("path", NOT_ROUTED)
def test_routes_of_djoser_that_are_not_offered_answer_404(anonymous: APIClient, as_alice: APIClient, path: str) -> None:
    for client in (anonymous, as_alice):
        for method in METHODS:
            response = getattr(client, method)(path, {"email": "alice@example.com"} if method != "get" else None)

            assert response.status_code == HTTPStatus.NOT_FOUND
            assert response["Content-Type"] == "application/json"


def test_list_of_accounts_is_not_offered(as_alice: APIClient) -> None:
    response = as_alice.get("/auth/users/")

    assert response.status_code == HTTPStatus.METHOD_NOT_ALLOWED
    assert response["Allow"] == "POST, OPTIONS"


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/auth/users/", "POST, OPTIONS"),
        ("/auth/users/me/", "GET, PUT, PATCH, DELETE, HEAD, OPTIONS"),
        ("/auth/users/set_password/", "POST, OPTIONS"),
        ("/auth/jwt/create/", "POST, OPTIONS"),
        ("/auth/jwt/refresh/", "POST, OPTIONS"),
        ("/auth/jwt/verify/", "POST, OPTIONS"),
        ("/auth/jwt/blacklist/", "POST, OPTIONS"),
        ("/auth/jwt/logout/", "POST, OPTIONS"),
        ("/auth/jwt/logout-all/", "POST, OPTIONS"),
        ("/auth/sessions/", "GET, HEAD, OPTIONS"),
        (f"/auth/sessions/{UUID(int=1)}/", "DELETE, OPTIONS"),
    ],
)
def test_routes_take_their_methods_only(as_alice: APIClient, path: str, methods: str) -> None:
    assert_methods(as_alice, path, methods)


def assert_methods(client: APIClient, path: str, methods: str) -> None:
    for method in METHODS:
        if method.upper() in methods:
            continue
        response = getattr(client, method)(path)

        assert response.status_code == HTTPStatus.METHOD_NOT_ALLOWED
        assert response["Allow"] == methods
        assert response["Content-Type"] == "application/json"


TAILS = ["", "X", "X/", "/foo", "/foo/", "//", "%0a", "/%0a", "/.json", ".json"]


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("tail", TAILS)
def test_routes_are_anchored(anonymous: APIClient, route: str, tail: str) -> None:
    assert_not_there(anonymous, f"/auth/{route}{tail}")


def assert_not_there(client: APIClient, path: str) -> None:
    for method in ("get", "post", "delete"):
        response = getattr(client, method)(path)

        assert response.status_code == HTTPStatus.NOT_FOUND
        assert response["Content-Type"] == "application/json"


def routed() -> set[str]:
    return {str(pattern.pattern).replace("<uuid:pk>", str(UUID(int=1))) for pattern in urls.urlpatterns}


def test_every_route_is_among_those_that_are_tested() -> None:
    assert routed() == {f"{route}/" for route in ROUTES}


@pytest.mark.usefixtures("activation_on")
def test_every_route_that_needs_mail_is_among_those_that_are_tested() -> None:
    assert routed() == {f"{route}/" for route in (*ROUTES, *ROUTES_WITH_MAIL)}


@pytest.mark.usefixtures("activation_on")
@pytest.mark.parametrize("route", ROUTES_WITH_MAIL)
def test_routes_that_need_mail_take_their_method_only_and_are_anchored(as_alice: APIClient, route: str) -> None:
    assert_methods(as_alice, f"/auth/{route}/", "POST, OPTIONS")
    for tail in TAILS:
        assert_not_there(as_alice, f"/auth/{route}{tail}")


def test_routes_with_a_doubled_or_missing_first_slash_answer_404(anonymous: APIClient) -> None:
    assert anonymous.post("/auth//jwt/create/").status_code == HTTPStatus.NOT_FOUND
    assert anonymous.post("//auth/jwt/create/").status_code == HTTPStatus.NOT_FOUND
