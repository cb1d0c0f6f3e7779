"""The account endpoints: djoser's, those of them that work here, each routed by name."""

from typing import Any

from djoser.views import UserViewSet
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework_simplejwt.views import TokenObtainPairView, TokenRefreshView, TokenVerifyView

from accounts.models import User
from accounts.serializers import AccountSerializer
from accounts.tokens import end_sessions
from config.openapi import BAD_REQUEST, UNAUTHORIZED, UNAVAILABLE

ALWAYS = {401: UNAUTHORIZED, 503: UNAVAILABLE}
PAIR = {"refresh": "eyJhbGciOiJIUzI1NiI...", "access": "eyJhbGciOiJIUzI1NiI..."}


class TokenPairSerializer(serializers.Serializer[Any]):
    """Both tokens."""

    access = serializers.CharField(help_text="Send it as `Authorization: Bearer <access>`; lives 15 minutes.")
    refresh = serializers.CharField(help_text="Exchange it once for the next pair; lives one day.")


@extend_schema_view(
    create=extend_schema(
        tags=["accounts"],
        operation_id="register",
        summary="Register",
        description="Create an account. Public: nobody has a token yet.",
        auth=[],
        responses={201: None, 400: BAD_REQUEST, 503: UNAVAILABLE},
        examples=[
            OpenApiExample("Register", {"username": "alice", "password": "a-long-passphrase"}, request_only=True),
        ],
    ),
    retrieve=extend_schema(
        tags=["accounts"],
        operation_id="get_account",
        summary="Read your account",
        description="Your own account.",
        responses={200: AccountSerializer, **ALWAYS},
    ),
    update=extend_schema(
        tags=["accounts"],
        operation_id="replace_account",
        summary="Replace your account's details",
        description="Sets the e-mail address.",
        responses={200: AccountSerializer, 400: BAD_REQUEST, **ALWAYS},
    ),
    partial_update=extend_schema(
        tags=["accounts"],
        operation_id="update_account",
        summary="Change your account's details",
        description="Sets the e-mail address, if it is given.",
        responses={200: AccountSerializer, 400: BAD_REQUEST, **ALWAYS},
    ),
    destroy=extend_schema(
        tags=["accounts"],
        operation_id="close_account",
        summary="Close your account",
        description="Takes your current password. Ends every session; your transactions stay in the ledger.",
        responses={204: OpenApiResponse(description="The account is closed."), 400: BAD_REQUEST, **ALWAYS},
    ),
)
class AccountViewSet(UserViewSet):  # type: ignore[misc] # djoser ships no types
    """Register, and read, change or close one's own account.

    djoser's own view set has more; what needs mail is not routed, nor what would list other accounts.
    """

    def get_object(self) -> User:
        """Return the account that asks."""
        user: User = self.request.user
        return user

    def perform_destroy(self, instance: User) -> None:
        """Close the account rather than delete it: its transactions are a ledger."""
        instance.close()
        end_sessions(user=instance)

    @extend_schema(
        tags=["accounts"],
        operation_id="set_password",
        summary="Change your password",
        description="Ends every session: each refresh token stops working.",
        responses={204: None, 400: BAD_REQUEST, **ALWAYS},
    )
    def set_password(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Change the password and end every session."""
        response: Response = super().set_password(request, *args, **kwargs)
        end_sessions(user=self.get_object())
        return response


@extend_schema_view(
    post=extend_schema(
        tags=["tokens"],
        operation_id="login",
        summary="Log in",
        description="Exchange a user name and a password for a pair of tokens. Public.",
        responses={200: TokenPairSerializer, 400: BAD_REQUEST, **ALWAYS},
        examples=[
            OpenApiExample("Log in", {"username": "alice", "password": "a-long-passphrase"}, request_only=True),
            OpenApiExample("A pair of tokens", PAIR, response_only=True, status_codes=["200"]),
        ],
    )
)
class LoginView(TokenObtainPairView):
    """Log in. Public: this is where tokens come from."""


@extend_schema_view(
    post=extend_schema(
        tags=["tokens"],
        operation_id="refresh",
        summary="Refresh",
        description="Exchange a refresh token for the next pair. It works once. Public: the token is the credential.",
        responses={200: TokenPairSerializer, 400: BAD_REQUEST, **ALWAYS},
        examples=[OpenApiExample("A pair of tokens", PAIR, response_only=True, status_codes=["200"])],
    )
)
class RefreshView(TokenRefreshView):
    """Refresh. Public: the token in the body is the credential."""


@extend_schema_view(
    post=extend_schema(
        tags=["tokens"],
        operation_id="verify",
        summary="Verify a token",
        description=(
            "Whether a token of either kind is well signed, not expired and not spent. It does not say whether the"
            " account is still active. Public: the token is the credential."
        ),
        responses={
            200: OpenApiResponse(description="The token is valid."),
            400: BAD_REQUEST,
            **ALWAYS,
        },
    )
)
class VerifyView(TokenVerifyView):
    """Verify. Public: the token in the body is the credential."""
