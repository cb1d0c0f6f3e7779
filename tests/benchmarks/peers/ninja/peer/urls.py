"""The API, as django-ninja's documentation writes one: schemas in and out, bearer tokens by its own class."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated

import credentials
from django.contrib.auth import authenticate
from django.contrib.auth.models import User
from django.db import transaction
from django.db.models.functions import Now
from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from django.urls import path
from ninja import Field, NinjaAPI, Schema
from ninja.security import HttpBearer

from .models import RefreshToken, Transaction

PAGE_SIZE = 10


class TransactionIn(Schema):
    """What a client sends."""

    amount: Annotated[Decimal, Field(max_digits=10, decimal_places=2)]
    description: Annotated[str, Field(min_length=1, max_length=255)]


class TransactionOut(Schema):
    """What a client gets."""

    id: int
    user: int = Field(alias="user_id")
    amount: Decimal
    description: str
    timestamp: datetime


class Page(Schema):
    """Ten transactions and how many there are."""

    count: int
    next: str | None
    previous: str | None
    results: list[TransactionOut]


class Login(Schema):
    """A name and a password."""

    username: str
    password: str


class Refresh(Schema):
    """A refresh token."""

    refresh: str


class Pair(Schema):
    """The tokens of a login."""

    refresh: str
    access: str


class Bearer(HttpBearer):
    """The account that a token belongs to, which must still be active."""

    def authenticate(self, request: HttpRequest, token: str) -> User | None:
        """Return the account, or None."""
        try:
            claims = credentials.read(token, "access")
        except credentials.NotAuthenticatedError:
            return None
        return User.objects.filter(pk=claims["user_id"], is_active=True).first()


api = NinjaAPI(auth=Bearer())


@api.exception_handler(credentials.NotAuthenticatedError)
def not_authenticated(request: HttpRequest, error: Exception):
    """Answer what no good token or password came with."""
    return api.create_response(request, {"detail": "Unauthorized"}, status=401)


def link(request: HttpRequest, page: int) -> str:
    """Return the address of another page."""
    query = request.GET.copy()
    query["page"] = page
    return f"{request.build_absolute_uri(request.path)}?{query.urlencode()}"


@api.get("/api/transactions/", response=Page)
def list_transactions(request: HttpRequest, page: Annotated[int, Field(ge=1)] = 1, search: str = ""):
    """Return a page, newest first."""
    rows = Transaction.objects.filter(user=request.auth)
    if search:
        rows = rows.filter(description__icontains=search)
    count = rows.count()
    start = (page - 1) * PAGE_SIZE
    return {
        "count": count,
        "next": link(request, page + 1) if page * PAGE_SIZE < count else None,
        "previous": link(request, page - 1) if page > 1 else None,
        "results": list(rows[start : start + PAGE_SIZE]),
    }


@api.get("/api/transactions/{int:number}/", response=TransactionOut)
def get_transaction(request: HttpRequest, number: int):
    """Return one."""
    return get_object_or_404(Transaction, pk=number, user=request.auth)


@api.post("/api/transactions/", response={201: TransactionOut})
def create_transaction(request: HttpRequest, body: TransactionIn):
    """Record one."""
    return 201, Transaction.objects.create(user=request.auth, **body.dict())


def issue(user: int) -> dict[str, str]:
    """Return a new pair, recorded."""
    jti, expires_at = credentials.new_refresh()
    RefreshToken.objects.create(jti=jti, user_id=user, expires_at=expires_at)
    return credentials.pair(user, jti)


@api.post("/auth/jwt/create/", response=Pair, auth=None)
def login(request: HttpRequest, body: Login):
    """Exchange a password for a pair."""
    user = authenticate(request, username=body.username, password=body.password)
    if user is None:
        raise credentials.NotAuthenticatedError
    return issue(user.pk)


@api.post("/auth/jwt/refresh/", response=Pair, auth=None)
def refresh(request: HttpRequest, body: Refresh):
    """Exchange a refresh token, once, for the next pair."""
    jti = credentials.read(body.refresh, "refresh")["jti"]
    with transaction.atomic():
        live = RefreshToken.objects.filter(jti=jti, spent_at=None, user__is_active=True)
        user = live.values_list("user_id", flat=True).first()
        if user is None or not RefreshToken.objects.filter(jti=jti, spent_at=None).update(spent_at=Now()):
            raise credentials.NotAuthenticatedError
        return issue(user)


urlpatterns = [path("", api.urls)]
