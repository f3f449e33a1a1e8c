"""A request as received → what it says. Readers never raise: one bad item is put aside alone."""

from types import ModuleType
from typing import Any

import msgspec

from schemas.crm import Received
from services.ingest.domain import cloudevents, hubspot, pipedrive
from services.ingest.domain.facts import Outcome, Unreadable
from services.ingest.domain.sources import Source

MAX_REASON = 500

_READERS: dict[str, ModuleType] = {
    "hubspot": hubspot,
    "pipedrive": pipedrive,
    "cloudevents": cloudevents,
}


def read(received: Received, source: Source) -> list[Outcome]:
    """Everything that one request says, in its order."""
    reader: Any = _READERS.get(received.vendor)
    if reader is None:
        return [Unreadable(0, f"no reader for vendor {received.vendor!r:.60}", received.body)]
    try:
        items = reader.split(received)
    except Exception as error:  # noqa: BLE001  # whatever is wrong, it is the request's
        return [Unreadable(0, reason(error), received.body)]
    outcomes: list[Outcome] = []
    for index, raw in enumerate(items):
        try:
            outcomes += reader.read(raw, received, source)
        except Exception as error:  # noqa: BLE001  # whatever is wrong, it is the item's
            outcomes.append(Unreadable(index, reason(error), bytes(raw)))
    return outcomes


def reason(error: Exception) -> str:
    """Why, in words; the error's class only where its words say nothing about the data."""
    words = str(error) or type(error).__name__
    if not isinstance(error, ValueError | msgspec.DecodeError):
        words = f"{type(error).__name__}: {words}"
    return words.replace("\x00", "")[:MAX_REASON]


def alone(received: Received, raw: bytes) -> Received:
    """The request as if it had carried only this item, so that it can be read again later."""
    if raw == received.body:
        return received
    return msgspec.structs.replace(received, body=b"[" + raw + b"]")
