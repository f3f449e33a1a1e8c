"""A request as received → what it says. Readers never raise: one bad item is put aside alone."""

import msgspec

from schemas.crm import Field, Received
from services.ingest.domain import answers, canonical, imports
from services.ingest.domain.facts import Fact, Outcome, Unreadable
from services.ingest.domain.sources import Source
from services.ingest.domain.vendors import Vendor, all_vendors

MAX_REASON = 500


def read(received: Received, source: Source) -> list[tuple[int, Outcome]]:
    """Everything that one request says, in its order, with the number of the item that says it."""
    vendor = _reader(received)
    if vendor is None:
        return [(0, Unreadable(f"no reader for vendor {received.vendor!r:.60}", received.body))]
    try:
        items = vendor.split(received, source)
    except Exception as error:  # noqa: BLE001  # whatever is wrong, it is the request's
        return [(0, Unreadable(reason(error), received.body))]
    outcomes: list[tuple[int, Outcome]] = []
    for index, raw in enumerate(items):
        try:
            for outcome in vendor.read(raw, received, source):
                if isinstance(outcome, Fact) and source.currency:
                    outcome = _with_currency(outcome, source.currency)  # noqa: PLW2901
                outcomes.append((index, outcome))
        except Exception as error:  # noqa: BLE001  # whatever is wrong, it is the item's
            outcomes.append((index, Unreadable(reason(error), bytes(raw))))
    return outcomes


def _reader(received: Received) -> Vendor | None:
    """The vendor's; but an imported row is read by the mapping that came with it."""
    if answers.is_answer(received):
        return answers.READER
    return imports.READER if received.auth == imports.AUTH else all_vendors().get(received.vendor)


def _with_currency(fact: Fact, assumed: str) -> Fact:
    """An amount without a currency in the one that the source is configured with.

    It has the lowest position, so that whatever the CRM says of it at any time wins.
    """
    amount = fact.fields.get("amount")
    if amount is None or amount.state != "value" or "currency" in fact.fields:
        return fact
    currency = Field("value", assumed, 0, canonical.ASSUMED)
    return msgspec.structs.replace(fact, fields={**fact.fields, "currency": currency})


def reason(error: Exception) -> str:
    """Why, in words; the error's class only where its words say nothing about the data."""
    words = str(error) or type(error).__name__
    if not isinstance(error, ValueError | msgspec.DecodeError):
        words = f"{type(error).__name__}: {words}"
    return words.replace("\x00", "")[:MAX_REASON]


def alone(received: Received, raw: bytes) -> Received:
    """The request as if it had carried only this item, so that it can be read again later."""
    vendor = _reader(received)
    if vendor is None or raw == received.body:
        return received
    return msgspec.structs.replace(received, body=vendor.alone(received, raw))
