"""The OpenAPI schema and the two pages that show it. All public: they hold no data.

``DJANGO_DOCS_ENABLED=false`` removes them.
"""

from functools import cache
from typing import Any

from csp.decorators import csp_update
from django.utils.decorators import method_decorator
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.views import SpectacularAPIView, SpectacularRedocView, SpectacularSwaggerSplitView
from rest_framework.request import Request
from rest_framework.response import Response

from config.errors import JsonErrors


@cache
def schema() -> Any:
    """Return the schema, made once in each process: it costs 36 ms, and everybody may ask for it."""
    return SchemaGenerator().get_schema(request=None, public=True)  # type: ignore[no-untyped-call]


class SchemaView(JsonErrors, SpectacularAPIView):
    """The OpenAPI 3 schema, in YAML or, where the client prefers it, in JSON."""

    def _get_schema_response(self, request: Request) -> Response:
        # The client's `version` and `lang` are not looked at: they would reach a header.
        name = f"openapi.{request.accepted_renderer.format}"
        return Response(schema(), headers={"Content-Disposition": f'inline; filename="{name}"'})


class SwaggerView(JsonErrors, SpectacularSwaggerSplitView):
    """Swagger UI, with its script as a file of its own so that the page needs no inline script."""


# ReDoc writes its styles into the page and searches in a worker that it makes from a blob.
@method_decorator(csp_update({"style-src": ["'unsafe-inline'"], "worker-src": ["blob:"]}), name="dispatch")
class RedocView(JsonErrors, SpectacularRedocView):
    """ReDoc: the same schema as a document to read."""
