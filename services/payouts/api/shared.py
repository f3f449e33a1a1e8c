"""What the routes share: collaborators, pages, ETags, and who sees whom."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from kit import pages
from kit.auth import Authenticator, Principal, principal_dependency
from kit.clock import Clock
from kit.consumer import Apply
from kit.database import Database, Transaction
from kit.http import Problem
from kit.publisher import Publisher
from schemas.directory import Directory
from schemas.periods import parse
from services.access import sees_all
from services.payouts import store
from services.payouts.domain.plan import FIRST_YEAR, LAST_YEAR
from services.payouts.settings import Settings

Cursor = Query(default=None, max_length=2000, description="`next` of the page before.")
Limit = Query(default=None, ge=1, le=1000, description="Entries per page.")
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The collaborators of all routes."""

    settings: Settings
    authenticator: Authenticator
    database: Database
    publisher: Publisher
    configuration: store.Configuration
    apply: Apply
    clock: Clock

    @property
    def principal(self) -> Callable[..., Any]:
        """The dependency that says who is asking."""
        return principal_dependency(self.authenticator)

    def day_of(self, directory: Directory, period: str) -> date:
        """The day whose hierarchy decides: today within the period, else its nearest end."""
        grain, start = period_of(period)
        today = directory.calendar.local_day(self.clock())
        last = directory.calendar.end(grain, start) - timedelta(days=1)
        return max(start, min(today, last))

    async def visible(
        self, transaction: Transaction, principal: Principal, directory: Directory
    ) -> store.Visible:
        """The (period, payee) pairs that the principal may see; None for all."""
        if sees_all(principal):
            return None
        if not principal.person:
            return []
        pairs = []
        for period in await store.periods(transaction, principal.tenant):
            if not period:
                continue
            people = {principal.person}
            if principal.has("manager"):
                day = self.day_of(directory, period)
                for team in directory.managed_teams(principal.person, day):
                    people.update(directory.members(team, day))
            pairs += [(period, person) for person in sorted(people)]
        return pairs


def period_of(period: str) -> tuple[Any, date]:
    """The period's grain and first day; 422 when it isn't one."""
    try:
        grain, start = parse(period)
    except ValueError as error:
        raise Problem(422, "invalid-period", str(error)) from None
    if not FIRST_YEAR <= start.year <= LAST_YEAR:
        raise Problem(
            422, "invalid-period", f"Periods are from {FIRST_YEAR} to {LAST_YEAR}, not {start}."
        )
    return grain, start


def after(cursor: str | None, width: int) -> tuple[str, ...]:
    """The key that the page begins after."""
    key: list[str] | None = pages.place(
        cursor, Annotated[list[str], msgspec.Meta(min_length=width, max_length=width)]
    )
    return ("",) * width if key is None else tuple(key)


def page(
    request: Request,
    rows: Sequence[R],
    limit: int,
    *,
    show: Callable[[R], object],
    key: Callable[[R], tuple[str, ...]],
) -> Response:
    """A page of a list; `rows` has one more than `limit` when there is another page."""
    more = len(rows) > limit
    shown = rows[:limit]
    return pages.tagged(
        request,
        {
            "items": [show(row) for row in shown],
            "next": pages.cursor(key(shown[-1])) if more else None,
        },
    )


def clean(*names: str | None) -> None:
    """Refuse what PostgreSQL can't hold in a text."""
    if any(name is not None and "\x00" in name for name in names):
        raise Problem(422, "invalid-request", "Names can't contain a zero byte.")
