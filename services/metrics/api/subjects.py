"""Whom a page is about, and how a goal's way leads through its period.

What a page can't know by itself: names, who belongs to whom, the periods of the organisation's
calendar around a day, and whether the reader may go on from there.
"""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel
from starlette.responses import Response

from kit import pages
from kit.auth import Principal
from kit.http import Problem
from schemas.directory import Directory, Person, Team, Territory
from schemas.periods import GRAINS, Calendar
from schemas.spm import ORGANISATION
from services import access
from services.metrics.api.parts import (
    FIRST_YEAR,
    LAST_YEAR,
    PROBLEMS,
    Parts,
    PeriodText,
    SubjectText,
    metric_of,
    period_of,
    require_number,
    require_records,
    subject_of,
)
from services.metrics.domain import goals
from services.metrics.domain.catalogue import Base

_DAY = timedelta(days=1)


class PeriodOut(BaseModel):
    """A period with its first day and its last."""

    period: str
    start: str
    end: str


class NameOut(BaseModel):
    """Someone else; `may_see` says whether their numbers are the reader's to see."""

    subject: str
    name: str
    may_see: bool


class SubjectOut(BaseModel):
    """A subject on a day: `above` nearest first, `teams`, `territories` and `people` right below.

    Above everybody is the organisation; right below it are the teams and territories that are part
    of no other, and the people without a team.

    `also` has what else a person's work counts for: their territories and their role. `may_open`
    says whether the records behind its numbers are the reader's to see.
    """

    subject: str
    name: str
    day: str
    today: str
    zone: str
    currency: str
    periods: dict[str, PeriodOut]
    above: list[NameOut]
    also: list[NameOut]
    teams: list[NameOut]
    territories: list[NameOut]
    people: list[NameOut]
    may_open: bool


class DayOut(BaseModel):
    """What was to be reached by the end of a day."""

    day: str
    expected: str


class CourseOut(BaseModel):
    """The way to a goal, day by day; the last day's is the effective target."""

    subject: str
    metric: str
    period: str
    unit: str
    days: list[DayOut]


def add(routes: APIRouter, parts: Parts) -> None:
    """GET /subjects and /goals/course."""

    @routes.get("/subjects", response_model=SubjectOut, responses=PROBLEMS)
    async def subject(
        request: Request,
        principal: Annotated[Principal, Depends(parts.principal)],
        subject: SubjectText,
        day: Annotated[date | None, Query(description="As of this day, not today.")] = None,
    ) -> Response:
        """Who a subject is, who belongs to it, and the periods around a day."""
        who = subject_of(subject)
        if day is not None and not FIRST_YEAR <= day.year <= LAST_YEAR:
            detail = f"day: expected a year from {FIRST_YEAR} to {LAST_YEAR}"
            raise Problem(422, "invalid-date", detail)
        async with parts.database.transaction() as transaction:
            directory = await parts.context.directory_of(transaction, principal.tenant)
            known = await parts.context.goals_of(transaction, principal.tenant)
        today = directory.calendar.local_day(parts.clock())
        asked_on = day or today
        access.require_subject(principal, directory, who, asked_on)
        # A role is a word and has no entry: what nobody has and no goal is for is a typing mistake.
        role = who.removeprefix("role:")
        if role != who and role not in directory.roles and all(who != of for of, _, _ in known):
            detail = f"Nobody has, or ever had, the role {role!r:.80}, and there is no goal for it."
            raise Problem(404, "not-found", detail)
        around = _Around(principal, directory, who, asked_on)
        body = {
            "subject": who,
            "name": around.name(),
            "day": asked_on.isoformat(),
            "today": today.isoformat(),
            "zone": directory.calendar.zone,
            "currency": directory.organisation.currency,
            "periods": _periods(directory.calendar, asked_on),
            "above": around.above(),
            "also": around.also(),
            "teams": around.teams(),
            "territories": around.territories(),
            "people": around.people(),
            "may_open": around.may_open(),
        }
        return pages.tagged(request, body)

    @routes.get("/goals/course", response_model=CourseOut, responses=PROBLEMS)
    async def course(
        request: Request,
        principal: Annotated[Principal, Depends(parts.principal)],
        subject: SubjectText,
        metric: str,
        period: PeriodText,
    ) -> Response:
        """What was, or is, to be reached of a goal by the end of each of its days."""
        who = subject_of(subject)
        async with parts.database.transaction() as transaction:
            catalogue = await parts.context.catalogue_of(transaction, principal.tenant)
            found = metric_of(catalogue, metric)
            directory = await parts.context.directory_of(transaction, principal.tenant)
            when = period_of(parts, directory, period)
            require_number(principal, directory, found, who, when.asked_on)
            known = await parts.context.goals_of(transaction, principal.tenant)
        if not isinstance(found, Base):
            detail = f"{metric} doesn't add up from day to day: its target holds on all of them."
            raise Problem(422, "derived-metric", detail)
        goal = known.get((who, metric, when.text))
        if goal is None:
            raise Problem(404, "not-found", f"{who} has no goal for {metric}, {period}.")
        way = goals.course(goal, directory)
        days = (when.start + n * _DAY for n in range((when.end - when.start).days))
        body = {
            "subject": who,
            "metric": metric,
            "period": when.text,
            "unit": goal.unit,
            "days": [
                {
                    "day": each.isoformat(),
                    "expected": goals.amount_text(way.expected(each), goal.unit),
                }
                for each in days
            ],
        }
        return pages.tagged(request, body)


class _Around:
    """A subject and those around it on a day, as the reader may see them."""

    def __init__(self, principal: Principal, directory: Directory, who: str, day: date) -> None:
        self._principal = principal
        self._directory = directory
        self._who = who
        self._kind, _, self._id = who.partition(":")
        self._day = day

    def name(self) -> str:
        """What people call it; 404 for nobody."""
        directory = self._directory
        if self._who == ORGANISATION:
            return directory.organisation.name
        if self._kind == "role":
            return self._id
        named: dict[str, Mapping[str, Person | Team | Territory]] = {
            "person": directory.people,
            "team": directory.teams,
            "territory": directory.territories,
        }
        found = named[self._kind].get(self._id)
        if found is None:
            detail = f"There is no {self._kind} {self._id!r:.80} in the directory."
            raise Problem(404, "not-found", detail)
        return found.name or self._id

    def above(self) -> list[dict[str, object]]:
        """The teams or territories around it, nearest first, and the organisation."""
        if self._who == ORGANISATION:
            return []
        directory = self._directory
        whole = {
            "subject": ORGANISATION,
            "name": directory.organisation.name,
            "may_see": access.may_see_organisation(self._principal),
        }
        if self._kind == "territory":
            around = directory.territories_above(self._id)[1:]
            found = [self._territory(each) for each in around if each in directory.territories]
            return [*found, whole]
        if self._kind == "person":
            teams = directory.teams_above(directory.team_of(self._id, self._day))
        elif self._kind == "team":
            teams = directory.teams_above(self._id)[1:]
        else:
            teams = []
        return [*(self._team(team) for team in teams if team in directory.teams), whole]

    def also(self) -> list[dict[str, object]]:
        """A person's territories, by name, and the role."""
        if self._kind != "person":
            return []
        directory, day = self._directory, self._day
        own = directory.territories_of(self._id, day)
        named = [self._territory(each) for each in own if each in directory.territories]
        role = directory.role_of(self._id, day)
        may_see = access.sees_all(self._principal)
        jobs = [{"subject": f"role:{role}", "name": role, "may_see": may_see}] if role else []
        return sorted(named, key=_by_name) + jobs

    def teams(self) -> list[dict[str, object]]:
        """The teams right below it, by name."""
        if self._kind != "team" and self._who != ORGANISATION:
            return []
        above = self._id if self._kind == "team" else ""
        teams = (t for t in self._directory.teams if goals.above(self._directory, t) == above)
        return sorted((self._team(team) for team in teams), key=_by_name)

    def territories(self) -> list[dict[str, object]]:
        """The territories that are a part of it, by name."""
        every = self._directory.territories
        if self._kind == "territory":
            parts = [each for each in every.values() if each.parent == self._id]
        elif self._who == ORGANISATION:
            parts = [each for each in every.values() if each.parent not in every]
        else:
            parts = []
        return sorted((self._territory(each.id) for each in parts), key=_by_name)

    def people(self) -> list[dict[str, object]]:
        """Who is in the team itself, or in none, by name."""
        directory, day = self._directory, self._day
        if self._kind == "team":
            members = directory.members(self._id, day)
        elif self._who == ORGANISATION:
            teams = directory.teams
            members = [p for p in directory.people if directory.team_of(p, day) not in teams]
        else:
            members = []
        return sorted(
            (
                {
                    "subject": f"person:{each}",
                    "name": directory.people[each].name or each,
                    "may_see": access.may_see_person(self._principal, directory, each, day),
                }
                for each in members
                if directory.active(each, day)
            ),
            key=_by_name,
        )

    def may_open(self) -> bool:
        """Whether the records behind its numbers may be seen."""
        try:
            require_records(self._principal, self._directory, self._who, self._day)
        except Problem:
            return False
        return True

    def _team(self, team: str) -> dict[str, object]:
        return {
            "subject": f"team:{team}",
            "name": self._directory.teams[team].name or team,
            "may_see": access.may_see_team(self._principal, self._directory, team, self._day),
        }

    def _territory(self, territory: str) -> dict[str, object]:
        principal, directory, day = self._principal, self._directory, self._day
        return {
            "subject": f"territory:{territory}",
            "name": directory.territories[territory].name or territory,
            "may_see": access.may_see_territory(principal, directory, territory, day),
        }


def _by_name(named: dict[str, object]) -> tuple[str, str]:
    return str(named["name"]), str(named["subject"])


def _periods(calendar: Calendar, day: date) -> dict[str, dict[str, str]]:
    """The period of each grain that the day lies in."""
    found: dict[str, dict[str, str]] = {}
    for grain in GRAINS:
        start = calendar.start(grain, day)
        found[grain] = {
            "period": calendar.period(grain, day),
            "start": start.isoformat(),
            "end": (calendar.end(grain, start) - _DAY).isoformat(),
        }
    return found
