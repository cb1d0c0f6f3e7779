"""What OPTIONS answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework.metadata import BaseMetadata
from rest_framework.request import Request

if TYPE_CHECKING:
    from rest_framework.views import APIView  # its module imports this one


class MediaTypes(BaseMetadata):
    """The media types; the methods are in ``Allow``, and the rest is in the OpenAPI schema."""

    def determine_metadata(self, request: Request, view: APIView) -> dict[str, Any]:
        """Return what ``view`` answers with and what it reads."""
        return {
            "renders": [renderer.media_type for renderer in view.renderer_classes],
            "parses": [parser.media_type for parser in view.parser_classes],
        }
