"""The generic mapping: a document says how a body that no reader knows becomes facts.

A document is data: paths, conditions and types; nothing of it is evaluated. `problems` explains all
that is wrong with one, with its place. `read` gives one fact per rule whose conditions hold. A path
that leads nowhere says nothing about its field; null, and by default empty text, clear it.
The guide `docs/guides/mapping.md` describes the document.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from schemas.crm import Received
from services.ingest.domain import items
from services.ingest.domain.facts import BadEventError, Fact, Ignored, Moment, Op
from services.ingest.domain.mapping.document import Compiler, Plan
from services.ingest.domain.mapping.rules import Envelope
from services.ingest.domain.sources import Source

MAX_ITEMS = 10_000  # of one body
MAX_PLANS = 256  # documents that are kept as compiled
UNMAPPED = "unmapped"

_PLANS: dict[int, tuple[Mapping[str, Any], Plan]] = {}


def problems(document: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong with a document, each with its place; none: it can be used."""
    return list(Compiler().plan(document).problems)


def split(document: Mapping[str, Any], body: bytes) -> list[msgspec.Raw]:
    """The items of a body, unread: those at the document's path, or of an array, or itself one.

    A body in which the path leads nowhere is an item, as it is when it is read again after a fix.
    """
    inner = msgspec.Raw(body)
    for step in _plan(document).items:
        try:
            inner = items.members(bytes(inner))[step]
        except (msgspec.DecodeError, KeyError):
            inner = msgspec.Raw(body)
            break
    raw = bytes(inner)
    if raw == b"null" and raw != body:  # how some write a list with nothing in it
        return []
    found = items.split(raw) if raw.lstrip()[:1] == b"[" else [inner]
    if len(found) > MAX_ITEMS:
        raise BadEventError(f"{len(found)} items in one body; at most {MAX_ITEMS} are taken")
    return found


def read(
    document: Mapping[str, Any],
    item: object,
    received: Received,
    source: Source,
    *,
    at: Moment | None = None,
    event: str = "",
    op: Op = "updated",
) -> list[Fact | Ignored]:
    """What one item says; `at`, `event` and `op` are its envelope's, where a rule has none."""
    plan = _plan(document)
    if plan.problems:
        raise BadEventError(f"the source's mapping can't be used: {plan.problems[0]}")
    if not isinstance(item, Mapping):
        raise BadEventError("the item is not an object with fields")
    envelope = Envelope(at, event, op)
    facts: list[Fact | Ignored] = [
        rule.fact(item, received, source, envelope)
        for rule in plan.rules
        if all(condition.holds(item) for condition in rule.when)
    ]
    return facts or [Ignored(UNMAPPED)]


def _plan(document: Mapping[str, Any]) -> Plan:
    """By identity: a source's mapping is never changed, and the kept one keeps its id taken."""
    found = _PLANS.get(id(document))
    if found is not None:
        return found[1]
    plan = Compiler().plan(document)
    if len(_PLANS) >= MAX_PLANS:
        _PLANS.clear()
    _PLANS[id(document)] = (document, plan)
    return plan
