"""What is refused both by an app and by ``config.errors``.

Not in ``config.errors``: it needs the views of Django REST framework, whose import needs accounts.authentication.
"""

from rest_framework_simplejwt.exceptions import AuthenticationFailed


class SessionOver(AuthenticationFailed):
    """401: the session was ended or has run out, or its account is not what it was."""

    default_detail = "The session of this token is over."
    default_code = "session_over"
