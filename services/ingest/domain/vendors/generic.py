"""Anything else that sends JSON: what a body means is the source's mapping (guide: mapping).

A body is one object, an array of them, or an object with an array at the mapping's `items` path.
Senders prove themselves by one of our API keys; or, where the source has secrets, by repeating one
in the header, the query parameter or the HTTP Basic password that the source names.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from schemas.crm import Received
from services.ingest.domain import items, mapping, shared_secrets
from services.ingest.domain.facts import Fact, Ignored
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import Arrival, Raw, Vendor, bare_alone

_decode = msgspec.json.Decoder(float_hook=Decimal).decode  # money must not become binary


def count(headers: Mapping[str, str], body: bytes) -> int:
    """How many items an array has; an object counts as one."""
    is_array = body.lstrip()[:1] == b"["
    return items.count_array(headers, body) if is_array else items.count_object(headers, body)


def split(received: Received, source: Source) -> Sequence[Raw]:
    """The items of a body, unread, where the source's mapping says."""
    return mapping.split(source.mapping, received.body)


def read(raw: Raw, received: Received, source: Source) -> list[Fact | Ignored]:
    """What the mapping makes of one item."""
    return mapping.read(source.mapping, _decode(raw), received, source)


def verify(arrival: Arrival, source: Source) -> str | None:
    """By a shared secret, where the source has any."""
    return shared_secrets.verify(arrival, source) if source.secrets else None


def problems(source: Source) -> list[str]:
    """What is wrong with the mapping, and where secrets are expected."""
    found = [f"mapping: {problem}" for problem in mapping.problems(source.mapping)]
    return found + (shared_secrets.problems(source) if source.secrets else [])


VENDOR = Vendor(
    name="generic",
    title="a body of your own",
    count=count,
    split=split,
    read=read,
    alone=bare_alone,
    verify=verify,
    needs_secrets=False,
    settings=frozenset({"header", "query", "username", "mapping"}),
    problems=problems,
    stages_decide=True,
)
