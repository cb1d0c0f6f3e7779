"""The account endpoints: djoser's, those of them that work here, each routed by name."""

from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.db import transaction
from djoser.views import UserViewSet
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import serializers
from rest_framework.authentication import BaseAuthentication
from rest_framework.generics import GenericAPIView
from rest_framework.mixins import DestroyModelMixin, ListModelMixin
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView
from rest_framework.viewsets import GenericViewSet
from rest_framework_simplejwt.views import TokenViewBase

from accounts.attempts import unlock
from accounts.authentication import lock_asking
from accounts.mail import ask_for
from accounts.models import OutgoingMail, Session, SessionQuerySet, User
from accounts.serializers import (
    AccountSerializer,
    ActivationSerializer,
    AddressSerializer,
    BlacklistSerializer,
    CloseAccountSerializer,
    LoginSerializer,
    PasswordResetSerializer,
    RefreshSerializer,
    RegistrationSerializer,
    SessionSerializer,
    VerifySerializer,
)
from accounts.sessions import end_sessions
from accounts.tokens import SESSION_CLAIM
from config.openapi import BAD_REQUEST, NOT_FOUND, TOO_MANY_REQUESTS, UNAUTHORIZED, UNAVAILABLE

LOGOUT_ERRORS = {401: UNAUTHORIZED, 429: TOO_MANY_REQUESTS, 503: UNAVAILABLE}
CHANGE_ERRORS = {400: BAD_REQUEST, **LOGOUT_ERRORS}

ALWAYS = {401: UNAUTHORIZED, 503: UNAVAILABLE}
# With an address, which may be left out where it need not be confirmed: it works in both.
REGISTRATION = {"username": "alice", "email": "alice@example.com", "password": "a-long-passphrase"}
REGISTERED = {"id": 1, "username": "alice", "email": "alice@example.com"}
PAIR = {"refresh": "eyJhbGciOiJIUzI1NiI...", "access": "eyJhbGciOiJIUzI1NiI..."}
ADDRESS = {"email": "alice@example.com", "current_password": "a-long-passphrase"}
LINK = {"uid": "MQ", "token": "cx2m5s-0f4d8b..."}
NEXT = "another-long-passphrase"


def example(name: str, body: dict[str, str]) -> OpenApiExample:
    """Return an example of what is sent."""
    return OpenApiExample(name, body, request_only=True)


class TokenPairSerializer(serializers.Serializer[Any]):
    """Both tokens."""

    access = serializers.CharField(
        help_text="Send it as `Authorization: Bearer <access>`; lives 15 minutes by default."
    )
    refresh = serializers.CharField(help_text="Exchange it once for the next pair; lives one day by default.")


@extend_schema_view(
    create=extend_schema(
        tags=["accounts"],
        operation_id="register",
        summary="Register",
        description="Create an account. Public: nobody has a token yet.",
        auth=[],
        responses={201: RegistrationSerializer, 400: BAD_REQUEST, 429: TOO_MANY_REQUESTS, 503: UNAVAILABLE},
        examples=[
            OpenApiExample("Register", REGISTRATION, request_only=True),
            OpenApiExample("Registered", REGISTERED, response_only=True),
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
        description="Sets the e-mail address. Another one takes your current password.",
        responses={200: AccountSerializer, **CHANGE_ERRORS},
        examples=[example("Another address", ADDRESS)],
    ),
    partial_update=extend_schema(
        tags=["accounts"],
        operation_id="update_account",
        summary="Change your account's details",
        description="Sets the e-mail address, if it is given. Another one takes your current password.",
        responses={200: AccountSerializer, **CHANGE_ERRORS},
        examples=[example("Another address", ADDRESS)],
    ),
    destroy=extend_schema(
        tags=["accounts"],
        operation_id="close_account",
        summary="Close your account",
        description="Takes your current password. Ends every session; your transactions stay in the ledger.",
        request=CloseAccountSerializer,
        responses={204: OpenApiResponse(description="The account is closed."), **CHANGE_ERRORS},
        examples=[example("Your password", {"current_password": "a-long-passphrase"})],
    ),
)
class AccountViewSet(UserViewSet):  # type: ignore[misc] # djoser ships no types
    """Register, and read, change or close one's own account.

    djoser's own view set has more, which is not routed: what would list other accounts, and what is about mail, which
    the views below do without telling who has an account.
    """

    def get_authenticators(self) -> list[BaseAuthentication]:
        """Look at no token where somebody registers: one that has run out must not keep them from it."""
        registers = self.request is not None and self.request.method == "POST" and "create" in self.action_map.values()
        return [] if registers else super().get_authenticators()

    def get_object(self) -> User:
        """Return the account that asks."""
        user: User = self.request.user
        return user

    def perform_create(self, serializer: Any, **kwargs: Any) -> None:
        """Register; where the address has to be confirmed, the account waits for that."""
        if not settings.ACTIVATION_ENABLED:
            super().perform_create(serializer, **kwargs)
            return
        with transaction.atomic():
            super().perform_create(serializer, is_active=False, awaits_activation=True, **kwargs)
            ask_for(kind=OutgoingMail.Kind.ACTIVATION, address=serializer.instance.email)

    def perform_destroy(self, instance: User) -> None:
        """Close the account rather than delete it: its transactions are a ledger."""
        with transaction.atomic():
            account = lock_asking(instance)
            name = account.username
            account.close()
        unlock(name=name)  # what was counted says where from

    @extend_schema(
        tags=["accounts"],
        operation_id="set_password",
        summary="Change your password",
        description="Ends every session, this one too: log in again.",
        responses={204: None, **CHANGE_ERRORS},
        examples=[example("Another password", {"current_password": "a-long-passphrase", "new_password": NEXT})],
    )
    def set_password(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Change the password; saving it ends every session."""
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        with transaction.atomic():
            account = lock_asking(self.get_object())
            account.set_password(serializer.validated_data["new_password"])
            account.save(update_fields=["password"])
        return Response(status=HTTPStatus.NO_CONTENT)


class PublicView(GenericAPIView[Any]):
    """Anybody may ask, and no token is looked at."""

    authentication_classes = ()
    permission_classes = ()


class MailView(PublicView):
    """Ask for a mail. Public: who needs it cannot log in. The answer is the same for every address."""

    serializer_class = AddressSerializer
    kind: OutgoingMail.Kind

    def post(self, request: Request) -> Response:
        """Note that a mail is wanted."""
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        ask_for(kind=self.kind, address=serializer.validated_data["email"])
        return Response(status=HTTPStatus.NO_CONTENT)


class LinkView(PublicView):
    """Use the link of a mail. Public: the token in the body is the credential."""

    def post(self, request: Request) -> Response:
        """Do what the link is for."""
        serializer = self.get_serializer(data=request.data)
        serializer.is_valid(raise_exception=True)
        serializer.save()
        return Response(status=HTTPStatus.NO_CONTENT)


MAIL_ASKED_FOR = OpenApiResponse(
    description="If there is such an account, a mail is on its way. The answer tells nobody whether there is."
)
MAIL_ERRORS = {400: BAD_REQUEST, 429: TOO_MANY_REQUESTS, 503: UNAVAILABLE}


@extend_schema_view(
    post=extend_schema(
        tags=["accounts"],
        operation_id="ask_for_password_reset",
        summary="Ask for a password reset",
        description="Sends a link to the address of an account, if there is one. Public.",
        auth=[],
        responses={204: MAIL_ASKED_FOR, **MAIL_ERRORS},
        examples=[OpenApiExample("An address", {"email": "alice@example.com"}, request_only=True)],
    )
)
class AskForPasswordResetView(MailView):
    """Ask for a link to choose a new password."""

    kind = OutgoingMail.Kind.PASSWORD_RESET


@extend_schema_view(
    post=extend_schema(
        tags=["accounts"],
        operation_id="reset_password",
        summary="Reset a password",
        description="Takes what the link carries, once, and ends every session. Public.",
        auth=[],
        responses={204: OpenApiResponse(description="The password is the new one."), **MAIL_ERRORS},
        examples=[example("What the link carries", {**LINK, "new_password": NEXT})],
    )
)
class ResetPasswordView(LinkView):
    """Choose a new password."""

    serializer_class = PasswordResetSerializer


@extend_schema_view(
    post=extend_schema(
        tags=["accounts"],
        operation_id="ask_for_activation",
        summary="Ask for the activation mail again",
        description="Sends the link to the address of a registration that waits for it, if there is one. Public.",
        auth=[],
        responses={204: MAIL_ASKED_FOR, **MAIL_ERRORS},
        examples=[OpenApiExample("An address", {"email": "alice@example.com"}, request_only=True)],
    )
)
class AskForActivationView(MailView):
    """Ask for the link that confirms a registration."""

    kind = OutgoingMail.Kind.ACTIVATION


@extend_schema_view(
    post=extend_schema(
        tags=["accounts"],
        operation_id="activate",
        summary="Activate an account",
        description="Takes what the link carries, once. Public.",
        auth=[],
        responses={204: OpenApiResponse(description="The account is active: log in."), **MAIL_ERRORS},
        examples=[example("What the link carries", LINK)],
    )
)
class ActivateView(LinkView):
    """Confirm a registration."""

    serializer_class = ActivationSerializer


@extend_schema_view(
    post=extend_schema(
        tags=["tokens"],
        operation_id="login",
        summary="Log in",
        description="Exchange a user name and a password for a pair of tokens. Public.",
        responses={200: TokenPairSerializer, **CHANGE_ERRORS},
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
        responses={200: TokenPairSerializer, **CHANGE_ERRORS},
        examples=[
            example("A refresh token", {"refresh": PAIR["refresh"]}),
            OpenApiExample("A pair of tokens", PAIR, response_only=True, status_codes=["200"]),
        ],
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
            **CHANGE_ERRORS,
        },
        examples=[example("A token", {"token": PAIR["access"]})],
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
            **CHANGE_ERRORS,
        },
        examples=[example("A refresh token", {"refresh": PAIR["refresh"]})],
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
        responses={204: OpenApiResponse(description="The session is over."), **LOGOUT_ERRORS},
    )
)
class LogoutView(APIView):
    """End the session that asks."""

    def post(self, request: Request) -> Response:
        """End it."""
        sessions = _sessions(request).filter(pk=request.auth[SESSION_CLAIM])  # type: ignore[index]
        end_sessions(sessions=sessions, account=_account(request))
        return Response(status=HTTPStatus.NO_CONTENT)


@extend_schema_view(
    post=extend_schema(
        tags=["tokens"],
        operation_id="logout_all",
        summary="Log out everywhere",
        description="Ends every session of your account, this one too.",
        request=None,
        responses={204: OpenApiResponse(description="All sessions are over."), **LOGOUT_ERRORS},
    )
)
class LogoutAllView(APIView):
    """End every session of the account that asks."""

    def post(self, request: Request) -> Response:
        """End them."""
        end_sessions(sessions=_sessions(request), account=_account(request))
        return Response(status=HTTPStatus.NO_CONTENT)


@extend_schema_view(
    list=extend_schema(
        tags=["sessions"],
        operation_id="list_sessions",
        summary="List your sessions",
        description="Where your account is logged in, last used first.",
        responses={200: SessionSerializer(many=True), 400: BAD_REQUEST, 404: NOT_FOUND, **ALWAYS},
    ),
    destroy=extend_schema(
        tags=["sessions"],
        operation_id="end_session",
        summary="End a session",
        description="Its tokens stop working at the next request.",
        responses={204: OpenApiResponse(description="The session is over."), 404: NOT_FOUND, **LOGOUT_ERRORS},
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
        """End the session; the row stays for as long as its address is worth knowing."""
        end_sessions(sessions=_sessions(self.request).filter(pk=instance.pk), account=_account(self.request))


def _sessions(request: Request) -> SessionQuerySet:
    return Session.objects.live().filter(user_id=_account(request))


def _account(request: Request) -> int:
    account: int = request.user.pk  # type: ignore[assignment] # nobody else gets past the permission
    return account
