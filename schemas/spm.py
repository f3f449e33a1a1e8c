"""Sales performance: goals, measures, plans, earnings and alerts.

A *subject* is written `person:<id>`, `team:<id>` or `org:all`; a *period* as in `schemas.periods`;
a *unit* is an ISO 4217 code for money, `count` for counts and `ratio` for derived ratios.
"""

from decimal import Decimal
from typing import Any, ClassVar, Literal

from schemas.base import State
from schemas.crm import Instant

ORGANISATION = "org:all"


class Goal(State, frozen=True, kw_only=True, omit_defaults=True):
    """What a subject is to reach in a period. As money in `unit`, it is also the quota for pay."""

    topic: ClassVar[str] = "spm.goals.v1"

    subject: str
    metric: str
    period: str
    target: Decimal
    unit: str = "count"
    reason: str = ""
    deleted: bool = False

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
