"""Goals: set, removed and read.

They are published before they are kept: should we die in between, our own consumer of spm.goals.v1
keeps them, so that the topic and the store can't disagree for long.
"""

from datetime import date
from decimal import Decimal
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from kit import pages
from kit.auth import Principal
from kit.clock import real_micros
from kit.http import Problem, json_response
from kit.publisher import PublishError
from schemas.directory import Directory
from schemas.spm import Goal
from services import access
from services.metrics.api.parts import (
    PAGE,
    PROBLEMS,
    Cursor,
    Limit,
    Parts,
    metric_of,
    period_of,
    subject_of,
    unit_of,
)
from services.metrics.store.goals import store_goals

MAX_GOALS = 2_000  # of one request: a few hundred kilobytes
MAX_TARGET = Decimal(10) ** 15

Key = tuple[str, str, str]


class GoalIn(BaseModel):
    """A target to set; `target: null` takes the goal away."""

    model_config = ConfigDict(extra="forbid")

    subject: str
    metric: str
    period: str
    target: Decimal | None = Field(ge=0, le=MAX_TARGET, max_digits=24, decimal_places=6)
    unit: str = ""
    reason: str = Field(default="", max_length=500)


class GoalOut(BaseModel):
    """A goal as it is kept; `target` is null when it was taken away."""

    subject: str
    metric: str
    period: str
    target: str | None
    unit: str
    reason: str
    version: int


class Goals(BaseModel):
    """A page of goals."""

    goals: list[GoalOut]
    next: str | None = None


def add(routes: APIRouter, parts: Parts) -> None:
    """PUT and GET /goals."""

    @routes.put(
        "/goals",
        response_model=Goals,
        responses=PROBLEMS | {503: {"description": "Kafka is away; nothing was kept."}},
    )
    async def put_goals(
        principal: Annotated[Principal, Depends(parts.principal)],
        body: Annotated[list[GoalIn], Field(min_length=1, max_length=MAX_GOALS)],
    ) -> Response:
        """Set goals, all or none. Sending the same again changes nothing."""
        principal.require("manager", "ops")
        replica, tenant = parts.context.goals, principal.tenant
        async with parts.database.transaction() as transaction:
            directory = await parts.context.directory_of(transaction, tenant)
            await transaction.lock(replica.lock_name(tenant))
            known = {g.key: g for g in await replica.load(transaction, tenant)}
            asked = [_checked(parts, principal, directory, goal) for goal in body]
            goals = {goal.key: _with_version(goal, known.get(goal.key)) for goal in asked}
            if len(goals) < len(asked):
                detail = "A subject, metric and period is named twice; send each goal once."
                raise Problem(422, "duplicate-goal", detail)
            try:
                await parts.publisher.publish(goals.values())
            except PublishError as error:
                detail = "The goals could not be published; nothing was kept. Try again."
                raise Problem(503, "unavailable", detail, headers={"Retry-After": "5"}) from error
            await store_goals(
                transaction, parts.context, list(goals.values()), now_us=real_micros()
            )
        return json_response({"goals": [_shown(goal) for goal in goals.values()], "next": None})

    @routes.get("/goals", response_model=Goals, responses=PROBLEMS)
    async def get_goals(
        principal: Annotated[Principal, Depends(parts.principal)],
        subject: Annotated[str, Query(description="Only this subject.")] = "",
        metric: Annotated[str, Query(description="Only this metric.")] = "",
        period: Annotated[str, Query(description="Only this period.")] = "",
        cursor: Cursor = "",
        limit: Limit = PAGE,
    ) -> Response:
        """The goals that one may see, by subject, metric and period."""
        after: Key | None = pages.place(cursor, Key)
        async with parts.database.transaction() as transaction:
            directory = await parts.context.directory_of(transaction, principal.tenant)
            goals = await parts.context.goals_of(transaction, principal.tenant)
        today = directory.calendar.local_day(parts.clock())
        asked = (subject, metric, period)
        page: list[Key] = []
        for key in sorted(goals):
            wanted = all(want in ("", have) for want, have in zip(asked, key, strict=True))
            if wanted and (after is None or key > after):
                if _visible(principal, directory, key[0], today):
                    page.append(key)
                if len(page) > limit:
                    break
        more = len(page) > limit
        page = page[:limit]
        shown = [_shown(goals[key]) for key in page]
        return json_response({"goals": shown, "next": pages.cursor(page[-1]) if more else None})


def _checked(parts: Parts, principal: Principal, directory: Directory, goal: GoalIn) -> Goal:
    """The goal as the organisation understands it; 422 or 403 otherwise."""
    metric, subject = metric_of(parts, goal.metric), subject_of(goal.subject)
    period = period_of(parts, directory, goal.period)
    if not principal.has("ops"):
        today = directory.calendar.local_day(parts.clock())
        kind, _, name = subject.partition(":")
        below = (
            (kind == "person" and directory.manages(principal.person, name, today))
            or (kind == "team" and name in directory.managed_teams(principal.person, today))
        )  # fmt: skip
        if not principal.person or not below:
            detail = f"{subject}: you may set goals for the people and teams you manage."
            raise Problem(403, "forbidden", detail)
    return Goal(
        tenant=principal.tenant,
        version=0,
        subject=subject,
        metric=goal.metric,
        period=period.text,
        target=goal.target if goal.target is not None else Decimal(0),
        unit=unit_of(directory, metric, goal.unit),
        reason=goal.reason,
        deleted=goal.target is None,
    )


def _visible(principal: Principal, directory: Directory, subject: str, day: date) -> bool:
    try:
        access.require_subject(principal, directory, subject, day)
    except Problem:
        return False
    return True


def _with_version(goal: Goal, known: Goal | None) -> Goal:
    """The goal with the version it gets: the one it has when nothing changes."""
    old = known.version if known is not None else 0
    same = msgspec.structs.replace(goal, version=old)
    if same == known:
        return same
    return msgspec.structs.replace(goal, version=max(old + 1, real_micros()))


def _shown(goal: Goal) -> dict[str, object]:
    return {
        "subject": goal.subject,
        "metric": goal.metric,
        "period": goal.period,
        "target": None if goal.deleted else format(goal.target, "f"),
        "unit": goal.unit,
        "reason": goal.reason,
        "version": goal.version,
    }
