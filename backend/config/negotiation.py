"""Which renderer answers: nearly always the only one."""

from typing import Any

from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from config.clients import header


class Negotiation(DefaultContentNegotiation):
    """The framework's own, asked only where there is something to decide (docs/decisions/0048).

    A client that takes anything, or names the type that is offered first, gets that one.
    """

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """Return the renderer; raise ``Http404`` for an unknown format, ``NotAcceptable`` for an unknown type."""
        usual = renderers[0]
        named = format_suffix or self.settings.URL_FORMAT_OVERRIDE in request.query_params
        if not named and header(request, "Accept") in (None, "*/*", usual.media_type):
            return usual, usual.media_type
        chosen: tuple[BaseRenderer, str] = super().select_renderer(request, renderers, format_suffix)
        return chosen
