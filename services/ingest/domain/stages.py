"""What a deal's stage means: whether it is won or lost, and since when.

Where a CRM's deals only have a stage (`Vendor.stages_decide`), the reader guesses the status from
the source's configuration (`registers`), and `by_metadata` corrects it by the CRM's own metadata,
records of type `stage`, as soon as they are known. Both are pure, so that any order of events and
metadata ends in the same state.
"""

import hashlib
from collections.abc import Mapping

import msgspec

from schemas.base import valid_id
from schemas.crm import Field, StageEntry
from services.ingest.domain import values
from services.ingest.domain.facts import Mark, stage_of
from services.ingest.domain.merge import Known
from services.ingest.domain.sources import Source

REDACTED_VALUE = "REDACTED"

Statuses = Mapping[tuple[str, str], str]  # what stages mean, by tenant and id of the stage's record


def registers(
    value: object, mark: Mark, source: Source
) -> tuple[dict[str, Field], tuple[StageEntry, ...]]:
    """The stage, and the status and closing that follow from it, all with one position."""
    if values.empty(value):
        cleared = mark.cleared(("stage", "closed_at"))
        return cleared | {"status": mark.value("open")}, ()
    if value == REDACTED_VALUE:  # whether it was won is no longer known
        names = ("status", "closed_at")
        fields = {name: mark.field("unknown") for name in names}
        return fields | {"stage": mark.field("redacted")}, ()
    stage = stage_of(values.text(value))
    # Two stages with one instant and one event id must not mix their status and closing.
    mark = Mark(mark.at, f"{mark.by}={stage}")
    status = source.stages.status_of(stage)
    closed = mark.field("cleared") if status == "open" else mark.value(values.written(mark.at))
    fields = {"stage": mark.value(stage), "status": mark.value(status), "closed_at": closed}
    return fields, (StageEntry(mark.at, stage),)


def record_id(source: str, stage: str) -> str:
    """The id of a stage's own record; a stage whose name is no id goes by its digest."""
    found = f"{source}:{stage}"
    if valid_id(found):
        return found
    return f"{source}:{hashlib.blake2b(stage.encode(), digest_size=10).hexdigest()}"


def by_metadata(known: Known, tenant: str, source: str, statuses: Statuses) -> Known:
    """The state of a deal of this source, by what its stage means where the CRM has told that."""
    stage = known.fields.get("stage")
    if stage is None or stage.state != "value":
        return known
    status = statuses.get((tenant, record_id(source, str(stage.value))))
    return known if status is None else decided(known, status)


def decided(known: Known, status: str) -> Known:
    """The state of a deal whose stage has this status by the CRM's own metadata.

    A deal is won or lost since it entered the stage, not since somebody last wrote it again: that
    is the first entry of the history's last run of this stage.
    """
    field = known.fields["stage"]
    closed = Field("cleared", None, field.at, field.by)
    if status != "open":
        since = values.written(_since(str(field.value), field.at, known.stages))
        closed = Field("value", since, field.at, field.by)
    decision = {"status": Field("value", status, field.at, field.by), "closed_at": closed}
    return msgspec.structs.replace(known, fields=known.fields | decision)


def _since(stage: str, at: int, history: list[StageEntry]) -> int:
    if not history or history[-1].stage != stage:
        return at
    since = at
    for entry in reversed(history):
        if entry.stage != stage:
            break
        since = entry.at
    return since
