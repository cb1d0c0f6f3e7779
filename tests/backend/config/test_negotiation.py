"""Which renderer answers is what the framework's own negotiation says."""

from typing import Any

import pytest
from django.http import Http404
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rest_framework.exceptions import NotAcceptable
from rest_framework.negotiation import BaseContentNegotiation, DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer, JSONRenderer
from rest_framework.request import Request
from rest_framework.test import APIRequestFactory

from config.negotiation import Negotiation
from transactions.export import CsvRenderer, JsonLinesRenderer
from transactions.views import TransactionViewSet

RENDERERS: list[type[BaseRenderer]] = [JSONRenderer, CsvRenderer, JsonLinesRenderer]
TYPES = [*(str(renderer.media_type) for renderer in RENDERERS), "*/*", "application/*", "text/html", ""]


def chosen(
    negotiation: BaseContentNegotiation, offered: list[type[BaseRenderer]], accept: str | None, query: str, suffix: str
) -> Any:
    """Return which renderer is chosen and the type it is to write, or the name of what is raised."""
    headers = {} if accept is None else {"Accept": accept}
    request = Request(APIRequestFactory().get(f"/?{query}", headers=headers))
    try:
        renderer, media_type = negotiation.select_renderer(request, [each() for each in offered], suffix or None)
    except (Http404, NotAcceptable) as error:
        return type(error).__name__
    return type(renderer), media_type


@settings(deadline=None)
@given(
    offered=st.lists(st.sampled_from(RENDERERS), min_size=1, unique=True),
    accept=st.none()
    | st.lists(st.sampled_from(TYPES).flatmap(lambda name: st.sampled_from([name, f"{name}; q=0.5"]))).map(",".join)
    | st.text(st.characters(codec="latin-1", exclude_categories=["Cc"])),
    query=st.sampled_from(["", "format=json", "format=csv", "format=", "format", "formats=csv", "page=2"]),
    suffix=st.sampled_from(["", "json", "csv"]),
)
@example(offered=[JSONRenderer], accept=None, query="", suffix="")
@example(offered=[JSONRenderer], accept="*/*", query="", suffix="")
@example(offered=[JSONRenderer], accept="application/json", query="", suffix="")
@example(offered=[JSONRenderer], accept="*/*", query="format=csv", suffix="")
@example(offered=[JSONRenderer], accept="*/*", query="", suffix="csv")
@example(offered=[CsvRenderer, JSONRenderer], accept="application/json", query="", suffix="")
def test_what_answers_is_what_the_framework_would_choose(
    offered: list[type[BaseRenderer]], accept: str | None, query: str, suffix: str
) -> None:
    assert chosen(Negotiation(), offered, accept, query, suffix) == chosen(
        DefaultContentNegotiation(), offered, accept, query, suffix
    )


@pytest.mark.parametrize("accept", [None, "*/*", "application/json"])
def test_what_nearly_everybody_sends_is_decided_without_the_framework(
    monkeypatch: pytest.MonkeyPatch, accept: str | None
) -> None:
    monkeypatch.delattr(DefaultContentNegotiation, "select_renderer")

    assert chosen(Negotiation(), [JSONRenderer], accept, "page=2", "") == (JSONRenderer, "application/json")


def test_views_negotiate_so() -> None:
    assert TransactionViewSet.content_negotiation_class is Negotiation
