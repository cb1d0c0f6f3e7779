"""How OpenAPI describes the way of authenticating."""

from drf_spectacular.contrib.rest_framework_simplejwt import SimpleJWTScheme


class SessionScheme(SimpleJWTScheme):  # type: ignore[no-untyped-call] # registers itself by being defined
    """A bearer token, as simplejwt's own class has it."""

    target_class = "accounts.authentication.SessionAuthentication"
    name = "jwtAuth"
