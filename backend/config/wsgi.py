"""The application that Gunicorn serves."""

import os
from collections.abc import Mapping
from typing import Any

import django
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.utils.http import parse_header_parameters

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")


UNREADABLE = "application/octet-stream"
"""What a media type that cannot be read is taken for: nothing here takes or gives it, so the answer is 415 or 406."""


def replace_unreadable_types(meta: dict[str, Any]) -> None:
    """Replace media types whose parameters Django's parser chokes on; Django and the framework both call it.

    ``charset*=nothing''utf-8`` (RFC 2231) names a charset that Python has not: LookupError, before any handler.
    """
    for name in ("CONTENT_TYPE", "HTTP_ACCEPT"):
        try:
            for media_type in meta.get(name, "").split(","):
                parse_header_parameters(media_type)
        except (LookupError, ValueError):
            meta[name] = UNREADABLE


class Request(WSGIRequest):
    """A request in UTF-8, whatever ``charset`` its Content-Type names.

    Django takes any of Python's codecs for it, also those that are no charset: ``charset=zlib`` and a query string
    would end in a LookupError before any middleware could answer.
    """

    def __init__(self, meta: dict[str, Any]) -> None:
        replace_unreadable_types(meta)
        super().__init__(meta)

    def _set_content_type_params(self, meta: Mapping[str, Any]) -> None:
        self.content_type, self.content_params = parse_header_parameters(meta.get("CONTENT_TYPE", ""))


class Application(WSGIHandler):
    """Django, with such requests."""

    request_class = Request


django.setup(set_prefix=False)
application = Application()
