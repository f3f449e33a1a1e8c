"""Close dates that slip: numbers, the records behind them, boards, corrections."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from schemas.crm import Field, Record
from tests.integration.metrics.world import World, small_company, won
from tests.support import bearer

SLIPPED = ("close_dates_slipped", "close_date_slip")


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2026, 11, 20, 12, tzinfo=UTC)
    monkeypatch.setattr("services.metrics.app.clock.load", lambda _: lambda: now)


def an_open(number: str, *days: int, owner_id: int = 1, version: int = 1, **more: Any) -> Record:
    """An open deal, to be closed on a day of December; said anew on each day of November."""
    record = won(number, owner_id=owner_id, version=version, status="open", **more)
    told = [
        Field("value", f"2026-12-{day:02}T12:00:00Z", _micros(f"2026-11-{on:02}T09:00:00Z"), "e")
        for on, day in enumerate(days, start=1)
    ]
    fields = record.fields | {"expected_close": told[-1]}
    return msgspec.structs.replace(record, fields=fields, expected_before=told[:-1])


def _micros(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1_000_000


async def said(world: World, subject: str, period: str = "month:2026-11-01") -> list[Any]:
    """Slips and seconds of a subject, and the records that are listed for each."""
    found: list[Any] = []
    async with world.client(bearer("ops")) as client:
        for metric in SLIPPED:
            asked = {"subject": subject, "metric": metric, "period": period}
            value = (await client.get("/v1/values", params=asked)).json()["value"]
            records = (await client.get("/v1/records", params=asked)).json()["records"]
            found += [value, [(each["id"], each["value"]) for each in records]]
    return found


async def test_slips_open_into_their_records_and_are_taken_back(world: World) -> None:
    await world.apply(
        *small_company(),
        an_open("crm:1", 1, 5, 4, 6),
        an_open("crm:2", 1, 3, owner_id=2),
        an_open("crm:3", 8, 2, owner_id=2),
    )
    await world.settle()

    days = [("crm:1", "345600"), ("crm:1", "172800")]
    assert await said(world, "person:p1") == ["2", [("crm:1", "1")] * 2, "518400", days]
    assert (await said(world, "person:p1", "day:2026-11-04"))[:2] == ["1", [("crm:1", "1")]]
    assert (await said(world, "team:north"))[::2] == ["3", "691200"]
    assert (await said(world, "person:p3"))[::2] == [None, None]

    # A late correction of the past: it was expected on the 5th from the beginning.
    await world.apply(an_open("crm:1", 5, 5, 4, 6, version=2), an_open("crm:2", 1, version=2))
    assert await said(world, "org:all") == ["1", [("crm:1", "1")], "172800", [days[1]]]


async def test_on_a_board_fewer_slips_are_better(world: World) -> None:
    await world.apply(
        *small_company(), an_open("crm:1", 1, 2, 3), an_open("crm:2", 1, 2, owner_id=2)
    )
    await world.settle()

    async with world.client(bearer("ops")) as client:
        board = {"title": "Kept dates", "metric": SLIPPED[0], "grain": "month"}
        assert (await client.put("/v1/boards/dates", json=board)).status_code == 200
        rows = (await client.get("/v1/boards/dates")).json()["rows"]
    ranked = [(row["rank"], row["subject"], row["value"]) for row in rows if row["value"]]
    assert ranked == [(1, "person:p2", "1"), (2, "person:p1", "2")]


async def test_a_company_counts_moves_in_its_own_way(world: World) -> None:
    brought_forward = {
        "id": "brought_forward",
        "title": "Brought forward",
        "level": "indicator",
        "unit": "count",
        "record": "opportunity",
        "where": {"moved_to": {"before": "moved_from"}},
        "placed_by": "moved_at",
    }
    history = [*small_company(), an_open("crm:1", 9, 5, 8, 7)]
    await world.apply(*history)
    async with world.client(bearer("ops")) as client:
        answer = await client.put("/v1/metrics/brought_forward?reason=new", json=brought_forward)
        assert answer.status_code == 200, answer.text
        await world.recounted(history)
        await world.settle()
        asked = {"subject": "person:p1", "metric": "brought_forward", "period": "day:2026-11-04"}
        assert (await client.get("/v1/values", params=asked)).json()["value"] == "1"
