"""The committed schema is that of the stack that the clients of these tests talk to."""

import json
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener


def test_the_running_stack_serves_the_committed_schema(base_url: str, schema: dict[str, Any]) -> None:
    request = Request(f"{base_url}/api/schema/", headers={"Accept": "application/json"})

    with build_opener(ProxyHandler({})).open(request, timeout=20) as answer:
        served = json.load(answer)

    assert served == schema
