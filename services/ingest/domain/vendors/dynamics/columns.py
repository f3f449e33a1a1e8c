"""The columns of Dataverse's own tables → canonical fields."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from schemas.crm import CALL, EMAIL, MEETING, OPPORTUNITY, Field, Scalar, StageEntry
from services.ingest.domain import fields, values
from services.ingest.domain.facts import BadEventError, Mark, stage_of
from services.ingest.domain.fields import Table
from services.ingest.domain.vendors.dynamics.context import Reference, State


def read(
    kind: str, entity: str, state: State, mark: Mark, *, new: Collection[str]
) -> tuple[dict[str, Field], tuple[StageEntry, ...]]:
    """The canonical fields of a row of a table, and the stage that it entered.

    Only a column that is `new`, and not merely told again, says that something happened now.
    """
    table = TABLES.get(kind, COMMON)
    apart = _APART | {f"{entity}id", "activityid"}
    own = {name: one.id if isinstance(one, Reference) else one for name, one in state.items()}
    found = fields.read(own, table, mark, apart=apart)
    if kind == OPPORTUNITY:
        found |= _deal(own, mark, closing="statecode" in new)
    elif kind in _DONE and not values.empty(own.get("statecode")):
        found["done"] = mark.value(own["statecode"] == _DONE[kind])
    elif kind == "lead" and not values.empty(own.get("statecode")):
        found |= _lead(own["statecode"], mark, converting="statecode" in new)
    if kind == "task" and "actualend" in own:
        found["completed_at"] = found["occurred_at"]
    entries: tuple[StageEntry, ...] = ()
    if kind == OPPORTUNITY and "stepname" in new and not values.empty(own.get("stepname")):
        entries = (StageEntry(mark.at, stage_of(values.text(own["stepname"]))),)
    return found, entries


def _deal(state: State, mark: Mark, *, closing: bool) -> dict[str, Field]:
    """Money and closing. What a deal has brought in is its amount, once there is such a value."""
    found: dict[str, Field] = {}
    actual = state.get("actualvalue")
    if not values.empty(actual):
        found["amount"] = mark.value(values.amount(actual))
    if values.empty(state.get("statecode")):
        return found
    status = _option("statecode", state["statecode"], ("open", "won", "lost"))
    found["status"] = mark.value(status)
    closed = state.get("actualclosedate")
    if status == "open":
        found["closed_at"] = mark.field("cleared")
    elif not values.empty(closed):
        found["closed_at"] = mark.value(_day(closed))
    elif closing:
        found["closed_at"] = mark.value(values.written(mark.at))
    return found


def _lead(code: Any, mark: Mark, *, converting: bool) -> dict[str, Field]:
    status = _option("statecode", code, ("open", "qualified", "disqualified"))
    found = {"status": mark.value(status)}
    if status == "qualified" and converting:
        found["converted_at"] = mark.value(values.written(mark.at))
    return found


def _option(name: str, code: Any, words: Sequence[str]) -> str:
    if isinstance(code, bool) or not isinstance(code, int) or not 0 <= code < len(words):
        raise BadEventError(f"{name} {code!r:.60} is none of 0 to {len(words) - 1}")
    return words[code]


def _day(value: Any) -> str:
    """An instant, but that a date without a time comes as midnight: of that its noon."""
    at = values.micros(value)
    return values.written(at if at % values.DAY_US else values.noon(at))


def _outgoing(value: Any) -> str:
    return "outbound" if values.flag(value) else "inbound"


def _from_minutes(value: Any) -> Scalar:
    return values.seconds(value) * 60


def _enabled(value: Any) -> bool:
    return not values.flag(value)


LOOKUPS = (
    *("customerid", "parentaccountid", "parentcontactid", "parentcustomerid"),
    *("originatingleadid", "regardingobjectid", "opportunityid", "objectid"),
)
_APART = frozenset({"statecode", "modifiedon", "actualvalue"})
_DONE = {CALL: 1, MEETING: 1, EMAIL: 1, "task": 1}  # their state "completed"
COMMON: Table = {
    "ownerid": ("owner_id", values.text),
    "createdon": ("created_at", values.instant),
    "name": ("name", values.text),
}
_ACTIVITY: Table = COMMON | {
    "subject": ("name", values.text),
    "actualdurationminutes": ("duration_seconds", _from_minutes),
    "directioncode": ("direction", _outgoing),
}
TABLES: Mapping[str, Table] = {
    OPPORTUNITY: COMMON
    | {
        "estimatedvalue": ("amount", values.amount),
        "estimatedclosedate": ("expected_close", _day),
        "closeprobability": ("probability", values.percent),
        "discountamount": ("discount", values.amount),
        "actualclosedate": ("closed_at", _day),
        "stepname": ("stage", values.text),
        "processid": ("pipeline", values.text),
    },
    CALL: _ACTIVITY | {"actualend": ("occurred_at", values.instant)},
    MEETING: _ACTIVITY | {"scheduledstart": ("occurred_at", values.instant)},
    EMAIL: _ACTIVITY | {"senton": ("occurred_at", values.instant)},
    "task": _ACTIVITY
    | {
        "actualend": ("occurred_at", values.instant),
        "scheduledend": ("due_at", values.instant),
    },
    "note": COMMON | {"subject": ("name", values.text)},
    "lead": COMMON | {"fullname": ("name", values.text), "emailaddress1": ("email", values.text)},
    "contact": COMMON
    | {"fullname": ("name", values.text), "emailaddress1": ("email", values.text)},
    "account": COMMON | {"emailaddress1": ("email", values.text)},
    "user": {
        "createdon": ("created_at", values.instant),
        "fullname": ("name", values.text),
        "internalemailaddress": ("email", values.text),
        "isdisabled": ("active", _enabled),
    },
}
