"""One file per vendor: how its requests prove themselves, what they hold and what that means.

A vendor is a module of this package with a constant `VENDOR`; nothing else has to be told of it.
Everything is pure: a request comes in as bytes and headers, and facts go out.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec

from schemas.crm import Received
from services.ingest.domain.facts import BadEventError, Outcome
from services.ingest.domain.sources import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A request that has not been accepted yet, as it came over the wire."""

    method: str
    url: str  # the configured public URL with the path and query as sent
    headers: Mapping[str, str]  # names in lower case; repeated ones joined by ", "
    query: Mapping[str, str]  # decoded; of a repeated name the last
    body: bytes
    now_ms: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a vendor wants to hear instead of our 202."""

    status: int
    body: bytes = b""
    media: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class RefusedError(Exception):
    """The request doesn't prove that it is the vendor's; the words say what to check."""

    def __init__(self, detail: str, *, challenge: str = "") -> None:
        super().__init__(detail)
        self.challenge = challenge  # for WWW-Authenticate


class MalformedError(ValueError):
    """The body isn't what the vendor sends, as a whole: nothing of it can be taken."""


Raw = bytes | msgspec.Raw
JSON = ("application/json",)


def _no_handshake(_arrival: Arrival, _source: Source) -> Answer | None:
    return None


def _no_answer(_received: Received) -> Answer | None:
    return None


def whole(received: Received, _source: Source) -> Sequence[Raw]:
    """The one item of a request that has no others: its body, unread."""
    return [msgspec.Raw(received.body)]


def json_alone(_received: Received, raw: bytes) -> bytes:
    """The body of a request with this item only, where requests are arrays."""
    return b"[" + raw + b"]"


def bare_alone(_received: Received, raw: bytes) -> bytes:
    """The body of a request with this item only, where an item is a body too."""
    return raw


def check_account(account: object, source: Source) -> None:
    """Raise when the event is of another of the vendor's accounts than the one configured."""
    if source.account and str(account) != source.account:
        raise BadEventError(
            f"the event is of account {str(account)!r:.60}, this source is of {source.account!r}"
        )


def _no_problems(_source: Source) -> Sequence[str]:
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendor:
    """What ingest has to know of a vendor.

    `verify` gives the method by which the request has proved itself (as in "hubspot.v3"), or raises
    `RefusedError`; where there is none, or it gives None, the request needs one of our API keys.
    `count` looks only at the outside of a body: how many items there are; it raises MalformedError
    or msgspec.DecodeError where the whole can't be taken. `split` gives the same items, unread, and
    `read` what one says; `read` raises for an item that it can't read.
    """

    name: str
    title: str
    count: Callable[[Mapping[str, str], bytes], int]  # headers, body
    split: Callable[[Received, Source], Sequence[Raw]]
    read: Callable[[Raw, Received, Source], Sequence[Outcome]]
    verify: Callable[[Arrival, Source], str | None] | None = None
    needs_secrets: bool = True  # where there is `verify`; without, API keys do for a source
    # A fresh secret, where it is ours to make; elsewhere it comes from the vendor.
    new_secret: Callable[[], str] | None = None
    # Asked first, of POST, GET and OPTIONS alike: the answer to a request that only wants to know
    # whether we are who we say. None: it is no handshake.
    handshake: Callable[[Arrival, Source], Answer | None] = _no_handshake
    answer: Callable[[Received], Answer | None] = _no_answer
    # A request as if it had carried only this item; it is read again after a fix. Not asked where
    # the item is the whole body.
    alone: Callable[[Received, bytes], bytes] = json_alone
    media: tuple[str, ...] = JSON  # beside these, whatever ends in +json or +xml like one of them
    # Of a source's settings, those that not every vendor has; others have no effect.
    settings: frozenset[str] = frozenset()
    # What is wrong with a source's configuration for this vendor.
    problems: Callable[[Source], Sequence[str]] = _no_problems
    # Deals only have a stage; what it means (open, won, lost) is metadata.
    stages_decide: bool = False


@cache
def all_vendors() -> Mapping[str, Vendor]:
    """Every vendor, by name."""
    found: dict[str, Vendor] = {}
    for module in pkgutil.iter_modules(__path__):
        vendor: Any = getattr(importlib.import_module(f"{__name__}.{module.name}"), "VENDOR", None)
        if isinstance(vendor, Vendor):
            found[vendor.name] = vendor
    return found
