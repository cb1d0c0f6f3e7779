"""Tokens and password hashes of the peers: the same for all of them, with the cost that this stack's have."""

import os
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import jwt
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

SECRET = os.environ["BENCH_SECRET"]
ISSUER, AUDIENCE = "transactions", "transactions-api"
ACCESS_LIFETIME, REFRESH_LIFETIME = timedelta(minutes=15), timedelta(hours=24)
# The least that OWASP accepts, as this stack's: a login is compared, not a choice of parameters.
HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


class NotAuthenticatedError(Exception):
    """The token or the password is not good."""


def read(token: str, kind: str) -> dict[str, str]:
    """Return the claims of a token of that kind."""
    try:
        claims = jwt.decode(token, SECRET, algorithms=["HS256"], issuer=ISSUER, audience=AUDIENCE)
    except jwt.InvalidTokenError:
        raise NotAuthenticatedError from None
    if claims.get("token_type") != kind:
        raise NotAuthenticatedError
    return claims


def _encode(kind: str, user: int, lifetime: timedelta, jti: str) -> str:
    now = datetime.now(UTC)
    claims = {"token_type": kind, "exp": now + lifetime, "iat": now, "jti": jti, "user_id": str(user)}
    return jwt.encode({**claims, "iss": ISSUER, "aud": AUDIENCE}, SECRET, algorithm="HS256")


def new_refresh() -> tuple[str, datetime]:
    """Return the id and the end of a refresh token to be."""
    return uuid4().hex, datetime.now(UTC) + REFRESH_LIFETIME


def pair(user: int, jti: str, access_lifetime: timedelta = ACCESS_LIFETIME) -> dict[str, str]:
    """Return the two tokens of a login."""
    access = _encode("access", user, access_lifetime, uuid4().hex)
    return {"refresh": _encode("refresh", user, REFRESH_LIFETIME, jti), "access": access}


def check_password(password: str, hashed: str) -> None:
    """Raise ``NotAuthenticatedError`` for a wrong password."""
    try:
        HASHER.verify(hashed.removeprefix("argon2"), password)
    except VerifyMismatchError:
        raise NotAuthenticatedError from None
