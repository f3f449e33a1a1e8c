"""The records behind a number: what they are listed with adds up to it."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel
from starlette.responses import Response, StreamingResponse

from kit import pages
from kit.auth import Principal
from kit.database import Transaction
from kit.http import Problem, json_response
from services.metrics.api import exports
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
    require_number,
    require_records,
    subject_of,
    unit_of,
    wanted,
)
from services.metrics.domain import numbers
from services.metrics.domain.catalogue import Base
from services.metrics.store import facts
from services.metrics.store.facts import FIRST, CreditBehind, Wanted

EXPORT_PAGE = 5_000  # rows in memory at a time
COLUMNS = ("type", "id", "name", "value", "unit", "day", "at", "person")


class RecordOut(BaseModel):
    """What one record adds to the number for one person, and where it was placed."""

    type: str
    id: str
    name: str
    value: str
    day: str
    at: str
    person: str
    person_name: str


class Records(BaseModel):
    """A page of records; follow `next` until it is null."""

    subject: str
    metric: str
    period: str
    unit: str
    records: list[RecordOut]
    next: str | None


def add(routes: APIRouter, parts: Parts) -> None:
    """GET /records and /records/export."""

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
        """The records that make up a number, by id; a shared one once for each of its people."""
        after = pages.place(cursor, tuple[str, int]) or FIRST
        async with parts.database.transaction() as transaction:
            asked = await _asked(parts, principal, transaction, subject, metric, period, unit)
            page = replace(asked, after=after, limit=limit)
            rows = await facts.credits_behind(transaction, page)
            people = (await parts.context.directory_of(transaction, principal.tenant)).people
        last = rows[-1] if len(rows) == limit else None
        body = {
            "subject": subject,
            "metric": metric,
            "period": period,
            "unit": asked.unit,
            "records": [
                _shown(row, asked.unit)
                | {"person_name": people[row.person].name if row.person in people else ""}
                for row in rows
            ],
            "next": last and pages.cursor([last.id, last.number]),
        }
        return json_response(body)

    @routes.get(
        "/records/export",
        response_class=StreamingResponse,
        responses=PROBLEMS
        | {200: {"description": "A file.", "content": {m: {} for m in exports.MEDIA.values()}}},
    )
    async def export(
        principal: Annotated[Principal, Depends(parts.principal)],
        subject: SubjectText,
        metric: str,
        period: PeriodText,
        unit: UnitText = "",
        format: Annotated[  # noqa: A002  # its name in the URL
            Literal["csv", "parquet"], Query(description="The file's format.")
        ] = "csv",
    ) -> Response:
        """All of them as a file, as they were at one instant; values are decimal numbers."""
        exports.require(format)
        async with parts.database.transaction() as transaction:
            await _asked(parts, principal, transaction, subject, metric, period, unit)

        async def rows() -> AsyncIterator[list[tuple[str, ...]]]:
            # One snapshot: what moves from page to page meanwhile is neither lost nor doubled.
            async with parts.database.transaction(snapshot=True) as transaction:
                asked = await _asked(parts, principal, transaction, subject, metric, period, unit)
                after = FIRST
                while True:
                    page = replace(asked, after=after, limit=EXPORT_PAGE)
                    found = await facts.credits_behind(transaction, page)
                    shown = [_shown(row, asked.unit) | {"unit": asked.unit} for row in found]
                    yield [tuple(row[name] for name in COLUMNS) for row in shown]
                    if len(found) < EXPORT_PAGE:
                        return
                    after = (found[-1].id, found[-1].number)

        name = f"{metric}-{subject}-{period}".replace(":", "-")
        return exports.response(rows(), COLUMNS, name=name, kind=format, decimals=("value",))


async def _asked(
    parts: Parts,
    principal: Principal,
    transaction: Transaction,
    subject: str,
    metric: str,
    period: str,
    unit: str,
) -> Wanted:
    """The credits behind the number, or the problem with asking for them."""
    who = subject_of(subject)
    catalogue = await parts.context.catalogue_of(transaction, principal.tenant)
    found = metric_of(catalogue, metric)
    if not isinstance(found, Base):
        names = ", ".join(catalogue.parts(metric))
        detail = f"{metric} is made from other metrics; ask for the records of {names}."
        raise Problem(422, "derived-metric", detail)
    directory = await parts.context.directory_of(transaction, principal.tenant)
    when = period_of(parts, directory, period)
    require_number(principal, directory, found, who, when.asked_on)
    require_records(principal, directory, who, when.asked_on)
    entries = await parts.context.directory.load(transaction, principal.tenant)
    chosen = unit_of(directory, found, unit)
    return wanted(principal.tenant, entries, found, when, who, unit=chosen)


def _shown(row: CreditBehind, unit: str) -> dict[str, str]:
    return {
        "type": row.type,
        "id": row.id,
        "name": row.name,
        "value": numbers.text(row.value, unit),
        "day": row.day,
        "at": datetime.fromtimestamp(row.at, UTC).isoformat(),
        "person": row.person,
    }
