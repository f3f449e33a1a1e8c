"""The records behind a number: their contributions add up to it."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel
from starlette.responses import Response

from kit import pages
from kit.auth import Principal
from kit.http import Problem, json_response
from services import access
from services.metrics.api.parts import (
    PAGE,
    PROBLEMS,
    Cursor,
    Limit,
    Parts,
    PeriodText,
    SubjectText,
    UnitText,
    metric_of,
    period_of,
    require_records,
    subject_of,
    unit_of,
)
from services.metrics.domain import numbers
from services.metrics.domain.catalogue import Base
from services.metrics.domain.credits import owners_of
from services.metrics.store import facts
from services.metrics.store.facts import Wanted


class RecordOut(BaseModel):
    """What one record adds to the number, and where it was placed."""

    type: str
    id: str
    value: str
    day: str
    at: str
    person: str


class Records(BaseModel):
    """A page of records; follow `next` until it is null."""

    subject: str
    metric: str
    period: str
    unit: str
    records: list[RecordOut]
    next: str | None


def add(routes: APIRouter, parts: Parts) -> None:
    """GET /records."""

    @routes.get("/records", response_model=Records, responses=PROBLEMS)
    async def records(
        principal: Annotated[Principal, Depends(parts.principal)],
        subject: SubjectText,
        metric: str,
        period: PeriodText,
        unit: UnitText = "",
        cursor: Cursor = "",
        limit: Limit = PAGE,
    ) -> Response:
        """The records that make up a number, by id."""
        found, who = metric_of(parts, metric), subject_of(subject)
        if not isinstance(found, Base):
            names = ", ".join(parts.catalogue.parts(metric))
            detail = f"{metric} is a ratio; ask for the records of {names}."
            raise Problem(422, "derived-metric", detail)
        async with parts.database.transaction() as transaction:
            directory = await parts.context.directory_of(transaction, principal.tenant)
            when = period_of(parts, directory, period)
            access.require_subject(principal, directory, who, when.asked_on)
            require_records(principal, directory, who, when.asked_on)
            chosen = unit_of(directory, found, unit)
            entries = await parts.context.directory.load(transaction, principal.tenant)
            kind, _, name = who.partition(":")
            wanted = Wanted(
                tenant=principal.tenant,
                record_type=found.record,
                metric=metric,
                start=when.start,
                end=when.end,
                unit=chosen,
                subject=who,
                owners=owners_of(entries, name) if kind == "person" else None,
                after=pages.place(cursor, str) or "",
                limit=limit,
            )
            rows = await facts.contributions(transaction, wanted)
        body = {
            "subject": who,
            "metric": metric,
            "period": when.text,
            "unit": chosen,
            "records": [
                {
                    "type": row.type,
                    "id": row.id,
                    "value": numbers.text(row.value, chosen),
                    "day": row.day,
                    "at": datetime.fromtimestamp(row.at, UTC).isoformat(),
                    "person": row.person,
                }
                for row in rows
            ],
            "next": pages.cursor(rows[-1].id) if len(rows) == limit else None,
        }
        return json_response(body)
