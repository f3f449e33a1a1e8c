"""Who is credited with what, and why not."""

from datetime import date
from typing import Any

import pytest

from schemas.directory import Directory, Organisation, OwnerMapping, Person
from services.payouts.domain.credit import Outcome, decide
from services.payouts.domain.text import plan_of
from tests.support import TENANT, a_record
from tests.unit.payouts.plans import PLAN

DIRECTORY = Directory(
    TENANT,
    [
        Organisation(tenant=TENANT, version=1, id="all", name="A", zone="America/New_York"),
        Person(tenant=TENANT, version=1, id="ann", name="Ann"),
        Person(tenant=TENANT, version=1, id="max", name="Max", role="manager"),
        OwnerMapping(tenant=TENANT, version=1, id="1", source="crm", owner_id="1", person="ann"),
        OwnerMapping(tenant=TENANT, version=1, id="2", source="crm", owner_id="2", person="max"),
        OwnerMapping(
            tenant=TENANT, version=1, id="3", source="crm", owner_id="3", person="ann",
            valid_to=date(2026, 10, 1),
        ),
    ],
)  # fmt: skip
WON: dict[str, Any] = {
    "status": "won",
    "amount": "100.50",
    "currency": "USD",
    "owner_id": "1",
    "closed_at": "2026-10-01T02:00:00+00:00",
}


def outcomes(plan: str = PLAN, **fields: Any) -> list[Outcome]:
    return decide(a_record(**(WON | fields)), [plan_of(plan)[0]], DIRECTORY)


def test_credit_is_placed_by_the_organisations_day() -> None:
    [outcome] = outcomes()
    assert (outcome.payee, outcome.day) == ("ann", date(2026, 9, 30))
    assert outcome.period == "quarter:2026-07-01"


def test_a_share_is_exact() -> None:
    [outcome] = outcomes(PLAN.replace("share: 100", 'share: "33.333333"'), amount="0.01")
    assert str(outcome.amount) == "0.0033333333"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"closed_at": None}, "date_missing"),
        ({"closed_at": "soon"}, "date_missing"),
        ({"closed_at": "0001-01-01T00:00:00+00:00"}, "date_missing"),
        ({"closed_at": "9999-12-31T23:00:00-12:00"}, "date_missing"),
        ({"owner_id": None}, "owner_missing"),
        ({"owner_id": "9"}, "owner_unmapped"),
        ({"owner_id": "3", "closed_at": "2026-10-02T12:00:00+00:00"}, "owner_unmapped"),
        ({"amount": None}, "amount_missing"),
        ({"amount": "NaN"}, "amount_missing"),
        ({"amount": "1E+999999"}, "amount_out_of_range"),
        ({"amount": "1E-999999"}, "amount_out_of_range"),
        ({"currency": None}, "currency_missing"),
        ({"currency": "??"}, "currency_unknown"),
        ({"currency": "EUR"}, "currency_differs"),
    ],
)
def test_what_cannot_count_says_why(fields: dict[str, Any], reason: str) -> None:
    [outcome] = outcomes(**fields)
    assert (outcome.reason, outcome.amount) == (reason, None)


@pytest.mark.parametrize(
    "fields",
    [{"status": "open"}, {"owner_id": "2"}, {"closed_at": "2027-10-01T02:00:00+00:00"}],
)
def test_what_the_plan_does_not_mean_is_no_finding(fields: dict[str, Any]) -> None:
    assert outcomes(**fields) == []


def test_conditions_take_lists_and_know_true_from_text() -> None:
    plan = PLAN.replace("{status: won}", "{x_tier: [1, gold], x_new: true}")
    assert outcomes(plan, x_tier="1", x_new=True)
    assert outcomes(plan, x_tier="gold", x_new=True)
    assert not outcomes(plan, x_tier="gold", x_new="true")
    assert not outcomes(plan, x_new=True)
