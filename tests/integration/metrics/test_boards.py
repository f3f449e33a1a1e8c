"""Boards over the real store: windows, ties, privacy, definitions by API."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from schemas.directory import Directory
from schemas.spm import BoardDocument
from services.metrics.domain.numbers import Part
from services.metrics.store import counters
from services.metrics.store.slices import Key, Slices, added
from tests.integration.metrics.world import World, call, organisation, person, small_company, won
from tests.support import TENANT, bearer

# What folds tell: how many changed counters at most, and for how many seconds.
TOLD, FORGOTTEN, LARGE = (counters.MOST_CHANGES, 15.0), (counters.MOST_CHANGES, 0.0), (0, 15.0)
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


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.tuples(
            st.integers(1, 4),
            st.integers(0, 5),
            st.booleans(),
            st.sampled_from([TOLD, FORGOTTEN, LARGE]),
            st.booleans(),
        ),
        max_size=12,
    )
)
@example([(1, 0, False, TOLD, True), (2, 1, False, TOLD, False), (3, 2, False, FORGOTTEN, True)])
@example([(1, 3, False, TOLD, True), (2, 4, False, LARGE, False), (3, 5, False, TOLD, True)])
async def test_slices_brought_up_to_date_are_what_a_fresh_reading_gives(
    world: World, changes: list[tuple[int, int, bool, tuple[int, float], bool]]
) -> None:
    """Whatever changed, in however many folds, told of or too large, or forgotten by now."""
    await world.apply(*small_company())
    directory = Directory(TENANT, [organisation(), *(person(n) for n in (1, 2, 3, 4))])
    keys = [
        Key("calls_made", grain, date(2026, 11, 1), "count", kind)
        for grain, kind in (("month", "person"), ("month", "team"), ("day", "person"))
    ]
    kept = Slices()
    for version, (who, number, deleted, (most, seconds), read) in enumerate(changes, start=1):
        await world.apply(
            call(f"crm:{number}", owner_id=who, version=_next(world) + version, deleted=deleted)
        )
        with (
            patch.object(counters, "MOST_CHANGES", most),
            patch.object(counters, "CHANGES_SECONDS", seconds),
        ):
            await world.settle()
        if read:  # else it falls behind
            async with world.service.database.transaction() as transaction:
                one, updated = await kept.read(transaction, TENANT, directory, keys)
                other, fresh = await Slices().read(transaction, TENANT, directory, keys)
            assert (one, updated) == (other, fresh)


async def test_what_small_folds_tell_is_not_looked_for_among_all_counters(world: World) -> None:
    await world.apply(*small_company())
    directory = Directory(TENANT, [organisation(), *(person(n) for n in (1, 2))])
    key = Key("calls_made", "month", date(2026, 11, 1), "count", "person")
    kept = Slices()

    async def seen() -> dict[str, int]:
        async with world.service.database.transaction() as transaction:
            _, slices = await kept.read(transaction, TENANT, directory, [key])
        return {subject: part.value for subject, part in slices[key].items()}

    async def fold(number: int, telling: tuple[int, float]) -> None:
        await world.apply(call(f"crm:{number}", owner_id=1))
        with patch.object(counters, "MOST_CHANGES", telling[0]):
            await world.settle()

    await fold(1, TOLD)
    assert await seen() == {"person:p1": 1}
    await fold(2, TOLD)
    await world.fetch(
        "UPDATE counter SET value = 99 WHERE metric = 'calls_made' AND subject = 'person:p1'"
        " RETURNING 1"
    )
    assert await seen() == {"person:p1": 2}  # as it was told
    await fold(3, LARGE)
    assert await seen() == {"person:p1": 100}
    assert await world.fetch("SELECT count(*) FROM counter_change") == [(2,)]


def _next(world: World) -> int:
    """Versions beyond those of the examples before."""
    world.versions = getattr(world, "versions", 0) + 100  # type: ignore[attr-defined]
    return int(world.versions)  # type: ignore[attr-defined]


def test_slices_add_up() -> None:
    one, other = {"a": Part(2, 1), "b": Part(1, 1)}, {"a": Part(-2, -1), "b": Part(3, 2)}

    assert added([one, other]) == {"b": Part(4, 3)}
    assert added([one]) is one
    assert added([]) == {}
