"""Boards over the real store: windows, ties, privacy, definitions by API."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import pytest

from schemas.spm import BoardDocument, Goal
from services.metrics.store.slices import Slices
from tests.integration.metrics.world import World, call, organisation, small_company, won
from tests.support import TENANT, bearer

BOARD = {"title": "Mine", "metric": "deals_won", "grain": "month"}


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2026, 11, 3, 12, tzinfo=UTC)
    monkeypatch.setattr("services.metrics.app.clock.load", lambda _: lambda: now)


@pytest.fixture
async def company(world: World) -> World:
    """Deals won: person 1 two this month and one in October, person 2 two, person 3 one."""
    await world.apply(
        *small_company(),
        won("crm:1", owner_id=1, closed_at="2026-11-02T10:00:00Z"),
        won("crm:2", owner_id=1, closed_at="2026-11-03T08:00:00Z"),
        won("crm:3", owner_id=1, closed_at="2026-10-02T10:00:00Z"),
        won("crm:4", owner_id=2, closed_at="2026-11-01T10:00:00Z"),
        won("crm:5", owner_id=2, closed_at="2026-11-02T12:00:00Z"),
        won("crm:6", owner_id=3, closed_at="2026-10-30T12:00:00Z"),
        call("crm:7", owner_id=3),
    )
    await world.settle()
    return world


@pytest.fixture
async def ops(company: World) -> AsyncIterator[httpx.AsyncClient]:
    async with company.client(bearer("ops")) as client:
        yield client


async def a_board(ops: httpx.AsyncClient, asked: Any = None, **definition: Any) -> Any:
    answer = await ops.put("/v1/boards/mine", json=BOARD | definition)
    assert answer.status_code == 200, answer.text
    answer = await ops.get("/v1/boards/mine", params=asked or {})
    assert answer.status_code == 200, answer.text
    return answer.json()


def ranked(board: Any, *more: str) -> list[Any]:
    rows = [row for row in board["rows"] if row["rank"] is not None]
    return [(row["rank"], row["subject"][7:], *(row.get(name) for name in more)) for row in rows]


@pytest.mark.parametrize(
    ("definition", "period", "expected"),
    [
        ({}, "month:2026-11-01", [(1, "p1", "2"), (1, "p2", "2")]),
        ({"grain": None, "rolling_days": 5}, "range:2026-10-30..2026-11-03",
         [(1, "p1", "2"), (1, "p2", "2"), (3, "p3", "1")]),
        ({"grain": None, "dates": "2026-10-02..2026-11-02"}, "range:2026-10-02..2026-11-02",
         [(1, "p1", "2"), (1, "p2", "2"), (3, "p3", "1")]),
        ({"grain": None, "rolling_days": 90}, "range:2026-08-06..2026-11-03",
         [(1, "p1", "3"), (2, "p2", "2"), (3, "p3", "1")]),
        ({"scope": {"teams": ["south"]}, "grain": "year"}, "year:2026-01-01", [(1, "p3", "1")]),
    ],
)  # fmt: skip
async def test_a_board_adds_up_its_window(
    ops: httpx.AsyncClient, definition: Any, period: str, expected: Any
) -> None:
    board = await a_board(ops, **definition)

    assert board["period"] == period
    assert ranked(board, "value") == expected


async def test_improvement_compares_with_the_same_days_of_the_past(ops: httpx.AsyncClient) -> None:
    to_date = await a_board(ops, rank_by="improvement", improvement="difference")
    whole = await a_board(ops, rank_by="improvement", improvement="difference", compare="whole")

    assert ranked(to_date, "score") == [(1, "p1", "1")]  # until 3 October: one deal
    assert to_date["compared_with"] == "range:2026-10-01..2026-10-03"
    assert whole["compared_with"] == "month:2026-10-01"


async def test_who_was_first_is_read_from_the_records_of_the_tied(
    company: World, ops: httpx.AsyncClient
) -> None:
    board = await a_board(ops, ties="first", since="week")
    assert ranked(board, "reached_at") == [
        (1, "p2", "2026-11-02T12:00:00+00:00"),
        (2, "p1", "2026-11-03T08:00:00+00:00"),
    ]
    await company.apply(won("crm:4", owner_id=2, version=2, closed_at="2026-11-03T09:00:00Z"))
    await company.settle()
    again = (await ops.get("/v1/boards/mine")).json()

    assert ranked(again, "reached_at")[0] == (1, "p1", "2026-11-03T08:00:00+00:00")


async def test_points_and_targets_are_read_with_their_units(ops: httpx.AsyncClient) -> None:
    goal = {"subject": "person:p2", "metric": "revenue_won", "period": "month:2026-11-01"}
    assert (await ops.put("/v1/goals", json=[goal | {"target": 100, "reason": "r"}])).is_success
    points = {"calls_made": 5, "revenue_won": "0.01"}
    board = await a_board(ops, metric="", rank_by="points", points=points)
    attained = await a_board(ops, metric="revenue_won", rank_by="attainment")

    assert ranked(board, "value") == [(1, "p3", "5"), (2, "p1", "2"), (2, "p2", "2")]
    assert ranked(attained, "attainment") == [(1, "p2", "2.0000")]


async def test_around_me_and_bands(ops: httpx.AsyncClient) -> None:
    asked = {"around": "person:p2", "rows": 1}
    board = await a_board(ops, asked, grain="year", bands="quarter")
    assert [row["subject"] for row in board["rows"]] == ["person:p1", "person:p2", "person:p3"]
    assert board["total"] == 4


async def hide(ops: httpx.AsyncClient, metric: str = "revenue_won") -> None:
    entry = (await ops.get(f"/v1/metrics/{metric}")).json()["document"]
    document = {k: v for k, v in entry.items() if v not in (None, "")} | {"visibility": "managers"}
    answer = await ops.put(f"/v1/metrics/{metric}?reason=private", json=document)
    assert answer.status_code == 200, answer.text


async def test_peers_see_their_own_numbers_and_everybodys_places(
    company: World, ops: httpx.AsyncClient
) -> None:
    await hide(ops)
    async with (
        company.client(bearer("rep", person="p1")) as one,
        company.client(bearer("rep", person="p2")) as other,
        company.client(bearer("manager", person="p4")) as manager,
    ):
        answers = [await c.get("/v1/boards/revenue-month") for c in (one, other, manager)]
    boards = [answer.json() for answer in answers]

    assert [ranked(board, "value") for board in boards] == [
        [(1, "p1", "200.00"), (1, "p2", None)],
        [(1, "p1", None), (1, "p2", "200.00")],
        [(1, "p1", "200.00"), (1, "p2", "200.00")],
    ]
    assert len({answer.headers["etag"] for answer in answers}) == 3


async def test_a_team_is_not_ones_own_where_its_numbers_are_hidden(
    company: World, ops: httpx.AsyncClient
) -> None:
    """In a team of two it would tell the other one's number."""
    await hide(ops)
    teams = BOARD | {"metric": "revenue_won", "subjects": "team"}
    put = await ops.put("/v1/boards/mine", json=teams)
    async with company.client(bearer("rep", person="p1")) as one:
        board = (await one.get("/v1/boards/mine")).json()

    assert put.status_code == 200, put.text
    assert {row["value"] for row in board["rows"]} == {None}


async def test_boards_are_written_listed_and_removed(ops: httpx.AsyncClient) -> None:
    assert (await a_board(ops))["title"] == "Mine"
    same = await ops.put("/v1/boards/mine", content="title: Mine\nmetric: deals_won\ngrain: month")
    listed = {b["id"]: b for b in (await ops.get("/v1/boards")).json()["boards"]}

    assert (same.status_code, listed["mine"]["origin"]) == (200, "own")
    assert listed["revenue-month"]["origin"] == "shipped"
    assert (await ops.put("/v1/boards/calls-day", json=BOARD)).json()["origin"] == "changed"
    assert (await ops.delete("/v1/boards/calls-day")).status_code == 204
    assert (await ops.delete("/v1/boards/mine")).status_code == 204
    assert (await ops.delete("/v1/boards/mine")).status_code == 404
    gone = await ops.get("/v1/boards/mine")
    assert (gone.status_code, gone.json()["type"]) == (404, "urn:pacesetter:problem:unknown-board")
    assert (await ops.get("/v1/boards/calls-day")).json()["metric"] == "calls_made"


async def test_a_board_that_makes_no_sense_is_refused_with_all_reasons(
    company: World, ops: httpx.AsyncClient
) -> None:
    wrong = BOARD | {"metric": "deals_one", "limit": 0}
    answer = await ops.put("/v1/boards/mine", json=wrong)
    linted = await ops.post("/v1/boards/lint", json=wrong | {"id": "mine"})

    assert answer.status_code == 422
    assert [m["where"] for m in answer.json()["mistakes"]] == ["metric", "limit"]
    assert [m["where"] for m in linted.json()["mistakes"]] == ["metric", "limit"]
    for body in (b"\x00", b"[1", b"x", b"- 1", b"\xff", b"id: other"):
        assert (await ops.put("/v1/boards/mine", content=body)).status_code == 422
    async with company.client(bearer("manager", person="p4")) as manager:
        assert (await manager.put("/v1/boards/mine", json=BOARD)).status_code == 403


async def test_a_board_on_the_topic_is_kept_by_its_newest_version(
    company: World, ops: httpx.AsyncClient
) -> None:
    await a_board(ops)
    published = [s for s in company.outbox.states if isinstance(s, BoardDocument)]
    older = BoardDocument(tenant=TENANT, version=1, kind="board", id="mine", document={})
    await company.apply(*published, older)

    assert [s.document["title"] for s in published] == ["Mine"]
    assert (await ops.get("/v1/boards/mine")).json()["title"] == "Mine"


async def test_another_tenants_boards_are_not_seen(company: World, ops: httpx.AsyncClient) -> None:
    await a_board(ops)
    async with company.client(bearer("ops", tenant="rival")) as rival:
        assert (await rival.get("/v1/boards/mine")).status_code == 404


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("goal", [("p1", "200.00", None), ("p2", "200.00", "2.0000"), ("p3", "100.00", None)]),
        ("calendar", [("p1", "200.00", None), ("p2", "200.00", None), ("p3", "100.00", None)]),
        ("board", [("p1", "2", None), ("p2", "2", None), ("p3", "1", None)]),
    ],
)
async def test_what_changes_while_a_board_is_computed_is_on_it(
    company: World,
    ops: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
    expected: Any,
) -> None:
    """Between its directory and its numbers; a board of before would stay until numbers move."""
    await a_board(ops, metric="revenue_won")
    read, changes = Slices.read, iter([change])

    async def late(slices: Slices, *arguments: Any) -> Any:
        match next(changes, ""):
            case "goal":
                await company.apply(a_goal())
            case "calendar":
                await company.apply(organisation(version=2, zone="Pacific/Auckland"))
            case "board":
                document = BOARD | {"id": "mine", "metric": "deals_won"}
                await company.apply(
                    BoardDocument(
                        tenant=TENANT, version=2**62, kind="board", id="mine", document=document
                    )
                )
        return await read(slices, *arguments)

    monkeypatch.setattr(Slices, "read", late)
    await company.apply(won("crm:9", owner_id=3, closed_at="2026-11-02T10:00:00Z"))
    for _ in range(2):
        rows = (await ops.get("/v1/boards/mine")).json()["rows"]
        found = [(row["subject"][7:], row["value"], row["attainment"]) for row in rows]
        assert found[: len(expected)] == expected
    assert not list(changes)


def a_goal() -> Goal:
    return Goal(
        tenant=TENANT,
        version=1,
        subject="person:p2",
        metric="revenue_won",
        period="month:2026-11-01",
        unit="EUR",
        target=Decimal(100),
    )
