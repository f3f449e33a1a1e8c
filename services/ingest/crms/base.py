"""What a vendor's client is asked for, and what it gives: answers as they came, never read here."""

import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

from services.ingest.crms.transport import Answer, Door, RefusedError, Session
from services.ingest.domain.sources import Source

_NAME = re.compile(r"[A-Za-z0-9_/-]{1,100}")  # it becomes part of a path


@dataclass(frozen=True, slots=True)
class Asking:
    """Records of one type, by the vendor's ids; or, without ids, all of it."""

    source: Source
    type: str
    vendor_type: str = ""  # the vendor's name of the type, where an event has told it
    ids: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()  # those needed for sure; empty: all


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a type, and where it goes on; an empty cursor means that this was all."""

    answers: tuple[Answer, ...]
    cursor: str = ""


class Client(Protocol):
    """One vendor's API."""

    door: ClassVar[Door]
    batch: ClassVar[int]  # ids in one question
    # What the CRM says of itself, read now and then without being missed.
    metadata: ClassVar[tuple[str, ...]]
    whole: ClassVar[frozenset[str]]  # types that can't be asked for by id

    def records(self, session: Session, asking: Asking) -> AsyncIterator[Answer]:
        """The answers about these records; one that isn't in them isn't known to the CRM."""
        ...

    async def page(self, session: Session, asking: Asking, cursor: str) -> Page:
        """The next part of a type; an empty cursor begins."""
        ...


def resource(asking: Asking, named: Mapping[str, str], *, own: bool = False) -> str:
    """What the vendor calls the type in a question; RefusedError where it has no such thing.

    Types of the source's configuration come first; `own`: where an event has told the vendor's name
    of the type, it can be asked for by it.
    """
    configured = {ours: theirs for theirs, ours in asking.source.types.items()}
    found = configured.get(asking.type, "") if own else ""
    found = found or named.get(asking.type, "") or (asking.vendor_type if own else "")
    if not _NAME.fullmatch(found):
        raise RefusedError(
            f"there is nothing to ask {asking.source.vendor} for records of type {asking.type}: "
            "if it is a type of the company's own, name it in the source's `types`"
        )
    return found
