"""The account endpoints: djoser's, those of them that work here, each routed by name."""

from http import HTTPStatus
from typing import Any

from djoser.views import UserViewSet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.authentication import BaseAuthentication
from rest_framework.mixins import DestroyModelMixin, ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet
from rest_framework_simplejwt.views import TokenViewBase

from accounts.models import Session, SessionQuerySet, User
from accounts.serializers import (
    AccountSerializer,
    BlacklistSerializer,
    CloseAccountSerializer,
    LoginSerializer,
    RefreshSerializer,
    RegistrationSerializer,
    SessionSerializer,
    VerifySerializer,
)
from accounts.tokens import SESSION_CLAIM
from config.openapi import BAD_REQUEST, NOT_FOUND, UNAUTHORIZED, UNAVAILABLE

PUBLIC_ERRORS = {400: BAD_REQUEST, 401: UNAUTHORIZED, 503: UNAVAILABLE}

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
        responses={201: RegistrationSerializer, 400: BAD_REQUEST, 503: UNAVAILABLE},
        examples=[
            OpenApiExample("Register", {"username": "alice", "password": "a-long-passphrase"}, request_only=True),
            OpenApiExample("Registered", {"id": 1, "username": "alice", "email": ""}, response_only=True),
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
        request=CloseAccountSerializer,
        responses={204: OpenApiResponse(description="The account is closed."), 400: BAD_REQUEST, **ALWAYS},
    ),
)
class AccountViewSet(UserViewSet):  # type: ignore[misc] # djoser ships no types
    """Register, and read, change or close one's own account.

    djoser's own view set has more; what needs mail is not routed, nor what would list other accounts.
    """

    def get_authenticators(self) -> list[BaseAuthentication]:
        """Look at no token where somebody registers: one that has run out must not keep them from it."""
        registers = self.request is not None and self.request.method == "POST" and "create" in self.action_map.values()
        return [] if registers else super().get_authenticators()

    def get_object(self) -> User:
        """Return the account that asks."""
        user: User = self.request.user
        return user

    def perform_destroy(self, instance: User) -> None:
        """Close the account rather than delete it: its transactions are a ledger."""
        instance.close()

    @extend_schema(
        tags=["accounts"],
        operation_id="set_password",
        summary="Change your password",
        description="Ends every session, this one too: log in again.",
        responses={204: None, 400: BAD_REQUEST, **ALWAYS},
    )
    def set_password(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Change the password; saving it ends every session."""
        response: Response = super().set_password(request, *args, **kwargs)
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
class LoginView(TokenViewBase):
    """Log in. Public: this is where tokens come from."""

    serializer_class = LoginSerializer


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
class RefreshView(TokenViewBase):
    """Refresh. Public: the token in the body is the credential."""

    serializer_class = RefreshSerializer


@extend_schema_view(
    post=extend_schema(
        tags=["tokens"],
        operation_id="verify",
        summary="Verify a token",
        description=(
            "Whether a token of either kind would be accepted now: signed, not expired, not spent, of a live session"
            " and an active account. Public: the token is the credential."
        ),
        responses={
            200: OpenApiResponse(OpenApiTypes.OBJECT, "The token is valid; the object is empty."),
            400: BAD_REQUEST,
            **ALWAYS,
        },
    )
)
class VerifyView(TokenViewBase):
    """Verify. Public: the token in the body is the credential."""

    serializer_class = VerifySerializer


@extend_schema_view(
    post=extend_schema(
        tags=["tokens"],
        operation_id="blacklist",
        summary="Give a refresh token back",
        description="Ends the session that the token belongs to. Public: the token is the credential.",
        responses={
            200: OpenApiResponse(OpenApiTypes.OBJECT, "The session is over; the object is empty."),
            **PUBLIC_ERRORS,
        },
    )
)
class BlacklistView(TokenViewBase):
    """Blacklist. Public: the token in the body is the credential."""

    serializer_class = BlacklistSerializer


@extend_schema_view(
    post=extend_schema(
        tags=["tokens"],
        operation_id="logout",
        summary="Log out",
        description="Ends the session of the access token: it and the session's refresh token stop working.",
        request=None,
        responses={204: OpenApiResponse(description="The session is over."), 401: UNAUTHORIZED, 503: UNAVAILABLE},
    )
)
class LogoutView(APIView):
    """End the session that asks."""

    def post(self, request: Request) -> Response:
        """End it."""
        _sessions(request).filter(pk=request.auth[SESSION_CLAIM]).end()  # type: ignore[index]
        return Response(status=HTTPStatus.NO_CONTENT)


@extend_schema_view(
    post=extend_schema(
        tags=["tokens"],
        operation_id="logout_all",
        summary="Log out everywhere",
        description="Ends every session of your account, this one too.",
        request=None,
        responses={204: OpenApiResponse(description="All sessions are over."), 401: UNAUTHORIZED, 503: UNAVAILABLE},
    )
)
class LogoutAllView(APIView):
    """End every session of the account that asks."""

    def post(self, request: Request) -> Response:
        """End them."""
        _sessions(request).end()
        return Response(status=HTTPStatus.NO_CONTENT)


@extend_schema_view(
    list=extend_schema(
        tags=["sessions"],
        operation_id="list_sessions",
        summary="List your sessions",
        description="Where your account is logged in, last used first.",
        responses={
            200: SessionSerializer(many=True),
            400: BAD_REQUEST,
            401: UNAUTHORIZED,
            404: NOT_FOUND,
            503: UNAVAILABLE,
        },
    ),
    destroy=extend_schema(
        tags=["sessions"],
        operation_id="end_session",
        summary="End a session",
        description="Its tokens stop working at the next request.",
        responses={
            204: OpenApiResponse(description="The session is over."),
            401: UNAUTHORIZED,
            404: NOT_FOUND,
            503: UNAVAILABLE,
        },
    ),
)
class SessionViewSet(ListModelMixin, DestroyModelMixin, GenericViewSet[Session]):
    """The live sessions of the account that asks."""

    queryset = Session.objects.none()  # for the schema; get_queryset decides
    serializer_class = SessionSerializer

    def get_queryset(self) -> SessionQuerySet:
        """Return the live sessions of the account."""
        return _sessions(self.request)

    def perform_destroy(self, instance: Session) -> None:
        """End the session; the row stays until it would have run out."""
        _sessions(self.request).filter(pk=instance.pk).end()


def _sessions(request: Request) -> SessionQuerySet:
    return Session.objects.live().filter(user_id=request.user.pk)  # type: ignore[misc]
