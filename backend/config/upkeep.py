"""What the upkeep process and the apps that give it work share."""

from threading import Event
from typing import Any

from django.db import models, transaction

BATCH = 1000
"""Rows that one statement removes: it holds their locks for some milliseconds, and stays far from any timeout."""

stopping = Event()
"""Set when the process was asked to stop: what is left is removed the next time."""


def delete_in_batches(rows: models.QuerySet[Any]) -> int:
    """Delete ``rows``, a batch at a time, and return how many there were, not counting those of other tables.

    They are locked from the moment at which they are found to have expired, so that none is renewed before it is
    deleted. One that somebody is at work on right now is left for the next time.
    """
    deleted = 0
    while not stopping.is_set():
        with transaction.atomic():
            keys = list(rows.order_by().select_for_update(skip_locked=True).values_list("pk", flat=True)[:BATCH])
            if not keys:
                break
            _, by_model = rows.model._default_manager.filter(pk__in=keys).delete()
        deleted += by_model.get(rows.model._meta.label, 0)
    return deleted
