"""Who a subject is, who belongs to it, and the way to a goal, over HTTP."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from schemas.directory import Assignment, Membership, Role, Territory
from schemas.spm import Goal
from tests.integration.metrics.world import World, organisation, person, small_company
from tests.support import TENANT, bearer

NOVEMBER = "month:2026-11-01"


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2026, 11, 3, 12, tzinfo=UTC)
    monkeypatch.setattr("services.metrics.app.clock.load", lambda _: lambda: now)


@pytest.fixture
async def company(world: World) -> World:
    await world.apply(*small_company())
    return world


async def asked(world: World, role: str, person: str, path: str, **params: str) -> httpx.Response:
    async with world.client(bearer(role, person=person)) as client:
        return await client.get(path, params=params)


async def subject(world: World, who: str, role: str = "ops", person: str = "", **more: str) -> Any:
    answer = await asked(world, role, person, "/v1/subjects", subject=who, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def names(found: list[dict[str, Any]]) -> list[str]:
    return [each["name"] for each in found]


async def test_a_person_is_below_teams(company: World) -> None:
    found = await subject(company, "person:p1", "rep", "p1")

    assert (found["name"], found["today"], found["zone"]) == (
        "Person 1",
        "2026-11-03",
        "Europe/Berlin",
    )
    assert [(team["name"], team["may_see"]) for team in found["above"]] == [
        ("North", True),
        ("All-Sales", False),
        ("Acme", True),
    ]
    assert found["people"] == found["teams"] == []
    assert found["may_open"]


async def test_a_team_has_people_and_teams(company: World) -> None:
    found = await subject(company, "team:north", "rep", "p1")
    assert [(p["subject"], p["may_see"]) for p in found["people"]] == [
        ("person:p1", True),
        ("person:p2", False),
    ]
    assert not found["may_open"]

    found = await subject(company, "team:all-sales", "manager", "p4")
    assert names(found["teams"]) == ["North", "South"]
    assert all(team["may_see"] for team in found["teams"])
    assert found["may_open"]


async def test_the_organisation_is_for_who_has_a_role_in_it(company: World) -> None:
    async with company.client(bearer(person="p1")) as client:
        own = (await client.get("/v1/subjects", params={"subject": "person:p1"})).json()
        answer = await client.get("/v1/subjects", params={"subject": "org:all"})
    assert [above["may_see"] for above in own["above"]] == [True, False, False]
    assert answer.status_code == 403


async def test_an_organisation_has_what_is_part_of_nothing_else(company: World) -> None:
    known: dict[str, Any] = {"tenant": TENANT, "version": 1}
    await company.apply(
        Territory(**known, id="world", name="World"),
        Territory(**known, id="lost", name="Lost", parent="nowhere"),
        Territory(**known, id="south", name="South", parent="world"),
        person(8),
        person(9, left=date(2026, 11, 1)),
        person(10),
        Membership(**known, id="m10", person="p10", team="dissolved"),
    )
    found = await subject(company, "org:all", "rep", "p1")

    assert (found["name"], found["above"]) == ("Acme", [])
    assert names(found["teams"]) == ["All-Sales"]
    assert names(found["territories"]) == ["Lost", "World"]
    assert [(p["name"], p["may_see"]) for p in found["people"]] == [
        ("Person 10", False),
        ("Person 8", False),
    ]
    assert not found["may_open"]
    assert (await subject(company, "org:all"))["may_open"]


async def test_territories_have_parts_and_people_look_after_them(company: World) -> None:
    def territory(name: str, parent: str = "") -> Territory:
        return Territory(tenant=TENANT, version=1, id=name, name=name.title(), parent=parent)

    await company.apply(
        *(territory("world"), territory("south", "world"), territory("north", "world")),
        territory("alps", "south"),
        Assignment(tenant=TENANT, version=1, id="a1", person="p1", territory="south"),
        person(1, version=2, role="closer"),
    )
    found = await subject(company, "territory:south", "rep", "p1")
    assert [(t["name"], t["may_see"]) for t in found["above"]] == [
        ("World", False),
        ("Acme", True),
    ]
    assert [(t["name"], t["may_see"]) for t in found["territories"]] == [("Alps", False)]
    assert not found["may_open"]
    assert names((await subject(company, "territory:world"))["territories"]) == ["North", "South"]

    own = (await subject(company, "person:p1", "rep", "p1"))["also"]
    assert own == [
        {"subject": "territory:south", "name": "South", "may_see": True},
        {"subject": "role:closer", "name": "closer", "may_see": False},
    ]
    assert all(each["may_see"] for each in (await subject(company, "person:p1"))["also"])


async def test_periods_are_those_of_the_calendar_around_the_day(company: World) -> None:
    await company.apply(organisation(version=2, week_start=6, fiscal_year_start=2))
    found = await subject(company, "org:all", day="2026-12-31")

    periods = found["periods"]
    assert periods["week"] == {
        "period": "week:2026-12-27",
        "start": "2026-12-27",
        "end": "2027-01-02",
    }
    assert periods["quarter"]["period"] == "quarter:2026-11-01"
    assert periods["year"]["end"] == "2027-01-31"
    assert (found["day"], found["today"]) == ("2026-12-31", "2026-11-03")


@pytest.mark.parametrize(
    ("role", "person", "who", "status"),
    [
        ("rep", "p1", "person:p2", 403),
        ("rep", "p1", "team:south", 403),
        ("manager", "p4", "person:p2", 200),
        ("ops", "", "person:nobody", 404),
        ("ops", "", "team:nowhere", 404),
        ("ops", "", "role:rep", 200),
        ("ops", "", "role:closer", 404),
        ("rep", "p1", "role:closer", 403),
        ("ops", "", "nonsense", 422),
    ],
)
async def test_who_may_know(company: World, role: str, person: str, who: str, status: int) -> None:
    answer = await asked(company, role, person, "/v1/subjects", subject=who)
    assert answer.status_code == status, answer.text
    course = {"subject": who, "metric": "calls_made", "period": NOVEMBER}
    answer = await asked(company, role, person, "/v1/goals/course", **course)
    assert answer.status_code == (404 if status == 200 else status)  # there is no goal


async def test_a_role_is_known_by_who_had_it_and_by_its_goals(company: World) -> None:
    goal = Goal(
        tenant=TENANT,
        version=1,
        subject="role:closer",
        metric="deals_won",
        period=NOVEMBER,
        target=Decimal(5),
        unit="count",
    )
    until = date(2020, 1, 1)
    former = Role(tenant=TENANT, version=1, id="r1", person="p1", role="SDR", valid_to=until)
    await company.apply(goal, former)
    for name in ("SDR", "closer"):
        assert (await subject(company, f"role:{name}"))["name"] == name


async def test_the_course_of_a_goal_leads_to_its_target(company: World) -> None:
    goal = Goal(
        tenant=TENANT,
        version=1,
        subject="person:p1",
        metric="revenue_won",
        period=NOVEMBER,
        target=Decimal(2100),
        unit="EUR",
        days="business",
    )
    await company.apply(goal)
    wanted = {"subject": "person:p1", "metric": "revenue_won", "period": NOVEMBER}
    course = (await asked(company, "rep", "p1", "/v1/goals/course", **wanted)).json()
    value = (await asked(company, "rep", "p1", "/v1/values", **wanted)).json()

    days = {each["day"]: each["expected"] for each in course["days"]}
    assert len(days) == 30
    assert days["2026-11-01"] == "0.00"  # a Sunday
    assert days["2026-11-02"] == value["expected"] == "100.00"  # 21 business days
    assert days["2026-11-30"] == value["effective_target"] == "2100.00"
    derived = wanted | {"metric": "win_rate"}
    assert (await asked(company, "rep", "p1", "/v1/goals/course", **derived)).status_code == 422
