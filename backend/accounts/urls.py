"""Routes under /auth/, each written out: djoser's own patterns are not anchored, and route more than works here."""

from django.conf import settings
from django.urls import path

from accounts.views import (
    AccountViewSet,
    ActivateView,
    AskForActivationView,
    AskForPasswordResetView,
    BlacklistView,
    LoginView,
    LogoutAllView,
    LogoutView,
    RefreshView,
    ResetPasswordView,
    SessionViewSet,
    VerifyView,
)

urlpatterns = [
    path("users/", AccountViewSet.as_view({"post": "create"}), name="register"),
    path(
        "users/me/",
        AccountViewSet.as_view({"get": "retrieve", "put": "update", "patch": "partial_update", "delete": "destroy"}),
        name="account",
    ),
    path("users/set_password/", AccountViewSet.as_view({"post": "set_password"}), name="set-password"),
    path("jwt/create/", LoginView.as_view(), name="login"),
    path("jwt/refresh/", RefreshView.as_view(), name="refresh"),
    path("jwt/verify/", VerifyView.as_view(), name="verify"),
    path("jwt/blacklist/", BlacklistView.as_view(), name="blacklist"),
    path("jwt/logout/", LogoutView.as_view(), name="logout"),
    path("jwt/logout-all/", LogoutAllView.as_view(), name="logout-all"),
    path("sessions/", SessionViewSet.as_view({"get": "list"}), name="sessions"),
    path("sessions/<uuid:pk>/", SessionViewSet.as_view({"delete": "destroy"}), name="session"),
]

# Without mail they could only fail, so they are not there, and not in the schema.
if settings.PASSWORD_RESET_URL:
    urlpatterns += [
        path("users/reset_password/", AskForPasswordResetView.as_view(), name="ask-for-password-reset"),
        path("users/reset_password_confirm/", ResetPasswordView.as_view(), name="reset-password"),
    ]
if settings.ACTIVATION_ENABLED:
    urlpatterns += [
        path("users/resend_activation/", AskForActivationView.as_view(), name="ask-for-activation"),
        path("users/activation/", ActivateView.as_view(), name="activate"),
    ]
