"""Somebody who comes back at the moment at which upkeep removes what has expired."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

from django.db import connection, connections

T = TypeVar("T")


def while_removing(remove: Callable[[], Any], come_back: Callable[[], T]) -> T:
    """Return what ``come_back`` returns, over a connection of its own, once ``remove`` has found what has expired."""

    def act() -> T:
        try:
            return come_back()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as other:
        under_way: list[Any] = []

        def before_deleting(execute: Callable[..., Any], statement: str, *rest: Any) -> Any:
            if statement.startswith("DELETE") and not under_way:
                under_way.append(other.submit(act))
                wait(under_way, timeout=1)  # it may have to wait for the removal
            return execute(statement, *rest)

        with connection.execute_wrapper(before_deleting):
            remove()
        answer: T = under_way[0].result()
    return answer
