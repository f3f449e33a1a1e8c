"""From a statement as it is to the statement as it should be: what to post, write and remove.

Only differences are posted. A transfer moves an amount above zero: what is earned, from
`expense:<plan>` to `payable:<payee>`; what is taken back, the other way.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal

import msgspec

from schemas.money import from_minor
from schemas.spm import Earnings
from services.payouts.domain.evaluate import ComponentResult, Statement, explain
from services.payouts.domain.exact import plain, trimmed
from services.payouts.domain.keys import LineKey, StatementKey
from services.payouts.domain.plan import Plan, RevisedPlan

_JSON = msgspec.json.Encoder(decimal_format="string")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """A statement's sums. `posted` counts its transfers, `version` grows with every change."""

    key: StatementKey
    plan_revision: int
    currency: str
    earned_minor: int
    credited: Decimal
    quota: Decimal | None
    attainment: Decimal | None
    tier: int
    lines: int
    components: str
    posted: int
    version: int

    @classmethod
    def empty(cls, key: StatementKey) -> "Sums":
        """Those of a statement that doesn't exist yet."""
        return cls(
            key=key,
            plan_revision=0,
            currency="",
            earned_minor=0,
            credited=Decimal(0),
            quota=None,
            attainment=None,
            tier=0,
            lines=0,
            components="[]",
            posted=0,
            version=0,
        )

    def earnings(self) -> Earnings:
        """The statement's sums as published."""
        return Earnings(
            tenant=self.key.tenant,
            version=self.version,
            payee=self.key.payee,
            plan=self.key.plan,
            plan_revision=self.plan_revision,
            period=self.key.period,
            currency=self.currency,
            earned=from_minor(self.earned_minor, self.currency),
            credited=self.credited,
            quota=self.quota,
            attainment=self.attainment,
            tier=self.tier,
        )


@dataclass(frozen=True, slots=True)
class PostedLine:
    """A line as far as it is in the ledger: how much, and why (JSON)."""

    day: date
    credited: Decimal
    currency: str
    posted_minor: int
    explain: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Posting:
    """A transfer to append."""

    statement: StatementKey
    number: int
    line: LineKey
    debit: str
    credit: str
    amount_minor: int
    currency: str
    cause: str


@dataclass(slots=True)
class Changes:
    """What is to be written after evaluating some statements."""

    cause: Callable[[StatementKey, LineKey], str]
    statements: list[Sums] = field(default_factory=list)
    lines: list[tuple[StatementKey, LineKey, PostedLine]] = field(default_factory=list)
    gone: list[tuple[StatementKey, LineKey]] = field(default_factory=list)
    postings: list[Posting] = field(default_factory=list)
    accrued: int = 0

    def add(
        self,
        row: Sums,
        revised: RevisedPlan | None,
        found: Statement,
        posted: dict[LineKey, PostedLine],
        now_us: Callable[[], int],
    ) -> None:
        """Compare a statement as it is with what it should be."""
        wanted = {} if revised is None else _lines(revised.plan, found)
        number = row.posted
        for line in sorted(wanted.keys() | posted.keys()):
            old, new = posted.get(line), wanted.get(line)
            if old == new:
                continue
            for currency, minor in _differences(old, new):
                number += 1
                self._post(row.key, number, line, currency, minor)
            if new is None:
                self.gone.append((row.key, line))
            else:
                self.lines.append((row.key, line, new))
        fresh = summed(row, revised, found, posted=number)
        if fresh != row:
            version = max(row.version + 1, now_us())
            self.statements.append(replace(fresh, version=version))

    def _post(
        self, key: StatementKey, number: int, line: LineKey, currency: str, minor: int
    ) -> None:
        accounts = (f"expense:{key.plan}", f"payable:{key.payee}")
        debit, credit = accounts if minor > 0 else accounts[::-1]
        self.accrued += minor > 0
        self.postings.append(
            Posting(
                statement=key,
                number=number,
                line=line,
                debit=debit,
                credit=credit,
                amount_minor=abs(minor),
                currency=currency,
                cause=self.cause(key, line),
            )
        )


def _differences(old: PostedLine | None, new: PostedLine | None) -> list[tuple[str, int]]:
    """What must be posted, per currency, so that the ledger says `new` instead of `old`."""
    sums: defaultdict[str, int] = defaultdict(int)
    if old is not None:
        sums[old.currency] -= old.posted_minor
    if new is not None:
        sums[new.currency] += new.posted_minor
    return [(currency, minor) for currency, minor in sorted(sums.items()) if minor]


def _lines(plan: Plan, statement: Statement) -> dict[LineKey, PostedLine]:
    lines = {}
    for component, result in zip(plan.components, statement.components, strict=True):
        rule = str(component.credit)
        for line in result.lines:
            credit = line.credit
            key = LineKey(credit.component, credit.record_type, credit.record_id)
            tree = explain(plan, component, rule, line, result.quota)
            lines[key] = PostedLine(
                credit.day,
                credit.amount,
                plan.currency,
                line.earned_minor,
                _JSON.encode(tree).decode(),
            )
    return lines


def summed(row: Sums, revised: RevisedPlan | None, found: Statement, *, posted: int) -> Sums:
    """The statement's sums; those with a quota come from the first component that has one."""
    head = _headline(revised, found)
    return Sums(
        key=row.key,
        plan_revision=revised.revision if revised else row.plan_revision,
        currency=revised.plan.currency if revised else row.currency,
        earned_minor=found.earned_minor,
        credited=trimmed(head.credited) if head else Decimal(0),
        quota=trimmed(head.quota) if head and head.quota is not None else None,
        attainment=head.attainment if head else None,
        tier=head.tier if head else 0,
        lines=sum(component.count for component in found.components),
        components=_JSON.encode([_component(c) for c in found.components]).decode(),
        posted=posted,
        version=row.version,
    )


def _headline(revised: RevisedPlan | None, found: Statement) -> ComponentResult | None:
    if revised is None:
        return None
    pairs = zip(revised.plan.components, found.components, strict=True)
    with_quota = [result for component, result in pairs if component.quota is not None]
    return (with_quota or list(found.components))[0]


def _component(result: ComponentResult) -> dict[str, object]:
    return {
        "id": result.id,
        "credited": plain(result.credited),
        "quota": None if result.quota is None else plain(result.quota),
        "attainment": None if result.attainment is None else plain(result.attainment),
        "tier": result.tier,
        "earned_minor": result.earned_minor,
        "finding": result.finding,
    }
