"""What records have: canonical fields and their kinds, as `schemas.crm` documents them.

Only `lint` uses it: a company's own fields (`x_…`) and record types count like any others.
"""

from typing import Literal

from schemas import crm

Kind = Literal["text", "flag", "number", "instant"] | frozenset[str]

STATUS: Kind = frozenset({"open", "won", "lost"})

_EVERY: dict[str, Kind] = {"owner_id": "text", "name": "text", "created_at": "instant"}
_ACTIVITY: dict[str, Kind] = {
    "occurred_at": "instant",
    "done": "flag",
    "outcome": "text",
    "direction": frozenset({"inbound", "outbound"}),
    "duration_seconds": "number",
}
_OWN: dict[str, dict[str, Kind]] = {
    crm.OPPORTUNITY: {
        "amount": "number",
        "currency": "text",
        "amount_period": frozenset({"one_time", "monthly", "annual"}),
        "stage": "text",
        "pipeline": "text",
        "status": STATUS,
        "closed_at": "instant",
        "expected_close": "instant",
        "probability": "number",
        "deal_type": "text",
        "quantity": "number",
        "discount": "number",
        "cost": "number",
        "shares": "text",
    },
    crm.CALL: _ACTIVITY | {"kind": "text"},
    crm.EMAIL: _ACTIVITY,
    crm.MEETING: _ACTIVITY | {"kind": "text"},
    crm.TASK: _ACTIVITY | {"due_at": "instant", "completed_at": "instant"},
    crm.MESSAGE: _ACTIVITY,
    crm.NOTE: _ACTIVITY,
    crm.LEAD: {
        "status": "text",
        "converted_at": "instant",
        "first_response_at": "instant",
        "lead_source": "text",
    },
    crm.CONTACT: {"email": "text"},
    crm.ACCOUNT: {"email": "text"},
    crm.QUOTE: {
        "status": frozenset({"draft", "sent", "accepted", "declined"}),
        "sent_at": "instant",
        "accepted_at": "instant",
    },
    crm.USER: {"email": "text", "active": "flag"},
    crm.STAGE: {"pipeline": "text", "status": STATUS, "rank": "number", "probability": "number"},
}
FIELDS: dict[str, dict[str, Kind]] = {
    kind: _EVERY | _OWN.get(kind, {}) for kind in sorted(crm.RECORD_TYPES)
}

# Fields that no record has. These follow from the history of its stages.
STAGE_SINCE = "stage_since"  # when the record entered the stage that it is in
ENTERED_AT, LEFT_AT = "entered_at", "left_at"  # of one stage, in a metric `for_each: stage`
VIRTUAL: dict[str, Kind] = {STAGE_SINCE: "instant"}
VIRTUAL_OF_STAGE: dict[str, Kind] = {"stage": "text", ENTERED_AT: "instant", LEFT_AT: "instant"}
# And these from what a deal's expected close date was: when it was moved to another day, and the
# days. A metric that reads one of them counts each move by itself.
MOVED_AT, MOVED_FROM, MOVED_TO = "moved_at", "moved_from", "moved_to"
VIRTUAL_OF_MOVE: dict[str, Kind] = dict.fromkeys((MOVED_AT, MOVED_FROM, MOVED_TO), "instant")


def kind_of(record: str, field: str, *, of_stage: bool) -> Kind | None:
    """What kind of field this is; None where nobody says."""
    return _known(record, of_stage=of_stage).get(field)


def names_of(record: str, *, of_stage: bool) -> list[str]:
    """The canonical names that a metric over these records may use."""
    return sorted(_known(record, of_stage=of_stage))


def _known(record: str, *, of_stage: bool) -> dict[str, Kind]:
    known = FIELDS.get(record, {}) | VIRTUAL
    if of_stage:
        return known | VIRTUAL_OF_STAGE
    return known | VIRTUAL_OF_MOVE if record == crm.OPPORTUNITY else known
