"""Sessions of the admin site, which is the only one to use Django's own; it never removes them by itself."""

from django.contrib.sessions.models import Session
from django.utils import timezone

from config.upkeep import delete_in_batches


def remove_expired() -> dict[str, int]:
    """Remove the sessions that let nobody in any more, and return how many there were."""
    return {"admin sessions": delete_in_batches(Session.objects.filter(expire_date__lt=timezone.now()))}
