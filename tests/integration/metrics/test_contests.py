"""Contests from start to result, over the real store and a clock that the test sets."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
import yaml

from schemas.spm import BoardDocument, ContestState
from services.metrics.domain.catalogue import parse
from services.metrics.settings import Settings
from services.metrics.store.context import Context
from services.metrics.store.evidence import sums
from tests.integration.metrics.world import World, call, small_company, won
from tests.support import TENANT, bearer

CONTEST: dict[str, Any] = {
    "title": "Blitz",
    "starts": "2026-11-03T09:00",  # in Berlin: 8 UTC
    "ends": "2026-11-03T17:00",
    "grace": "PT1H",
    "metrics": [{"metric": "calls_made", "points": 1}],
    "prizes": [100, 50],
}


class Clock:
    """The business time."""

    def __init__(self) -> None:
        self.at("2026-11-03T07:00")

    def at(self, text: str) -> None:
        self.now = datetime.fromisoformat(text).replace(tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("services.metrics.app.clock.load", lambda _: clock)
    return clock


@pytest.fixture
async def company(clock: Clock, world: World) -> World:
    assert clock().year == 2026
    await world.apply(*small_company())
    return world


@pytest.fixture
async def ops(company: World) -> AsyncIterator[httpx.AsyncClient]:
    async with company.client(bearer("ops")) as client:
        yield client


async def begin(ops: httpx.AsyncClient, **changes: Any) -> None:
    answer = await ops.put("/v1/contests/blitz", json=CONTEST | changes)
    assert answer.status_code == 200, answer.text


async def calls(world: World, *made: tuple[int, str], first: int = 1) -> None:
    """A call of a person at a time of 3 November, UTC."""
    await world.apply(
        *(
            call(f"crm:{number}", owner_id=who, occurred_at=f"2026-11-03T{at}:00Z")
            for number, (who, at) in enumerate(made, start=first)
        )
    )
    await world.settle()


async def shown(client: httpx.AsyncClient, **asked: Any) -> Any:
    answer = await client.get("/v1/contests/blitz", params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


def standing(contest: Any, *more: str) -> list[Any]:
    rows = [row for row in contest["rows"] if row["place"] is not None]
    return [
        (row["place"], row["subject"][7:], row["score"], *(row.get(name) for name in more))
        for row in rows
    ]


def states(world: World) -> list[ContestState]:
    return [state for state in world.outbox.states if isinstance(state, ContestState)]


async def step(world: World) -> ContestState:
    """The referee looks, rested."""
    referee = next(job for job in world.service.jobs if job.name == "contests").run.__self__  # type: ignore[attr-defined]
    referee._resting.clear()
    await world.job("contests")
    return states(world)[-1]


async def test_a_contest_from_start_to_result(
    company: World, clock: Clock, ops: httpx.AsyncClient
) -> None:
    await begin(ops)
    assert (await step(company)).phase == "scheduled"
    await calls(company, (1, "07:59"), (1, "08:00"), (2, "09:00"), (2, "09:30"), (3, "15:59"))
    clock.at("2026-11-03T10:00")
    running = await step(company)
    assert (running.phase, running.leaders) == ("running", ["person:p2"])
    assert standing(await shown(ops)) == [(1, "p2", "2"), (2, "p1", "1"), (2, "p3", "1")]
    await calls(company, (1, "10:10"), (1, "10:20"), (1, "16:00"), first=20)
    clock.at("2026-11-03T12:30")
    assert (await step(company)).leaders == ["person:p1"]

    clock.at("2026-11-03T16:30")
    assert (await step(company)).phase == "grace"
    await calls(company, (2, "15:00"), first=30)  # late, and counts
    clock.at("2026-11-03T17:00")
    final = await step(company)
    assert final.result is not None
    assert [a.id for a in final.announcements] == ["start", "halfway", "lead-1", "end"]
    assert final.announcements[-1].text == "Blitz is over: Person 1 and Person 2 won."
    ended = await shown(ops)
    assert standing(ended, "prize") == [
        (1, "p1", "3", "75.00"),
        (1, "p2", "3", "75.00"),
        (3, "p3", "1", None),
    ]
    assert ended["result"]["credits"] == 7

    await calls(company, (3, "15:00"), (3, "15:01"), (3, "15:02"), first=40)  # too late
    await step(company)
    assert await shown(ops) == ended
    assert len([s for s in states(company) if s.result is not None]) == 1


async def test_a_result_says_whether_it_would_be_another_one_now(
    company: World, clock: Clock, ops: httpx.AsyncClient
) -> None:
    await begin(ops)
    await calls(company, (1, "09:00"), (1, "09:30"), (2, "10:00"))
    assert (await ops.get("/v1/contests/blitz/check")).status_code == 409
    clock.at("2026-11-03T20:00")
    result = (await step(company)).result
    assert result is not None
    same = (await ops.get("/v1/contests/blitz/check")).json()
    await calls(company, (2, "11:00"), (2, "11:30"), first=10)
    other = (await ops.get("/v1/contests/blitz/check")).json()

    assert (same["would_differ"], same["input_changed"]) == (False, False)
    assert (same["input"], same["outcome"], same["rows"]) == (result.input, result.outcome, [])
    assert (other["would_differ"], other["input_changed"], other["credits"]) == (True, True, 5)
    assert [(r["place"], r["subject"]) for r in other["rows"]] == [
        (1, "person:p2"),
        (2, "person:p1"),
    ]
    assert standing(await shown(ops)) == [(1, "p1", "2"), (2, "p2", "1")]


async def test_a_final_contest_stays(company: World, clock: Clock, ops: httpx.AsyncClient) -> None:
    await begin(ops)
    clock.at("2026-11-03T20:00")
    await step(company)

    again = await ops.put("/v1/contests/blitz", json=CONTEST | {"title": "Other"})
    assert (again.status_code, (await ops.delete("/v1/contests/blitz")).status_code) == (409, 409)


async def test_a_contest_that_is_called_off_is_gone(
    company: World, clock: Clock, ops: httpx.AsyncClient
) -> None:
    await begin(ops)
    clock.at("2026-11-03T09:00")
    await step(company)
    assert (await ops.delete("/v1/contests/blitz")).status_code == 204

    assert states(company)[-1].deleted
    assert (await ops.get("/v1/contests/blitz")).status_code == 404
    assert (await ops.delete("/v1/contests/blitz")).status_code == 404


async def test_whole_days_are_read_from_counters_with_the_same_outcome(
    company: World, clock: Clock, ops: httpx.AsyncClient
) -> None:
    whole = {"starts": "2026-11-02T00:00", "ends": "2026-11-04T00:00", "ties": "first"}
    await begin(ops, **whole)
    await calls(company, (1, "00:30"), (1, "22:59"), (2, "12:00"), (2, "13:00"), (3, "23:00"))
    clock.at("2026-11-03T23:30")
    before = standing(await shown(ops), "reached_at")
    assert [row[:3] for row in before] == [(1, "p2", "2"), (2, "p1", "2")]
    clock.at("2026-11-04T00:00")
    await step(company)

    assert standing(await shown(ops), "reached_at") == before
    assert (await shown(ops))["phase"] == "final"


async def test_a_race_and_an_elimination(
    company: World, clock: Clock, ops: httpx.AsyncClient
) -> None:
    await calls(company, (1, "09:00"), (1, "10:00"), (1, "15:00"), (2, "08:10"), (2, "08:20"),
                (3, "08:30"))  # fmt: skip
    clock.at("2026-11-03T15:30")
    await begin(ops, mode="race", goal=2)
    race = standing(await shown(ops))
    rounds = [
        {"ends": "2026-11-03T12:00", "eliminate": 2},
        {"ends": "2026-11-03T17:00", "eliminate": 1},
    ]
    await begin(ops, mode="elimination", rounds=rounds)
    elimination = await shown(ops)

    assert race == [(1, "p2", "2"), (2, "p1", "3"), (3, "p3", "1")]
    assert standing(elimination) == [(1, "p1", "3"), (2, "p2", "2"), (3, "p3", "1")]
    assert {r["subject"][7:]: r.get("left_in") for r in elimination["rows"]} == {
        "p1": None, "p2": None, "p3": 1, "p4": 1
    }  # fmt: skip


async def test_a_board_may_be_about_a_contest(
    company: World, clock: Clock, ops: httpx.AsyncClient
) -> None:
    await begin(ops)
    await calls(company, (1, "09:00"), (1, "17:00"), (2, "07:00"))
    clock.at("2026-11-03T12:00")
    board = {"title": "B", "metric": "calls_made", "contest": "blitz"}
    assert (await ops.put("/v1/boards/mine", json=board)).status_code == 200
    found = (await ops.get("/v1/boards/mine")).json()

    assert found["period"] == "contest:blitz"
    assert [(r["rank"], r["subject"], r["value"]) for r in found["rows"]][:2] == [
        (1, "person:p1", "1"),
        (None, "person:p2", None),
    ]
    await ops.delete("/v1/contests/blitz")
    assert (await ops.get("/v1/boards/mine")).status_code == 404


async def test_peers_see_places_where_the_metric_is_not_theirs_to_see(
    company: World, clock: Clock, ops: httpx.AsyncClient
) -> None:
    document = (await ops.get("/v1/metrics/calls_made")).json()["document"]
    document = {k: v for k, v in document.items() if v not in (None, "")}
    hidden = document | {"visibility": "managers"}
    assert (await ops.put("/v1/metrics/calls_made?reason=r", json=hidden)).status_code == 200
    await begin(ops)
    await calls(company, (1, "09:00"), (2, "09:00"))
    clock.at("2026-11-03T12:00")
    async with company.client(bearer("rep", person="p1")) as rep:
        seen = await shown(rep)
        near = await shown(rep, around="person:p1", rows=0)

    assert standing(seen) == [(1, "p1", "1"), (1, "p2", None)]
    assert [row["values"] for row in seen["rows"][:2]] == [
        {"calls_made": "1"},
        {"calls_made": None},
    ]
    assert standing(near) == [(1, "p1", "1")]
    assert standing(await shown(ops)) == [(1, "p1", "1"), (1, "p2", "1")]


async def test_states_are_kept_by_their_newest_version(
    company: World, clock: Clock, ops: httpx.AsyncClient
) -> None:
    await begin(ops)
    await calls(company, (1, "09:00"))
    clock.at("2026-11-03T20:00")
    final = await step(company)
    await company.apply(*reversed(states(company)))
    await company.apply(*[s for s in company.outbox.states if isinstance(s, BoardDocument)])

    assert final.result is not None
    assert (await shown(ops))["result"]["input"] == final.result.input
    published = len(states(company))
    await step(company)
    assert len(states(company)) == published


async def test_who_may_write_and_check(company: World, ops: httpx.AsyncClient) -> None:
    await begin(ops)
    async with company.client(bearer("manager", person="p4")) as manager:
        assert (await manager.put("/v1/contests/x", json=CONTEST)).status_code == 403
        assert (await manager.delete("/v1/contests/blitz")).status_code == 403
        assert (await manager.get("/v1/contests/blitz/check")).status_code == 403
        assert (await manager.get("/v1/contests/blitz")).status_code == 200
    async with company.client(bearer("ops", tenant="rival")) as rival:
        assert (await rival.get("/v1/contests/blitz")).status_code == 404
        assert (await rival.get("/v1/contests")).json() == {"contests": []}


async def test_money_is_counted_in_the_contests_currency(
    company: World, clock: Clock, ops: httpx.AsyncClient
) -> None:
    await begin(ops, metrics=[{"metric": "revenue_won", "points": "0.1"}], currency="USD")
    await company.apply(
        won("crm:1", owner_id=1, amount="70", currency="USD", closed_at="2026-11-03T10:00:00Z"),
        won("crm:2", owner_id=2, amount="900", closed_at="2026-11-03T10:00:00Z"),
    )
    await company.settle()
    clock.at("2026-11-03T12:00")

    assert standing(await shown(ops), "values") == [(1, "p1", "7", {"revenue_won": "70.00"})]


@pytest.mark.parametrize("kind", ["person", "team"])
async def test_parts_of_days_count_shared_records_as_whole_days_do(
    company: World, kind: str
) -> None:
    await company.apply(
        won("crm:1", shares="1=60;2=40"),  # both of the north
        won("crm:2", amount="33.33", shares="1=50;3=50"),
        won("crm:3", owner_id=2),
        won("crm:4", shares="1=50;9=50"),  # nobody is owner 9
    )
    await company.settle()
    day = int(datetime(2026, 11, 2, tzinfo=ZoneInfo("Europe/Berlin")).timestamp())
    asked = {"revenue_won": "EUR", "deals_won": "count"}
    async with company.service.database.transaction() as transaction:
        catalogue = parse(yaml.safe_load(Settings().catalogue.read_text()))
        context = Context(catalogue, ())
        calendar = (await context.directory_of(transaction, TENANT)).calendar
        whole, part = [
            await sums(transaction, TENANT, catalogue, asked, span, kind, calendar)
            for span in ((day, day + 86_400), (day + 1, day + 86_400))
        ]
    assert part == whole
    assert whole["revenue_won"]
