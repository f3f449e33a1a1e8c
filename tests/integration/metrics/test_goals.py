"""Goals over HTTP: terms, reasons and history, allocation, roll-up, import, and who may do what."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any

import httpx
import pytest

from schemas.spm import Goal
from tests.integration.metrics.world import (
    World,
    member,
    organisation,
    person,
    small_company,
    won,
)
from tests.support import TENANT, bearer

NOVEMBER = "month:2026-11-01"
DECEMBER = "month:2026-12-01"
QUARTER = "quarter:2026-10-01"
NEXT_YEAR = "year:2027-01-01"


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2026, 11, 3, 12, tzinfo=UTC)
    monkeypatch.setattr("services.metrics.app.clock.load", lambda _: lambda: now)


@pytest.fixture
async def company(world: World) -> World:
    """Person 1 won 300 EUR this November and 100 a year ago, when person 2 won 300."""
    await world.apply(
        *small_company(),
        won("crm:1", owner_id=1, amount="300"),
        won("crm:2", owner_id=1, amount="100", closed_at="2025-11-05T08:00:00Z"),
        won("crm:3", owner_id=2, amount="300", closed_at="2025-11-28T08:00:00Z"),
    )
    await world.settle()
    return world


@pytest.fixture
async def ops(company: World) -> AsyncIterator[httpx.AsyncClient]:
    async with company.client(bearer("ops", person="olga")) as client:
        yield client


def revenue(
    subject: str = "person:p1", target: str | None = "1200", period: str = NOVEMBER, **terms: Any
) -> dict[str, Any]:
    asked = {"subject": subject, "metric": "revenue_won", "period": period, "target": target}
    return asked | terms


def named(subject: str = "person:p1", period: str = NOVEMBER, **more: Any) -> dict[str, Any]:
    return {"subject": subject, "metric": "revenue_won", "period": period} | more


async def put(client: httpx.AsyncClient, *goals: dict[str, Any], status: int = 200) -> Any:
    answer = await client.put("/v1/goals", json=list(goals))
    assert answer.status_code == status, answer.text
    return answer.json()


async def post(client: httpx.AsyncClient, body: dict[str, Any], status: int = 200, **q: Any) -> Any:
    answer = await client.post("/v1/goals/allocate", json=body, params=q)
    assert answer.status_code == status, answer.text
    return answer.json()


async def send(client: httpx.AsyncClient, text: str | bytes, status: int = 200) -> Any:
    answer = await client.post("/v1/goals/import", content=text)
    assert answer.status_code == status, answer.text
    return answer.json()


async def get(client: httpx.AsyncClient, path: str, **params: Any) -> Any:
    answer = await client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def targets(client: httpx.AsyncClient) -> dict[tuple[str, str], str]:
    listed = (await get(client, "/v1/goals"))["goals"]
    return {(goal["subject"], goal["period"]): goal["target"] for goal in listed}


# Pace


async def test_a_value_stands_beside_its_goal(ops: httpx.AsyncClient) -> None:
    await put(ops, revenue())
    value = await get(ops, "/v1/values", **named())

    assert (value["target"], value["effective_target"]) == ("1200.00", "1200.00")
    assert (value["attainment"], value["attainment_exact"]) == ("0.2500", "1/4")
    assert (value["expected"], value["pace"]) == ("80.00", "3.7500")  # two days of thirty are over
    assert value["required_per_day"] == "32.14"  # 900 in 28 days
    nothing = await get(ops, "/v1/values", **named("person:p2"))
    assert {nothing[name] for name in ("target", "effective_target", "expected", "pace")} == {None}


async def test_a_joiner_is_to_reach_what_proration_leaves(
    company: World, ops: httpx.AsyncClient
) -> None:
    await company.apply(person(1, version=2, joined=date(2026, 11, 16)))
    await put(ops, revenue(proration="days"))
    value = await get(ops, "/v1/values", **named())

    assert (value["target"], value["effective_target"]) == ("1200.00", "600.00")
    assert (value["attainment"], value["expected"], value["pace"]) == ("0.5000", "0.00", None)
    assert value["required_per_day"] == "20.00"


async def test_a_goal_for_some_days_is_about_those_days(
    company: World, ops: httpx.AsyncClient
) -> None:
    days = "range:2026-11-02..2026-11-05"
    await put(ops, revenue(period=days, target="600"))
    value = await get(ops, "/v1/values", **named(period=days))

    assert (value["value"], value["expected"], value["pace"]) == ("300.00", "150.00", "2.0000")
    await company.publish()
    assert [s.key for s in company.outbox.states if isinstance(s, Goal)] == [
        f"{TENANT}/person:p1/revenue_won/{days}"
    ]


async def test_a_rate_is_to_be_held(ops: httpx.AsyncClient) -> None:
    rate = {"subject": "person:p1", "metric": "win_rate", "period": NOVEMBER}
    await put(ops, rate | {"target": "0.5"})
    value = await get(ops, "/v1/values", **rate)

    assert (value["expected"], value["pace"], value["attainment"]) == ("0.5000", "2.0000", "2.0000")
    assert value["required_per_day"] is None


async def test_weights_that_the_calendar_has_overtaken_are_left_aside_and_told(
    company: World, ops: httpx.AsyncClient
) -> None:
    await put(ops, revenue(seasonality=[1, 2, 3], period=QUARTER))
    fits = await get(ops, "/v1/values", **named(period=QUARTER))
    weeks = organisation(version=2, fiscal_pattern="445", fiscal_year_start=10, week_start=3)
    await company.apply(weeks)
    month = await get(ops, "/v1/values", **named(period=QUARTER))

    assert fits["seasonality_misfit"] is month["seasonality_misfit"] is False
    await put(ops, revenue(seasonality=[1] * 13, period=QUARTER, reason="by weeks"))
    await company.apply(organisation(version=3))
    overtaken = await get(ops, "/v1/values", **named(period=QUARTER))
    assert overtaken["seasonality_misfit"] is True
    assert overtaken["expected"] == "430.43"  # 33 days of 92


# Terms, reasons, history


async def test_terms_stay_until_they_are_given(ops: httpx.AsyncClient) -> None:
    terms: dict[str, Any] = {
        "seasonality": ["1", "2", "3"],
        "proration": "months",
        "ramp": ["0.5"],
    }
    first = revenue(period=QUARTER, days="business", reason="plan", **terms)
    await put(ops, first)
    changed = (await put(ops, revenue(period=QUARTER, target="900", reason="cut")))["goals"][0]

    assert {name: changed[name] for name in terms} == terms
    assert (changed["target"], changed["days"]) == ("900", "business")
    plain = revenue(period=QUARTER, target="900", reason="even", seasonality=[], ramp=[])
    cleared = (await put(ops, plain))["goals"][0]
    assert (cleared["seasonality"], cleared["ramp"], cleared["proration"]) == ([], [], "months")


async def test_once_a_period_has_begun_a_change_needs_a_reason(ops: httpx.AsyncClient) -> None:
    await put(ops, revenue(), revenue(period=DECEMBER))
    await put(ops, revenue())  # no change
    refused = await put(ops, revenue(target="900"), revenue("person:p2"), status=422)
    await put(ops, revenue(target=None), status=422)
    await put(ops, revenue(target="900", period=DECEMBER))
    await put(ops, revenue(target="900", reason="a customer left"))

    assert refused["type"] == "urn:pacesetter:problem:reason-required"
    assert f"person:p1, revenue_won, {NOVEMBER}" in refused["detail"]
    assert await targets(ops) == {
        ("person:p1", NOVEMBER): "900",
        ("person:p1", DECEMBER): "900",
    }


async def test_a_history_says_who_when_why_and_what(ops: httpx.AsyncClient) -> None:
    await put(ops, revenue(reason="plan"))
    await put(ops, revenue(target="900", proration="days", reason="less"))
    await put(ops, revenue(target=None, reason="moved"))
    found = await get(ops, "/v1/goals/history", **named())

    assert found["goal"]["target"] is None
    assert [(c["by"], c["reason"], c["changed"].get("target")) for c in found["history"]] == [
        ("olga", "moved", ["900", None]),
        ("olga", "less", ["1200", "900"]),
        ("olga", "plan", [None, "1200"]),
    ]
    assert found["history"][1]["changed"]["proration"] == ["none", "days"]
    assert {c["at"] for c in found["history"]} == {"2026-11-03T12:00:00Z"}
    never = await ops.get("/v1/goals/history", params=named("person:p3"))
    assert never.status_code == 404


async def test_a_rebuilt_store_has_the_history(
    company: World, ops: httpx.AsyncClient, new_world: Any
) -> None:
    await put(ops, revenue(reason="plan"))
    await put(ops, revenue(target="900", reason="less"))
    before = await get(ops, "/v1/goals/history", **named())
    again: World = await new_world()
    published = [state for state in company.outbox.states if isinstance(state, Goal)]
    await again.apply(*small_company(), *reversed(published))

    async with again.client(bearer("ops")) as client:
        assert await get(client, "/v1/goals/history", **named()) == before


@pytest.mark.parametrize(
    ("terms", "complaint"),
    [
        ({"seasonality": [1, 2], "period": QUARTER}, "it has 3 months"),
        ({"seasonality": [0, 0, 0], "period": QUARTER}, "above zero"),
        ({"seasonality": [1], "period": "day:2026-11-03"}, "it has no parts"),
        ({"seasonality": [-1, 2, 3], "period": QUARTER}, "greater than or equal to 0"),
        ({"seasonality": ["NaN", 2, 3], "period": QUARTER}, "finite"),
        ({"ramp": ["1.5"]}, "less than or equal to 1"),
        ({"proration": "weeks"}, "proration"),
        ({"subject": "team:north", "proration": "days"}, "proration and ramp are for people"),
        ({"subject": "role:rep", "ramp": ["0.5"]}, "proration and ramp are for people"),
        ({"metric": "win_rate", "proration": "days"}, "doesn't add up over days"),
        ({"period": "range:2026-11-05..2026-11-02"}, "ends before it begins"),
    ],
)
async def test_terms_that_say_nothing_are_refused(
    ops: httpx.AsyncClient, terms: dict[str, Any], complaint: str
) -> None:
    refused = await put(ops, revenue() | terms, status=422)

    assert complaint in refused["detail"]


# Allocation


async def test_an_allocation_is_shown_first_and_then_set(ops: httpx.AsyncClient) -> None:
    await put(ops, revenue("team:north", "1000.01"), revenue("person:p1", "10"))
    asked = named("team:north", into="people", reason="top down")
    planned = await post(ops, asked)
    unchanged = await targets(ops)
    applied = await post(ops, asked, apply=True)

    parts = [(p["goal"]["subject"], p["goal"]["target"], p["current"]) for p in planned["parts"]]
    assert parts == [("person:p1", "500.01", "10"), ("person:p2", "500.00", None)]
    assert (planned["applied"], planned["total"], planned["left_out"]) == (False, "1000.01", [])
    assert unchanged[("person:p1", NOVEMBER)] == "10"
    assert applied["applied"] is True
    assert await targets(ops) == {
        ("team:north", NOVEMBER): "1000.01",
        ("person:p1", NOVEMBER): "500.01",
        ("person:p2", NOVEMBER): "500.00",
    }


async def test_parts_are_set_all_or_none(ops: httpx.AsyncClient) -> None:
    await put(ops, revenue("team:north", "1000"), revenue("person:p2", "10"))
    before = await targets(ops)
    refused = await post(ops, named("team:north", into="people"), 422, apply=True)

    assert refused["type"] == "urn:pacesetter:problem:reason-required"
    assert await targets(ops) == before


async def test_a_year_is_divided_along_its_seasons(ops: httpx.AsyncClient) -> None:
    await put(ops, revenue("org:all", "1200", NEXT_YEAR, seasonality=[1, 1, 1, 3]))
    parts = (await post(ops, named("org:all", NEXT_YEAR, into="quarter"), apply=True))["parts"]
    rolled = await get(ops, "/v1/goals/roll-up", **named("org:all", NEXT_YEAR, by="quarter"))

    assert [(p["goal"]["target"], p["share"]) for p in parts] == [
        *[("200.00", "0.1667")] * 3,
        ("600.00", "0.5000"),
    ]
    assert (rolled["assigned"], rolled["gap"], rolled["covered"]) == ("1200.00", "0.00", "1.0000")


async def test_last_years_share_divides(ops: httpx.AsyncClient) -> None:
    whole = named("org:all", into="people", by="last_year", total="1000")
    found = await post(ops, whole)

    shares = [(p["goal"]["subject"], p["goal"]["target"]) for p in found["parts"]]
    assert shares == [("person:p1", "250.00"), ("person:p2", "750.00")]
    assert found["left_out"] == ["person:p3"]  # and p4 manages
    teams = await post(ops, named("team:all-sales", into="teams", by="last_year", total="80"))
    assert [p["goal"]["subject"] for p in teams["parts"]] == ["team:north"]
    assert teams["left_out"] == ["team:south"]


async def test_given_weights_divide(ops: httpx.AsyncClient) -> None:
    weights = {"person:p4": "1", "person:p1": "3", "person:p2": "0"}
    asked = named("team:all-sales", into="people", by="weights", weights=weights, total="100")
    found = await post(ops, asked)

    assert [p["goal"]["target"] for p in found["parts"]] == ["75.00", "25.00"]
    assert found["left_out"] == ["person:p2"]


async def test_who_counts_in_two_teams_gets_one_goal_from_above_both(
    company: World, ops: httpx.AsyncClient
) -> None:
    moved = date(2026, 11, 16)
    await company.apply(
        member(1, "north", version=2, valid_to=moved),
        member(1, "south", id="m1b", valid_from=moved),
    )
    asked = named("team:north", into="people", total="300")
    planned = await post(ops, asked)
    refused = await post(ops, asked, 422, apply=True)
    above = await post(ops, named("team:all-sales", into="people", total="300"), apply=True)

    days = [(p["goal"]["target"], p["days"], p["days_elsewhere"]) for p in planned["parts"]]
    assert days == [("100.00", 15, 15), ("200.00", 30, 0)]
    assert "person:p1: counted in another team" in refused["detail"]
    assert [p["goal"]["target"] for p in above["parts"]] == ["100.00"] * 3
    for team, assigned in (("north", "150.00"), ("south", "150.00"), ("all-sales", "300.00")):
        rolled = await get(ops, "/v1/goals/roll-up", **named(f"team:{team}"))
        assert rolled["assigned"] == assigned


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({}, "no-total"),
        ({"total": "5", "into": "week"}, "invalid-allocation"),
        ({"total": "5", "into": "month", "by": "even"}, "invalid-allocation"),
        ({"total": "5", "by": "weights"}, "invalid-allocation"),
        ({"total": "5", "by": "weights", "weights": {"person:p3": 1}}, "invalid-allocation"),
        ({"total": "5", "weights": {"person:p1": 1}}, "invalid-allocation"),
        ({"total": "5", "subject": "role:rep"}, "invalid-subject"),
        ({"total": "5", "subject": "team:nobody"}, "invalid-allocation"),
        ({"total": "5", "metric": "win_rate"}, "derived-metric"),
        ({"total": "-5"}, "invalid-request"),
    ],
)
async def test_what_cannot_be_divided_is_refused(
    ops: httpx.AsyncClient, change: dict[str, Any], kind: str
) -> None:
    refused = await post(ops, named("team:north", into="people") | change, 422)

    assert refused["type"] == f"urn:pacesetter:problem:{kind}"


# Roll-up


async def test_parts_are_held_against_the_whole(company: World, ops: httpx.AsyncClient) -> None:
    await company.apply(person(2, version=2, joined=date(2026, 11, 16)))
    await put(
        ops,
        revenue("team:all-sales", "1000"),
        revenue("team:south", "600"),
        revenue("person:p1", "300"),
        revenue("person:p2", "300", proration="days"),
        revenue("person:p3", "999"),
        revenue("person:p4", "7", unit="USD"),
    )
    found = await get(ops, "/v1/goals/roll-up", **named("team:all-sales"))
    north = await get(ops, "/v1/goals/roll-up", **named("team:north"))

    assert [(p["subject"], p["target"]) for p in found["parts"]] == [
        ("team:north", "450.00"),
        ("team:south", "600.00"),
    ]
    assert (found["assigned"], found["covered"]) == ("1050.00", "1.0500")
    assert (found["over_assigned"], found["gap"]) == ("50.00", "0.00")
    assert (north["target"], north["assigned"], north["gap"]) == (None, "450.00", None)


# Import


async def test_a_file_sets_goals(ops: httpx.AsyncClient) -> None:
    text = (
        "subject,metric,period,target,unit,seasonality,ramp,reason\r\n"
        f"person:p1,revenue_won,{QUARTER},1200.50,,1 2 3,0.5 0.75,plan\r\n"
        f'person:p2,revenue_won,{QUARTER},900,USD,,,"plan, later"\r\n'
    )
    stored = await send(ops, b"\xef\xbb\xbf" + text.encode())
    goals = (await get(ops, "/v1/goals"))["goals"]

    assert stored == {"stored": 2}
    assert [(g["target"], g["unit"], g["reason"]) for g in goals] == [
        ("1200.50", "EUR", "plan"),
        ("900", "USD", "plan, later"),
    ]
    assert (goals[0]["seasonality"], goals[0]["ramp"]) == (["1", "2", "3"], ["0.5", "0.75"])


async def test_a_file_with_a_mistake_sets_nothing_and_says_where(ops: httpx.AsyncClient) -> None:
    await put(ops, revenue("person:p3"))
    lines = [
        "subject,metric,period,target,proration",
        f"person:p1,revenue_won,{NOVEMBER},100,",
        f"person:p2,revenue_won,{NOVEMBER},a lot,",
        f"person:p2,nonsense,{NOVEMBER},1,",
        "person:p2,revenue_won,month:2026-11-02,1,",
        f"person:p2,revenue_won,{NOVEMBER},,",
        f"person:p2,revenue_won,{NOVEMBER},1,weeks",
        f"person:p3,revenue_won,{NOVEMBER},1,",
        f"person:p1,revenue_won,{NOVEMBER},100,",
    ]
    refused = await send(ops, "\n".join(lines), 422)

    assert [error["line"] for error in refused["errors"]] == [3, 4, 5, 6, 7, 8, 9]
    what = [error["what"] for error in refused["errors"]]
    for part, complaint in zip(
        ("target", "no metric", "doesn't start", "target", "proration", "reason", "twice"),
        what,
        strict=True,
    ):
        assert part in complaint
    assert list(await targets(ops)) == [("person:p3", NOVEMBER)]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"\xff\xfe", 400),
        (b"subject,colour\nperson:p1,red\n", 400),
        (b"subject,metric\nperson:p1\n", 400),
        (b'subject,metric,period,target\n"person:p1', 400),
        (b"subject,metric,period,target\n", 422),
        (b"subject,metric,period,target\n" + b",,,1\n" * 2001, 413),
    ],
)
async def test_what_is_no_file_of_goals_is_refused(
    ops: httpx.AsyncClient, body: bytes, status: int
) -> None:
    refused = await send(ops, body, status)

    assert refused["detail"]


# Who may do what

ALLOCATE = named("team:north", into="people", total="5")
SET = [
    ("finance", "", revenue("org:all"), 200),
    ("finance", "", revenue("territory:west"), 200),
    ("manager", "p4", revenue("person:p1"), 200),
    ("manager", "p4", revenue("person:p4"), 403),
    ("manager", "p4", revenue("role:rep"), 403),
    ("manager", "p4", revenue("territory:west"), 403),
    ("rep", "p1", revenue("person:p1"), 403),
]


@pytest.mark.parametrize(("role", "who", "goal", "status"), SET)
async def test_managers_set_goals_below_them_finance_sets_all(
    company: World, role: str, who: str, goal: dict[str, Any], status: int
) -> None:
    async with company.client(bearer(role, person=who)) as client:
        await put(client, goal, status=status)


async def test_dividing_needs_the_right_to_set_every_part(company: World) -> None:
    own = {"by": "weights", "weights": {"person:p1": 1, "person:p4": 1}}
    async with company.client(bearer("manager", person="p4")) as client:
        await post(client, ALLOCATE, apply=True)
        await post(client, ALLOCATE | {"subject": "team:all-sales"} | own, 403)
        await post(client, ALLOCATE | {"subject": "org:all"}, 403)
    for role, who in (("manager", "p1"), ("rep", "p1")):
        async with company.client(bearer(role, person=who)) as client:
            await post(client, ALLOCATE, 403)


@pytest.mark.parametrize(
    ("role", "who", "subject", "status"),
    [
        ("rep", "p1", "team:north", 403),
        ("rep", "p1", "org:all", 403),
        ("manager", "p4", "team:north", 200),
        ("manager", "p4", "org:all", 403),
        ("finance", "", "org:all", 200),
    ],
)
async def test_the_goals_of_others_are_added_up_for_their_managers(
    company: World, role: str, who: str, subject: str, status: int
) -> None:
    async with company.client(bearer(role, person=who)) as client:
        answer = await client.get("/v1/goals/roll-up", params=named(subject))
    assert answer.status_code == status, answer.text


async def test_a_history_is_for_those_who_see_the_goal(
    company: World, ops: httpx.AsyncClient
) -> None:
    await put(ops, revenue("person:p1"))
    for who, status in (("p1", 200), ("p2", 403)):
        async with company.client(bearer("rep", person=who)) as client:
            answer = await client.get("/v1/goals/history", params=named())
            assert answer.status_code == status


@pytest.mark.parametrize(("role", "status"), [("manager", 403), ("finance", 200)])
async def test_goals_are_for_those_who_see_their_metric(
    company: World, ops: httpx.AsyncClient, role: str, status: int
) -> None:
    costs = {"metric": "cost_of_deals"}
    await put(ops, revenue("team:north") | costs, revenue("person:p1"))
    async with company.client(bearer(role, person="p4")) as client:
        listed = (await client.get("/v1/goals")).json()["goals"]
        for path in ("history", "course", "roll-up"):
            asked = await client.get(f"/v1/goals/{path}", params=named("team:north") | costs)
            assert asked.status_code == status, path
        last_year = {"into": "people", "by": "last_year", "total": "9"}
        await post(client, named("team:north") | costs | last_year, 403 if status == 403 else 422)

    assert ("cost_of_deals" in {goal["metric"] for goal in listed}) is (status == 200)
