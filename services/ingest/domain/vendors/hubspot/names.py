"""What HubSpot's object types and properties are called in ours."""

import re
from typing import Any

from schemas.crm import CALL, EMAIL, MEETING, OPPORTUNITY
from services.ingest.domain import fields, values
from services.ingest.domain.facts import BadEventError
from services.ingest.domain.sources import Source

# Record types by the ids of generic events, and by the names in legacy ones and in association
# types. Users ("0-115") are not ours: owners, to whom records belong, have ids of their own.
_TYPES = {
    "0-1": "contact",
    "0-2": "account",
    "0-3": OPPORTUNITY,
    "0-5": "x_ticket",
    "0-7": "product",
    "0-8": "line_item",
    "0-14": "quote",
    "0-18": "message",  # "communications": what was written in other messengers
    "0-27": "task",
    "0-46": "note",
    "0-47": MEETING,
    "0-48": CALL,
    "0-49": EMAIL,
    "0-136": "lead",
}
_NAMES = {
    "contact": "0-1",
    "company": "0-2",
    "deal": "0-3",
    "ticket": "0-5",
    "product": "0-7",
    "line_item": "0-8",
    "quote": "0-14",
    "communication": "0-18",
    "task": "0-27",
    "note": "0-46",
    "meeting": "0-47",
    "meeting_event": "0-47",
    "call": "0-48",
    "email": "0-49",
    "lead": "0-136",
}
_TYPE_ID = re.compile(r"\d{1,4}-\d{1,15}")
_OTHER_NAME = re.compile(r"[a-z][a-z_]{0,29}")


def record_type(named: str, source: Source) -> str:
    """The record type of a type id or name; types without one of ours are the vendor's own."""
    if named in source.types:
        return fields.record_type(source.types[named])
    found = _TYPES.get(_NAMES.get(named, named))
    if found is None:
        if not _TYPE_ID.fullmatch(named) and not _OTHER_NAME.fullmatch(named):
            raise BadEventError(f"objectTypeId {named!r:.60} is not one such as 0-3")
        found = fields.own_type(named)
    return found


def _said(word: str) -> fields.Convert:
    return lambda value: str(value).upper() == word


def _direction(value: Any) -> str:
    return "inbound" if str(value).upper().startswith(("INBOUND", "INCOMING")) else "outbound"


_Targets = tuple[tuple[str, fields.Convert], ...]

COMMON: dict[str, _Targets] = {
    "hubspot_owner_id": (("owner_id", values.text),),
    "createdate": (("created_at", values.instant),),
    "hs_createdate": (("created_at", values.instant),),
}
_DEAL: dict[str, _Targets] = {
    "hubspot_owner_id": (("owner_id", values.text),),
    "dealname": (("name", values.text),),
    "amount": (("amount", values.amount),),
    "deal_currency_code": (("currency", values.currency),),
    "pipeline": (("pipeline", values.text),),
    "closedate": (("expected_close", values.instant),),
    "createdate": (("created_at", values.instant),),
    "hs_deal_stage_probability": (("probability", values.share),),
    "dealtype": (("deal_type", fields.deal_type),),
}
_ACTIVITY: dict[str, _Targets] = COMMON | {
    "hs_call_title": (("name", values.text),),
    "hs_meeting_title": (("name", values.text),),
    "hs_email_subject": (("name", values.text),),
    "hs_task_subject": (("name", values.text),),
    "hs_timestamp": (("occurred_at", values.instant),),
    "hs_call_status": (("done", _said("COMPLETED")),),
    "hs_meeting_outcome": (("done", _said("COMPLETED")), ("outcome", values.text)),
    "hs_email_status": (("done", _said("SENT")),),
    "hs_task_status": (("done", _said("COMPLETED")),),
    "hs_call_duration": (("duration_seconds", values.seconds_from_ms),),
    "hs_call_direction": (("direction", _direction),),
    "hs_email_direction": (("direction", _direction),),
    "hs_call_disposition": (("outcome", values.text),),
    "hs_activity_type": (("kind", fields.kind),),
}
_TASK: dict[str, _Targets] = _ACTIVITY | {
    "hs_timestamp": (("occurred_at", values.instant), ("due_at", values.instant)),
    "hs_task_completion_date": (("completed_at", values.instant),),
}


def _named(name: str) -> dict[str, _Targets]:
    return COMMON | {name: (("name", values.text),)}


PROPERTIES: dict[str, dict[str, _Targets]] = {
    OPPORTUNITY: _DEAL,
    **dict.fromkeys((CALL, EMAIL, MEETING, "note", "message"), _ACTIVITY),
    "task": _TASK,
    "contact": COMMON | {"email": (("email", values.text),)},
    "account": _named("name"),
    "product": _named("name"),
    "line_item": _named("name"),
    "quote": _named("hs_title"),
    "lead": _named("hs_lead_name"),
    "x_ticket": _named("subject"),
}


def properties(kind: str) -> frozenset[str]:
    """The properties that are fields of a record type."""
    own = {"dealstage"} if kind == OPPORTUNITY else set()
    return frozenset(PROPERTIES.get(kind, COMMON).keys() | own)


def type_ids() -> dict[str, str]:
    """The type ids by which HubSpot knows the record types that have one."""
    return {kind: number for number, kind in _TYPES.items()}
