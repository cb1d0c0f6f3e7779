"""Mail: with a link to choose a new password or to confirm a registration, or to say that the address was changed.

A request only notes that a mail was asked for, for every address alike, so that neither its answer nor its time tells
whether there is such an account. The upkeep process looks for the account and sends. It claims a mail, and commits
that, before it sends: however many such processes there are, and wherever they are killed, nobody gets a mail twice.
docs/decisions/0021 says why.
"""

import logging
from collections import Counter
from datetime import timedelta
from smtplib import SMTPException
from time import monotonic

from django.conf import settings
from django.contrib.auth.hashers import UNUSABLE_PASSWORD_PREFIX
from django.contrib.auth.tokens import PasswordResetTokenGenerator
from django.core.mail import EmailMessage
from django.db import transaction
from django.db.models import QuerySet, Value
from django.db.models.functions import Lower
from django.utils import timezone
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_decode, urlsafe_base64_encode

from accounts.models import OutgoingMail, User
from config.logs import request_id
from config.upkeep import delete_in_batches, stopping

logger = logging.getLogger(__name__)

BACKOFF = [timedelta(seconds=10), timedelta(minutes=1), timedelta(minutes=5), timedelta(minutes=30)]
"""After which pause a mail that could not be sent is tried again; after the last it is given up."""

MAILS_PER_HOUR = 5
"""Of one kind to one account: whoever asks more often for somebody else's account fills no mailbox."""

TURN = timedelta(seconds=30)
"""How long one turn of sending may take, so that the process shows that it is alive in between."""

KEPT = timedelta(days=1)
"""How long what was sent is remembered, without its address; the hour above is counted from it."""

UNCONFIRMED_KEPT = timedelta(days=7)
"""How long a registration that nobody confirmed keeps its name and its address from others."""

SUBJECTS = {
    OutgoingMail.Kind.PASSWORD_RESET: "Choose a new password",
    OutgoingMail.Kind.ACTIVATION: "Confirm your registration",
    OutgoingMail.Kind.ADDRESS_CHANGED: "Your e-mail address was changed",
}
BODIES = {
    OutgoingMail.Kind.PASSWORD_RESET: """\
Hello {name},

somebody, probably you, asked for a new password for your account. Choose it here:

{link}

The link works once and for {minutes} minutes. If it was not you, there is nothing to do: your password stays as it is.
""",
    OutgoingMail.Kind.ACTIVATION: """\
Hello {name},

somebody, probably you, registered an account with this address. Confirm it here:

{link}

The link works once and for {minutes} minutes. If it was not you, there is nothing to do.
""",
    OutgoingMail.Kind.ADDRESS_CHANGED: """\
Hello {name},

your account has another e-mail address now, and mail about it goes there. This is the last one to you.

If you changed it, there is nothing to do. If it was not you, somebody knows your password: change it at once, and ask
whoever runs this service to give you your address back.
""",
}


class PasswordResetToken(PasswordResetTokenGenerator):
    """Good until the password, the address or the last login changes: once."""

    key_salt = "accounts.mail.PasswordResetToken"


class ActivationToken(PasswordResetTokenGenerator):
    """Good until the account is active; and never good for choosing a password."""

    key_salt = "accounts.mail.ActivationToken"

    def _make_hash_value(self, user: User, timestamp: int) -> str:
        return f"{super()._make_hash_value(user, timestamp)}{user.awaits_activation}"


TOKENS: dict[str, PasswordResetTokenGenerator] = {
    OutgoingMail.Kind.PASSWORD_RESET: PasswordResetToken(),
    OutgoingMail.Kind.ACTIVATION: ActivationToken(),
}


def ask_for(*, kind: OutgoingMail.Kind, address: str) -> None:
    """Note that a mail is wanted, whether or not there is an account with that address."""
    OutgoingMail.objects.create(kind=kind, address=address, request_id=request_id.get())


def tell_former_address(*, account: User, address: str) -> None:
    """Note that ``address``, which ``account`` had until now, is to be told: whoever reads there may be its owner."""
    if address and settings.PASSWORD_RESET_URL:  # mail is offered
        kind = OutgoingMail.Kind.ADDRESS_CHANGED
        OutgoingMail.objects.create(kind=kind, address=address, account=account, request_id=request_id.get())


def owner_of(*, uid: str, token: str, kind: OutgoingMail.Kind) -> User | None:
    """Return the account that a link is good for, locked until the transaction ends; None where it is no good."""
    try:
        key = int(urlsafe_base64_decode(uid).decode("ascii"))
    except ValueError:
        return None
    # No stronger than saving it: a refresh that has locked its session must reach the account (User.close).
    account = _addressees(kind).select_for_update(no_key=True).filter(pk=key).first()
    return account if account and TOKENS[kind].check_token(account, token) else None


def deliver_due() -> dict[str, int]:
    """Send what is due, for one turn; return how many mails had which outcome."""
    outcomes: Counter[str] = Counter()
    end = monotonic() + TURN.total_seconds()
    while not outcomes["failed"] and not stopping.is_set() and monotonic() < end and (mail := _claim()):
        previous = request_id.set(mail.request_id or "-")
        try:
            # After a failure the turn is over: the next mail would meet the same server.
            outcomes[_deliver(mail)] += 1
        finally:
            request_id.reset(previous)
    return dict(outcomes)


def remove_expired() -> dict[str, int]:
    """Remove mails that are long done with, and registrations that nobody confirmed."""
    now = timezone.now()
    unconfirmed = User.objects.filter(is_active=False, awaits_activation=True, date_joined__lt=now - UNCONFIRMED_KEPT)
    return {
        "mails": delete_in_batches(OutgoingMail.objects.filter(due_at=None, created_at__lt=now - KEPT)),
        "unconfirmed registrations": delete_in_batches(unconfirmed),
    }


def _claim() -> OutgoingMail | None:
    """Take the mail that is due longest, so that nobody else sends it."""
    with transaction.atomic():
        due = OutgoingMail.objects.select_for_update(skip_locked=True).filter(due_at__lte=timezone.now())
        mail = due.order_by("due_at").first()
        if mail:
            mail.due_at = None
            mail.attempts += 1
            mail.save(update_fields=["due_at", "attempts"])
    return mail


def _deliver(mail: OutgoingMail) -> str:
    account = _addressee(mail)
    if account is None:
        logger.info("%s: nobody to send it to", mail)
        return _done(mail, "dropped")
    hour_ago = timezone.now() - timedelta(hours=1)
    if OutgoingMail.objects.filter(account=account, kind=mail.kind, sent_at__gt=hour_ago).count() >= MAILS_PER_HOUR:
        logger.warning("%s: account %s was sent enough of them in the last hour", mail, account.pk)
        return _done(mail, "dropped")
    try:
        _message(mail, account).send()
    except (SMTPException, OSError) as error:
        # Its kind and code: the text of a mail server quotes addresses.
        reason = f"{type(error).__name__} {getattr(error, 'smtp_code', '')}".strip()
        if mail.attempts <= len(BACKOFF):
            mail.due_at = timezone.now() + BACKOFF[mail.attempts - 1]
            mail.save(update_fields=["due_at"])
            logger.warning("%s: attempt %s failed, tried again later: %s", mail, mail.attempts, reason)
        else:
            logger.error("%s: given up after %s attempts: %s", mail, mail.attempts, reason)
            _done(mail, "given up")
        return "failed"
    mail.account, mail.sent_at = account, timezone.now()
    logger.info("%s: sent to account %s", mail, account.pk)
    return _done(mail, "sent")


def _done(mail: OutgoingMail, outcome: str) -> str:
    mail.address = ""  # what people type is not kept
    mail.save(update_fields=["account", "address", "sent_at"])
    return outcome


def _addressee(mail: OutgoingMail) -> User | None:
    # An account that was closed while the mail waited has emptied it; many accounts have no address.
    if not mail.address:
        return None
    if mail.kind == OutgoingMail.Kind.ADDRESS_CHANGED:
        return mail.account
    return _addressees(mail.kind).filter(email__lower=Lower(Value(mail.address))).first()


def _addressees(kind: str) -> QuerySet[User]:
    """Return the accounts that mail of ``kind`` is for."""
    if kind == OutgoingMail.Kind.ACTIVATION:
        return User.objects.filter(is_active=False, awaits_activation=True)
    # Without a password of its own an account belongs to another way of logging in.
    return User.objects.filter(is_active=True).exclude(password__startswith=UNUSABLE_PASSWORD_PREFIX)


def _message(mail: OutgoingMail, account: User) -> EmailMessage:
    kind = OutgoingMail.Kind(mail.kind)
    if kind == OutgoingMail.Kind.ADDRESS_CHANGED:
        return EmailMessage(SUBJECTS[kind], BODIES[kind].format(name=account.username), to=[mail.address])
    template = settings.PASSWORD_RESET_URL if kind == OutgoingMail.Kind.PASSWORD_RESET else settings.ACTIVATION_URL
    link = template.replace("{uid}", urlsafe_base64_encode(force_bytes(account.pk)))
    link = link.replace("{token}", TOKENS[kind].make_token(account))
    minutes = settings.PASSWORD_RESET_TIMEOUT // 60
    body = BODIES[kind].format(name=account.username, link=link, minutes=minutes)
    # To the address that the account has, not the one that was typed: the two may differ in letters that look alike.
    return EmailMessage(SUBJECTS[kind], body, to=[account.email])
