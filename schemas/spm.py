"""Sales performance: goals, measures, plans, earnings and alerts.

A *subject* is written `person:<id>`, `team:<id>`, `territory:<id>`, `role:<name>` or `org:all`; a
*period* as in `schemas.periods`; a *unit* is an ISO 4217 code for money, `count`, `quantity`,
`seconds`, or `ratio` for derived ratios.
"""

from decimal import Decimal
from typing import Any, ClassVar, Literal

import msgspec

from schemas.base import State
from schemas.crm import Instant

ORGANISATION = "org:all"


Proration = Literal["none", "days", "business_days", "months", "half_months"]
Days = Literal["calendar", "business"]
Term = str | list[str] | None


class GoalChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """One change of a goal: who made it, when, why, and what each term was and became.

    A target that wasn't there, before the first change or after the goal was taken away, is None.
    """

    at: Instant
    by: str  # the person's id; empty: a machine
    reason: str
    changed: dict[str, tuple[Term, Term]]


class Goal(State, frozen=True, kw_only=True, omit_defaults=True):
    """What a subject is to reach in a period. As money in `unit`, it is also the quota for pay.

    `target` is for the whole period and everyone; what is left of it for someone who was there for
    a part of it, or is new, is computed from the other terms and the directory:

    * `seasonality`: the weights of the days, weeks, months, quarters or halves that make up the
      period, in their order (their number says which); none: all days weigh alike
    * `proration`: what is taken off for days before someone joined, after they left, or on leave
    * `ramp`: the share of the target in someone's first, second … month of service, then 1
    * `days`: which days count for pace
    """

    topic: ClassVar[str] = "spm.goals.v1"

    subject: str
    metric: str
    period: str
    target: Decimal
    unit: str = "count"
    reason: str = ""
    deleted: bool = False
    seasonality: list[Decimal] = []
    proration: Proration = "none"
    ramp: list[Decimal] = []
    days: Days = "calendar"
    history: list[GoalChange] = []  # the latest first; the oldest are forgotten

    @property
    def key(self) -> str:
        """`tenant/subject/metric/period`."""
        return f"{self.tenant}/{self.subject}/{self.metric}/{self.period}"


class Measure(State, frozen=True, kw_only=True, omit_defaults=True):
    """A subject's current number in a period. `count` is how many records make it up."""

    topic: ClassVar[str] = "spm.measures.v1"

    subject: str
    metric: str
    period: str
    unit: str
    value: Decimal
    count: int

    @property
    def key(self) -> str:
        """`tenant/subject/metric/period/unit`: amounts of two currencies never mix."""
        return f"{self.tenant}/{self.subject}/{self.metric}/{self.period}/{self.unit}"


class MetricRevision(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a metric was, until a later revision replaced it; `document` is None while absent."""

    revision: int
    document: dict[str, Any] | None
    reason: str
    by: str
    at: Instant


class MetricDocument(State, frozen=True, kw_only=True, omit_defaults=True):
    """A metric of a tenant's own, or in place of a shipped one; metrics publishes and re-reads it.

    `deleted` means that the shipped one holds again, or that there is none of this id.
    """

    topic: ClassVar[str] = "spm.metrics.v1"

    id: str
    revision: int  # counts from 1
    document: dict[str, Any]  # as in the catalogue's YAML
    reason: str
    by: str
    at: Instant
    former: list[MetricRevision] = []  # the latest first; the oldest are forgotten
    deleted: bool = False

    @property
    def key(self) -> str:
        """`tenant/metric`."""
        return f"{self.tenant}/{self.id}"


class BoardDocument(State, frozen=True, kw_only=True, omit_defaults=True):
    """A board or contest of a tenant's own, or in place of a shipped one; or a display outside."""

    topic: ClassVar[str] = "spm.boards.v1"

    kind: Literal["board", "contest", "display"]
    id: str
    document: dict[str, Any]  # as in boards.yaml
    by: str = ""  # the person; empty: a machine
    deleted: bool = False  # the shipped one holds again, or there is none of this id

    @property
    def key(self) -> str:
        """`tenant/kind/id`."""
        return f"{self.tenant}/{self.kind}/{self.id}"


ContestPhase = Literal["scheduled", "running", "grace", "final"]


class Announcement(msgspec.Struct, frozen=True):
    """Something to tell about a contest. Once made it stays; `id` is its own in the contest."""

    id: str
    kind: Literal["start", "halfway", "lead", "end"]
    at: Instant
    text: str
    subjects: list[str]  # who leads


class ContestRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """A subject's place in a contest; None is no data. Numbers are decimal text."""

    place: int | None
    subject: str
    name: str
    score: str | None
    values: dict[str, str | None]  # by metric
    reached_at: Instant | None = None  # the goal of a race, or the score that equals have
    left_in: int | None = None  # the round of an elimination
    prize: str | None = None


class ContestResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a contest ended: computed once, from what its digest stands for.

    `input` is the SHA-256 of the credits that counted, `outcome` that of everybody's rows; `rows`
    are the first of them.
    """

    at: Instant
    document: dict[str, Any]  # the contest as it was then
    credits: int
    input: str
    outcome: str
    currency: str
    total: int  # rows
    rows: list[ContestRow]


class ContestState(State, frozen=True, kw_only=True, omit_defaults=True):
    """Where a contest is, who leads it, and what there is to tell about it."""

    topic: ClassVar[str] = "spm.contests.v1"

    id: str
    title: str
    phase: ContestPhase
    starts: Instant
    ends: Instant
    grace_ends: Instant
    leaders: list[str] = []
    rows: list[ContestRow] = []  # the head of the standings
    announcements: list[Announcement] = []
    result: ContestResult | None = None
    deleted: bool = False

    @property
    def key(self) -> str:
        """`tenant/contest`."""
        return f"{self.tenant}/{self.id}"


class PlanDocument(State, frozen=True, kw_only=True, omit_defaults=True):
    """An incentive plan as written (YAML parsed); payouts publishes and re-reads it."""

    topic: ClassVar[str] = "spm.plans.v1"

    id: str
    revision: int  # counts the plan's published versions from 1, for people
    document: dict[str, Any]
    deleted: bool = False

    @property
    def key(self) -> str:
        """`tenant/plan id`."""
        return f"{self.tenant}/{self.id}"


class Earnings(State, frozen=True, kw_only=True, omit_defaults=True):
    """What a payee has earned in a period so far."""

    topic: ClassVar[str] = "spm.earnings.v1"

    payee: str
    plan: str
    plan_revision: int
    period: str
    currency: str
    earned: Decimal
    credited: Decimal
    quota: Decimal | None
    attainment: Decimal | None
    tier: int  # index of the tier that the next credit falls into, from 0

    @property
    def key(self) -> str:
        """`tenant/payee/plan/period`."""
        return f"{self.tenant}/{self.payee}/{self.plan}/{self.period}"


AlertState = Literal["firing", "resolved"]


class Alert(State, frozen=True, kw_only=True, omit_defaults=True):
    """A rule's finding about a subject in a window; one per (rule, subject, window), ever."""

    topic: ClassVar[str] = "spm.alerts.v1"

    rule: str
    subject: str  # "person:…", or "record:<type>/<id>" for rules on records
    window: str
    state: AlertState
    title: str
    text: str
    evidence: dict[str, str]
    audience: list[str]  # "person:…" and "team:…"
    raised_at: Instant
    resolved_at: Instant | None = None
    delivered: list[str] = []  # idempotency keys of what has been sent
    read: list[str] = []  # those of them that their recipient has read

    @property
    def key(self) -> str:
        """`tenant/rule/subject/window`."""
        return f"{self.tenant}/{self.rule}/{self.subject}/{self.window}"
