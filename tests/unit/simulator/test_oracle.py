"""The oracle on cases that were worked out by hand."""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from simulator.days import Change
from simulator.oracle import Earning, alerts_of, earnings_of, fold, values_of
from simulator.organisation import Company, Goal, Mapping, Membership, Person, Team

PLAN = {
    "plan": "pay",
    "components": [
        {"rate": {"tiers": [{"from": "0", "rate": "0.05"}, {"from": "1", "rate": "0.1"}]}}
    ],
}


def person(name: str, role: str = "rep", joined: date = date(2020, 1, 1)) -> Person:
    return Person(name, name, "", role, "", joined, None, name, "hubspot", 1.0, 1.0)


COMPANY = Company(
    start_day=date(2026, 11, 9),
    people=(person("ann"), person("new", joined=date(2026, 11, 1))),
    teams=(Team("top", "Top"), Team("a", "A", "top"), Team("b", "B", "top")),
    memberships=(
        Membership("m1", "ann", "a", valid_to=date(2026, 11, 10)),
        Membership("m2", "ann", "b", valid_from=date(2026, 11, 10)),
    ),
    mappings=(Mapping("o1", "hubspot", "1", "ann"), Mapping("o2", "hubspot", "2", "new")),
    goals=(Goal("person:ann", "revenue_won", "quarter:2026-10-01", Decimal(1000), "USD"),),
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def a_deal(when: str, number: str = "1", op: str = "create", **fields: object) -> Change:
    whole = {"owner_id": "1", "created_at": at(when), "currency": "USD", "status": "open"}
    known = {**whole, **fields} if op == "create" else fields
    return Change(at(when), "hubspot", "opportunity", number, op, known, "1")  # type: ignore[arg-type]


WON = a_deal(
    "2026-11-09T15:00",
    amount=Decimal("1500.005"),
    status="won",
    closed_at=at("2026-11-10T04:59"),  # still the 9th in New York
)


def test_a_won_deal_counts_for_person_teams_and_organisation_on_the_local_day() -> None:
    values = values_of(COMPANY, fold([WON]))
    of_day = {k[0]: v for k, v in values.items() if k[1:3] == ("revenue_won", "day:2026-11-09")}

    assert of_day == {
        subject: (Decimal("1500.01"), 1)
        for subject in ("person:ann", "role:rep", "team:a", "team:top", "org:all")
    }
    assert values["org:all", "deals_won", "quarter:2026-10-01", "count"] == (Decimal(1), 1)
    assert values["org:all", "revenue_won", "week:2026-11-09", "USD"] == (Decimal("1500.01"), 1)


def test_the_last_change_wins_whatever_the_order_of_the_list() -> None:
    lost = a_deal("2026-11-10T15:00", op="update", status="lost", closed_at=at("2026-11-10T15:00"))

    values = values_of(COMPANY, fold([lost, WON]))

    assert ("org:all", "deals_won", "day:2026-11-09", "count") not in values
    assert values["team:b", "deals_lost", "day:2026-11-10", "count"] == (Decimal(1), 1)
    assert ("team:a", "deals_lost", "day:2026-11-10", "count") not in values


def test_a_deleted_record_and_an_unmapped_owner_count_nowhere() -> None:
    deleted = a_deal("2026-11-10T15:00", op="delete")
    stranger = a_deal("2026-11-09T15:00", "2", owner_id="?", amount=Decimal(1))

    assert values_of(COMPANY, fold([WON, deleted, stranger])) == {}


def test_only_done_outgoing_activities_count() -> None:
    def activity(number: str, kind: str, **fields: object) -> Change:
        known = {"owner_id": "1", "occurred_at": at("2026-11-10T15:00"), **fields}
        moment = at("2026-11-10T15:00")
        return Change(moment, "hubspot", kind, number, "create", known, "1")  # type: ignore[arg-type]

    values = values_of(
        COMPANY,
        fold(
            [
                activity("1", "call", done=True, direction="inbound"),
                activity("2", "call", done=False),
                activity("3", "email", done=True, direction="outbound"),
                activity("4", "email", done=True, direction="inbound"),
                activity("5", "meeting", done=True),
            ]
        ),
    )
    counts = {k[1]: v[1] for k, v in values.items() if k[0] == "org:all" and "day" in k[2]}

    assert counts == {"calls_made": 1, "emails_sent": 1, "meetings_held": 1}


def test_each_part_of_the_quota_earns_its_own_rate() -> None:
    records = fold([WON])

    assert earnings_of(COMPANY, records, PLAN) == {
        # 1,000 at 5 % and 500.005 at 10 %: 100.0005, in whole cents.
        ("ann", "pay", "quarter:2026-10-01"): Earning(
            Decimal("1500.005"), Decimal("100.00"), Decimal(1000)
        )
    }


def test_without_a_quota_there_is_credit_and_no_pay() -> None:
    records = fold(
        [
            a_deal(
                "2026-11-09T15:00",
                owner_id="2",
                amount=Decimal(10),
                status="won",
                closed_at=at("2026-11-09T15:00"),
            )
        ]
    )

    assert earnings_of(COMPANY, records, PLAN) == {
        ("new", "pay", "quarter:2026-10-01"): Earning(Decimal(10), Decimal(0), None)
    }


@pytest.mark.parametrize(("amount", "fires"), [("49999.99", False), ("50000", True)])
def test_a_big_deal_fires_from_the_threshold_on(amount: str, *, fires: bool) -> None:
    won = a_deal(
        "2026-11-09T15:00", amount=Decimal(amount), status="won", closed_at=at("2026-11-09T15:00")
    )
    key = ("big-deal-won", "record:opportunity/hubspot:1", "once")

    assert (key in alerts_of(COMPANY, fold([won]), at("2026-11-09T20:00"))) is fires


def test_a_quiet_day_fires_in_the_evening_and_not_for_who_is_new() -> None:
    call = Change(
        at("2026-11-09T15:00"),
        "hubspot",
        "call",
        "9",
        "create",
        {"owner_id": "1", "occurred_at": at("2026-11-09T15:00"), "done": True},
        "1",
    )
    key = ("activity-below-expectation", "person:ann", "day:2026-11-09")

    assert alerts_of(COMPANY, fold([call]), at("2026-11-09T22:59")) == set()
    assert alerts_of(COMPANY, fold([call]), at("2026-11-09T23:00")) == {key}
