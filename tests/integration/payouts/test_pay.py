"""Records, goals, plans and directory into statements and the ledger, on a real PostgreSQL."""

from decimal import Decimal

from services.payouts.jobs import verify
from tests.integration.payouts.world import (
    QUARTER,
    World,
    deal,
    goal,
    member,
    organisation,
    owner,
    person,
    plan,
    team,
)

SETUP = (organisation(), person("ann"), person("bob"), owner("1", "ann"), owner("2", "bob"))


async def test_a_deal_becomes_a_line_an_explanation_and_a_transfer(world: World) -> None:
    await world.apply(*SETUP, goal("ann", "1000"), plan())

    [earnings] = await world.apply(deal(1, "1200"))

    assert earnings.payee == "ann"
    assert earnings.earned == Decimal("66.00")  # 1000 x 5 % + 200 x 8 %
    assert (earnings.credited, earnings.quota, earnings.attainment) == (1200, 1000, Decimal("1.2"))
    assert earnings.tier == 1
    [transfer] = await world.fetch("SELECT * FROM transfer")
    assert (transfer["debit"], transfer["credit"]) == ("expense:ae", "payable:ann")
    assert transfer["amount_minor"] == 6600
    assert transfer["cause"] == "opportunity/crm:1@1"
    assert transfer["statement"] == f"ann/ae/{QUARTER}"


async def balance(world: World) -> dict[str, int]:
    rows = await world.fetch("SELECT account, minor FROM balance WHERE minor <> 0")
    return {row["account"]: int(row["minor"]) for row in rows}


async def assert_adds_up(world: World) -> None:

    assert await verify(world.database) == []


async def test_a_reopened_deal_is_taken_back_and_a_changed_one_corrected(world: World) -> None:
    await world.apply(*SETUP, goal("ann", "1000"), plan(), deal(1, "1000"), deal(2, "500"))
    assert await balance(world) == {"expense:ae": 9000, "payable:ann": -9000}

    await world.apply(deal(1, "1000", version=2, status="open"))  # deal 2 falls into tier 0
    assert await balance(world) == {"expense:ae": 2500, "payable:ann": -2500}

    await world.apply(deal(2, "600", version=2))
    assert await balance(world) == {"expense:ae": 3000, "payable:ann": -3000}
    causes = [row["cause"] for row in await world.fetch("SELECT cause FROM transfer ORDER BY id")]
    assert causes == [
        "opportunity/crm:1@1",
        "opportunity/crm:2@1",
        "opportunity/crm:1@2",
        "opportunity/crm:1@2",
        "opportunity/crm:2@2",
    ]
    await assert_adds_up(world)


async def test_a_deal_that_changes_hands_pays_the_other_and_publishes_both(world: World) -> None:
    await world.apply(*SETUP, goal("ann", "1000"), goal("bob", "1000"), plan(), deal(1))

    moved = await world.apply(deal(1, version=2, by="2"))

    assert {e.payee: e.earned for e in moved} == {"ann": Decimal("0.00"), "bob": Decimal("50.00")}
    again = await world.apply(deal(1, version=2, by="2"))
    assert sorted(again, key=str) == sorted(moved, key=str)  # as often as it comes
    await assert_adds_up(world)


async def test_deleted_deals_count_nothing_and_come_back(world: World) -> None:
    await world.apply(*SETUP, goal("ann", "1000"), plan(), deal(1))
    await world.apply(deal(1, version=2, deleted=True))
    assert await balance(world) == {}
    await world.apply(deal(1, version=1))  # old news
    assert await balance(world) == {}
    await world.apply(deal(1, version=3))
    assert await balance(world) == {"expense:ae": 5000, "payable:ann": -5000}


async def test_a_mapping_that_comes_late_moves_credit_and_a_new_one_moves_it_on(
    world: World,
) -> None:
    await world.apply(organisation(), person("ann"), person("bob"), plan(), goal("ann", "1000"))
    assert await world.apply(deal(1)) == []
    [finding] = await world.fetch("SELECT reason FROM credit WHERE active")
    assert finding["reason"] == "owner_unmapped"

    [earnings] = await world.apply(owner("1", "ann"))
    assert earnings.earned == Decimal("50.00")

    moved = await world.apply(owner("1", "bob", version=2))
    assert {e.payee: e.earned for e in moved} == {"ann": 0, "bob": 0}  # bob has no goal
    [statement] = await world.fetch("SELECT components FROM statement WHERE payee = 'bob'")
    assert "quota_missing" in statement["components"]
    assert await world.apply(owner("1", "bob", version=2)) == moved
    await assert_adds_up(world)


async def test_goal_and_plan_changes_post_the_difference(world: World) -> None:
    await world.apply(*SETUP, plan(), deal(1))
    assert await balance(world) == {}

    [earnings] = await world.apply(goal("ann", "500"))
    assert earnings.earned == Decimal("70.00")  # 500 x 5 % + 250 x 8 % + 250 x 10 %
    await world.apply(goal("ann", "500", version=2, unit="EUR"))
    assert await balance(world) == {}
    await world.apply(goal("ann", "500", version=3))
    flat = plan().document["components"][0] | {"rate": {"type": "flat", "rate": "0.2"}}
    [earnings] = await world.apply(plan(version=2, components=[flat]))
    assert (earnings.earned, earnings.plan_revision) == (Decimal("200.00"), 2)
    [earnings] = await world.apply(plan(version=3, deleted=True))
    assert earnings.earned == 0
    assert await balance(world) == {}
    await assert_adds_up(world)


async def test_currency_must_be_known_and_the_plans(world: World) -> None:
    await world.apply(*SETUP, goal("ann", "1000"), plan())
    await world.apply(
        deal(1, currency=None),
        deal(2, currency="XXQ"),
        deal(3, currency="EUR"),
        deal(4, amount=None),
        deal(5, amount="1e30"),
        deal(6, by="9"),
        deal(7, status="lost", by="9"),
    )
    rows = await world.fetch("SELECT record_id, reason FROM credit WHERE active ORDER BY 1")
    assert [tuple(row) for row in rows] == [
        ("crm:1", "currency_missing"),
        ("crm:2", "currency_unknown"),
        ("crm:3", "currency_differs"),
        ("crm:4", "amount_missing"),
        ("crm:5", "amount_out_of_range"),
        ("crm:6", "owner_unmapped"),
    ]
    assert await world.earned() == {}


async def test_the_day_is_the_organisations_and_a_new_zone_moves_the_period(world: World) -> None:
    await world.apply(*SETUP, goal("ann", "1000"), plan())
    late = deal(1).fields["closed_at"].__class__("value", "2026-12-31T23:30:00+00:00", 1, "e")
    record = deal(1)
    record.fields["closed_at"] = late
    await world.apply(record)
    assert list(await world.earned()) == [("ann", "ae", QUARTER)]
    await world.apply(organisation(version=2, zone="Europe/Madrid"))
    assert list(await world.earned()) == []  # 2027: the plan is over


async def test_plans_by_team_follow_memberships(world: World) -> None:
    await world.apply(*SETUP, team("west"), team("coast", "west"), goal("ann", "1000"), deal(1))
    await world.apply(plan(payees={"teams": ["west"]}))
    assert await world.earned() == {}
    await world.apply(member("ann", "coast"))
    assert await world.earned() == {("ann", "ae", QUARTER): Decimal(50)}
    await world.apply(team("coast", "", version=2))
    assert await world.earned() == {}
    await assert_adds_up(world)


async def test_a_transfer_names_only_the_changes_that_concern_it(world: World) -> None:
    await world.apply(*SETUP, goal("ann", "1000"), goal("bob", "1000"), plan())
    await world.apply(deal(1, "1000"), deal(2, "1000", by="2"))

    await world.apply(*(goal(f"p{n}", "5") for n in range(5)), goal("ann", "500", 2))
    await world.apply(
        *(person(f"p{n}") for n in range(5)),
        *(member(f"p{n}", "x") for n in range(5)),
        owner("2", "ann", 2),
    )

    rows = await world.fetch("SELECT credit, debit, cause FROM transfer ORDER BY id OFFSET 2")
    causes = [row["cause"] for row in rows]
    assert causes[0] == f"spm.goals.v1/acme/person:ann/revenue_won/{QUARTER}@2"
    assert len(causes) == 3
    assert set(causes[1:]) == {"crm.directory.v1/acme/owner/2-ever@2"}
