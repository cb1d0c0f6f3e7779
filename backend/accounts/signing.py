"""Signing with the newest key of a ring, verifying with any of them."""

from functools import cache
from hashlib import sha256
from typing import Any

import jwt
from django.conf import settings
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenBackendError
from rest_framework_simplejwt.settings import api_settings
from rest_framework_simplejwt.tokens import Token


def key_id(key: str) -> str:
    """Return the public name of ``key``: the same on every replica, and nothing that helps to guess the key."""
    return sha256(b"key id of " + key.encode()).hexdigest()[:16]


class KeyRingBackend(TokenBackend):
    """simplejwt's backend with a key id in every token.

    A key is replaced without signing anybody out: the new one joins the ring, then signs, then the old one leaves
    once nothing that it signed is alive.
    """

    def __init__(self, ring: list[str]) -> None:
        super().__init__(
            api_settings.ALGORITHM,
            signing_key=ring[0],
            audience=api_settings.AUDIENCE,
            issuer=api_settings.ISSUER,
            leeway=api_settings.LEEWAY,
        )
        self.key_id = key_id(ring[0])
        self.ring = {key_id(key): self._prepare_key(key) for key in ring}
        # By the hash of the token; here, so that none outlives the keys (accounts.authentication).
        self.verified: dict[bytes, Token] = {}

    def encode(self, payload: dict[str, Any]) -> str:
        """Return ``payload`` as a signed token."""
        return jwt.encode(
            {**payload, "aud": self.audience, "iss": self.issuer},
            self.prepared_signing_key,
            algorithm=self.algorithm,
            headers={"kid": self.key_id},
        )

    def get_verifying_key(self, token: Any) -> Any:
        """Return the key that the token names; raise ``TokenBackendError`` where the ring has none of that name."""
        try:
            return self.ring[jwt.get_unverified_header(token)["kid"]]
        except (jwt.InvalidTokenError, KeyError, TypeError):
            raise TokenBackendError("Token is invalid") from None


@cache
def token_backend() -> KeyRingBackend:
    """Return the backend of this process."""
    return KeyRingBackend(settings.JWT_KEY_RING)
