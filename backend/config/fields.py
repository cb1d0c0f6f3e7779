"""Fields of text that take what the schema says they take.

The framework's own turns a number into text and trims before it measures: ``{"username": 0}`` would register an account
called "0", and a schema that says ``type: string, maxLength: 150`` would not be true.
"""

from typing import Any, ClassVar

from django.db import models
from rest_framework import serializers

NO_NUL = r"^[^\u0000]*$"
SPACES = r"\t-\r\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""What trimming takes away, written out: what Python and ECMAScript mean by a space differs a little."""

VISIBLE = rf"^[^\u0000]*[^\u0000{SPACES}][^\u0000]*$"
"""No NUL, and at least one character that trimming leaves."""


class TextField(serializers.CharField):
    """A JSON string, no longer than its bound as it was sent, trimmed afterwards."""

    pattern: ClassVar[str | None] = VISIBLE
    """What the schema says of the characters; ``config.openapi`` reads it."""

    def to_internal_value(self, data: Any) -> str:
        """Return the text; raise ``ValidationError`` for a value of another type."""
        if not isinstance(data, str):
            self.fail("invalid")
        if self.max_length is not None and len(data) > self.max_length:
            self.fail("max_length", max_length=self.max_length)
        return str(super().to_internal_value(data))


class EmailField(serializers.EmailField):
    """An e-mail address, with nothing around it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(trim_whitespace=False, **options)


class PasswordField(TextField):
    """A password: spaces at its ends are part of it (NIST SP 800-63B-4, section 3.1.1.2)."""

    pattern = NO_NUL

    def __init__(self, **options: Any) -> None:
        super().__init__(trim_whitespace=False, style={"input_type": "password"}, **options)


TEXT_FIELDS = {
    **serializers.ModelSerializer.serializer_field_mapping,
    models.CharField: TextField,
    models.EmailField: EmailField,
}
"""For a ModelSerializer's ``serializer_field_mapping``."""
