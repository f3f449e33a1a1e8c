"""Which messages an alert makes, how each is named for ever, and when a failed one is repeated."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args

from schemas.spm import Alert
from services.notifications.domain.rules import Rule

Channel = Literal["inbox", "webhook"]
AlertKey = tuple[str, str, str, str]  # tenant, rule, subject, window

# Seconds until the next attempt, by attempts made: an outage of a day is survived.
RETRY_SECONDS = (5, 30, 120, 600, 3600, 21_600, 86_400)
JITTER = 0.2  # so that a receiver coming back doesn't get everything at one instant
MAX_RETRY_AFTER_SECONDS = 86_400

_NAMES = uuid.UUID("5ab4b2d7-6a0f-5e0c-9b8e-0c9f6e3c7a11")


@dataclass(frozen=True, slots=True, order=True)
class Delivery:
    """One message of one alert to one recipient."""

    tenant: str
    id: uuid.UUID
    alert: AlertKey
    channel: Channel
    recipient: str

    @property
    def entry(self) -> str:
        """How the alert's state lists it, e.g. `inbox/person:ann`."""
        return f"{self.channel}/{self.recipient}"


def delivery(alert: AlertKey, channel: Channel, recipient: str) -> Delivery:
    """The delivery with its idempotency key, which follows from what it is."""
    name = "/".join((*alert, channel, recipient))
    return Delivery(alert[0], uuid.uuid5(_NAMES, name), alert, channel, recipient)


@dataclass(frozen=True, slots=True)
class Subscription:
    """A webhook endpoint of a tenant and the rules it wants to hear of; None is all of them."""

    tenant: str
    endpoint: str
    rules: frozenset[str] | None


def wanted(
    key: AlertKey,
    alert: Alert,
    rule: Rule,
    subscriptions: Sequence[Subscription],
    now: datetime,
) -> list[Delivery]:
    """The messages that a firing alert calls for; none any more when it is too old to matter."""
    if now - alert.raised_at > rule.max_age:
        return []
    endpoints = [
        s.endpoint
        for s in subscriptions
        if s.tenant == key[0] and (s.rules is None or rule.id in s.rules)
    ]
    return [
        *(delivery(key, "inbox", recipient) for recipient in alert.audience),
        *(delivery(key, "webhook", endpoint) for endpoint in endpoints),
    ]


def from_entry(alert: AlertKey, entry: str) -> Delivery | None:
    """The inverse of `Delivery.entry`; None for a channel that we don't know."""
    channel, _, recipient = entry.partition("/")
    known: tuple[Channel, ...] = get_args(Channel)
    for name in known:
        if name == channel:
            return delivery(alert, name, recipient)
    return None


def key_of(alert: Alert) -> AlertKey:
    """What tells alerts apart."""
    return (alert.tenant, alert.rule, alert.subject, alert.window)


def retry_at(
    attempts: int, now: datetime, *, jitter: float, asked_seconds: int = 0
) -> datetime | None:
    """When to try again after so many attempts; None when it is time to give up.

    `jitter` is between -1 and 1; `asked_seconds` is what the receiver wishes to be left alone for.
    """
    if attempts > len(RETRY_SECONDS):
        return None
    wait = RETRY_SECONDS[attempts - 1] * (1 + JITTER * jitter)
    return now + timedelta(seconds=max(wait, min(asked_seconds, MAX_RETRY_AFTER_SECONDS)))
