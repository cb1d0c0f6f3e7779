"""The application that Gunicorn serves."""

import os
from collections.abc import Mapping
from typing import Any

import django
from django.core.handlers.wsgi import WSGIHandler, WSGIRequest
from django.utils.http import parse_header_parameters

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")


class Request(WSGIRequest):
    """A request in UTF-8, whatever ``charset`` its Content-Type names.

    Django takes any of Python's codecs for it, also those that are no charset: ``charset=zlib`` and a query string
    would end in a LookupError before any middleware could answer.
    """

    def _set_content_type_params(self, meta: Mapping[str, Any]) -> None:
        self.content_type, self.content_params = parse_header_parameters(meta.get("CONTENT_TYPE", ""))


class Application(WSGIHandler):
    """Django, with such requests."""

    request_class = Request


django.setup(set_prefix=False)
application = Application()
