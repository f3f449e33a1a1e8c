"""The TV page on the real API; tests/e2e/test_board_page.py has everything else about it."""

from datetime import UTC, datetime

import pytest
from playwright.async_api import expect

from tests.integration.metrics.test_streams import serving
from tests.integration.metrics.world import World, small_company, won
from tests.support import bearer
from tests.support.board import Stage, a_row
from tests.support.browser import complaints, launched


@pytest.fixture(autouse=True)
def today(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2026, 11, 3, 12, tzinfo=UTC)
    monkeypatch.setattr("services.metrics.app.clock.load", lambda _: lambda: now)


async def sell(world: World, number: str, owner_id: int) -> None:
    await world.apply(won(number, owner_id=owner_id))
    await world.settle()
    await world.job("boards")


async def test_a_deal_moves_a_row_on_the_screen(world: World) -> None:
    await world.apply(*small_company())
    await sell(world, "crm:1", owner_id=1)
    token = bearer("rep", person="p1")["Authorization"].removeprefix("Bearer ")

    async with serving(world) as (address, _), launched() as browser:
        page = await browser.new_page(locale="en-GB")
        found = complaints(page)
        await page.goto(f"{address}/tv/revenue-month?token={token}")
        rows = page.locator("#rows tr")
        await expect(rows).to_have_count(4)
        await expect(rows.first).to_have_attribute("data-subject", "person:p1")
        await expect(rows.first.locator(".amount")).to_have_text("€100.00")
        heads = await page.locator("thead th").all_inner_texts()
        await expect(page.locator("thead .gap")).to_be_hidden()  # nobody has one to close yet

        await sell(world, "crm:2", owner_id=2)
        await sell(world, "crm:3", owner_id=2)

        await expect(rows.first).to_have_attribute("data-subject", "person:p2")
        await expect(rows.first.locator(".amount")).to_have_text("€200.00")
        await page.close()

    assert heads[4:] == ["Revenue won", "To next", "Deals won", "Calls made"]
    assert found == []


async def test_the_stand_in_speaks_like_the_api(world: World) -> None:
    await world.apply(*small_company())
    async with world.client(bearer("rep", person="p1")) as client:
        board = (await client.get("/v1/boards/revenue-month")).json()
        listed = (await client.get("/v1/boards")).json()["boards"][0]
    stand_in = Stage([a_row(1, "Ada Lovelace", "1.00")])

    assert stand_in._snapshot().keys() == board.keys()
    assert a_row(1, "Ada Lovelace", "1.00").keys() == board["rows"][0].keys()
    assert {"id", "title", "metric", "metric_title", "grain", "columns"} <= listed.keys()
    assert listed["columns"][0].keys() == {"id", "title", "unit"}
