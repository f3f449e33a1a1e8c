"""The screen on the wall: seen from far away, by nobody in particular, for weeks."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, CDPSession, Page, expect

from kit.auth import COOKIE
from tests.e2e.test_board_page import MOVING, TV, order, way_in
from tests.support.accessible import barriers
from tests.support.board import BOARD, Stage, a_row
from tests.support.browser import complaints

pytestmark = pytest.mark.asyncio(loop_scope="module")

OTHER = "calls-day"
IDLE_MS = 7_000
ROTATION = f"/tv/{BOARD}?boards={BOARD},gone,{OTHER}&every=5"


@pytest_asyncio.fixture(loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    rows = [
        a_row(place, f"N{place} Name", f"{90_000 - place * 1_000}.00") for place in range(1, 11)
    ]
    stage = Stage(rows, names=(BOARD, OTHER))
    async with stage.running():
        yield stage


@pytest_asyncio.fixture(loop_scope="module")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    context = await browser.new_context(viewport=TV, locale="en-GB")  # type: ignore[arg-type]  # a TypedDict
    yield context
    await context.close()


@pytest_asyncio.fixture(loop_scope="module")
async def page(context: BrowserContext) -> Page:
    return await context.new_page()


async def enter(page: Page, stage: Stage, path: str = f"/tv/{BOARD}") -> None:
    await page.goto(way_in(stage, path).replace("?token", "&token" if "?" in path else "?token"))
    await expect(page.locator("#rows tr")).to_have_count(len(stage.rows))


@pytest.mark.parametrize("scale", [1, 2])
async def test_ten_rows_fill_the_wall_and_are_read_from_far(
    browser: Browser, stage: Stage, scale: int
) -> None:
    size: Any = {"width": TV["width"] * scale, "height": TV["height"] * scale}
    context = await browser.new_context(viewport=size, locale="en-GB")
    page = await context.new_page()
    await enter(page, stage)

    heights = await page.locator("#rows tr").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().height / innerHeight)"
    )
    assert len(heights) == 10
    assert min(heights) >= 0.06
    assert await page.evaluate("document.documentElement.scrollHeight - innerHeight") <= 0
    assert await barriers(page) == []
    await context.close()


async def test_only_the_board_is_left_until_someone_moves(page: Page, stage: Stage) -> None:
    await page.clock.install()
    await enter(page, stage)

    await page.clock.run_for(IDLE_MS)
    await expect(page.locator("#switcher")).to_have_css("opacity", "0")
    await expect(page.locator("#state")).to_have_css("opacity", "1")
    await page.mouse.move(10, 10)
    await expect(page.locator("#switcher")).to_have_css("opacity", "1")


async def test_boards_take_turns_and_one_that_is_gone_is_passed_over(
    page: Page, stage: Stage
) -> None:
    await page.clock.install()
    await enter(page, stage, ROTATION)
    assert page.url == f"{stage.address}/tv/{BOARD}?boards={BOARD}%2Cgone%2C{OTHER}&every=5"
    title = page.locator("#title")
    await expect(title).to_have_text("Revenue this month")

    async with page.expect_response("**/boards/gone"):
        await page.clock.run_for(5_000)
    await expect(title).to_have_text("Revenue this month")
    await page.clock.run_for(5_000)
    await expect(title).to_have_text(f"The board {OTHER}")
    await expect(page.locator("#boards [aria-current=page]")).to_have_text("Calls today")
    await expect(page.locator("#live")).to_have_attribute("data-state", "live")
    await page.clock.run_for(5_000)
    await expect(title).to_have_text("Revenue this month")

    await page.get_by_role("button", name="Stay on this board").click()
    await page.clock.run_for(60_000)
    await expect(title).to_have_text("Revenue this month")


async def test_at_midnight_the_new_period_takes_its_place(page: Page, stage: Stage) -> None:
    found = complaints(page)
    await enter(page, stage)

    stage.begin("month:2026-12-01", a_row(1, "Ada Lovelace", "10.00"))

    await expect(page.locator("#subtitle")).to_have_text("Revenue won · December 2026")
    assert await order(page) == ["Ada Lovelace"]
    assert await page.evaluate(MOVING, "ada") == 0
    stage.update(a_row(1, "Ben Ode", "20.00"), a_row(2, "Ada Lovelace", "10.00"))
    await expect(page.locator("#rows .name").first).to_have_text("Ben Ode")
    assert (stage.streams, found) == (1, [])


async def test_ones_own_row_is_whole_where_others_are_hidden(page: Page, stage: Stage) -> None:
    hidden = {"value": None, "attainment": None, "target": None, "count": None, "hidden": True}
    own = a_row(2, "Ben Ode", "65000.00")
    stage.rows = {row["subject"]: row | hidden for row in (a_row(1, "Ada Lovelace", "1.00"), own)}
    stage.own = own
    await enter(page, stage)

    amounts = page.locator("#rows .amount")
    await expect(amounts.nth(1)).to_have_text("€65,000")
    assert await amounts.all_inner_texts() == ["hidden", "€65,000"]
    stage.update(own | hidden | {"rank": 1}, stage.rows["person:ada"] | {"rank": 2})
    await expect(amounts.first).to_have_text("€65,000")


async def test_a_screen_that_is_signed_out_says_how_to_come_back(
    context: BrowserContext, page: Page
) -> None:
    stage = Stage([a_row(1, "Ada Lovelace", "80000.00")])
    async with stage.running():
        await enter(page, stage, f"/tv/{BOARD}?every=7")
        cookies = await context.cookies()
        await context.clear_cookies()
    async with stage.running():
        await expect(page.locator("#state")).to_have_text("Signed out", timeout=30_000)
        await expect(page.get_by_role("alert")).to_contain_text("Sign in again with a new token")
        assert await order(page) == ["Ada Lovelace"]  # what is known stays to be seen

        await page.get_by_role("link", name="sign in").click()
        await expect(page.get_by_role("heading")).to_have_text("You are not signed in here")
        await page.get_by_label("Token").fill(
            next(c["value"] for c in cookies if c.get("name") == COOKIE)
        )
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.locator("#rows tr")).to_have_count(1)
        assert page.url == f"{stage.address}/tv/{BOARD}?every=7"


async def test_numbers_are_written_as_the_address_asks(page: Page, stage: Stage) -> None:
    stage.update(a_row(1, "N1 Name", "89000.50", gap_to_next="1234.00"))
    await enter(page, stage, f"/tv/{BOARD}?lang=de")

    await expect(page.locator("#rows .amount").first).to_have_text("89.001 €")
    await expect(page.locator("#rows .gap").first).to_have_text("1.234 €")
    await expect(page.locator("#rows .extra").nth(1)).to_have_text("42,9 %")
    await expect(page.locator("#subtitle")).to_have_text("Revenue won · November 2026")
    link = page.locator("#boards a").first
    assert await link.get_attribute("href") == f"/tv/{BOARD}?lang=de"


async def test_on_the_desk_names_lead_to_people(page: Page, stage: Stage) -> None:
    await enter(page, stage, f"/boards/{BOARD}")

    first = page.locator("#rows .name a").first
    assert await first.get_attribute("href") == "/people/n1"
    wall = page.get_by_role("link", name="On the wall")
    assert await wall.get_attribute("href") == f"/tv/{BOARD}"
    assert await barriers(page) == []
    swapped_places = stage.rows["person:n2"] | {"rank": 1}
    stage.update(swapped_places, stage.rows["person:n1"] | {"rank": 2})
    await expect(page.locator("#rows .name").first).to_have_text("N2 Name")
    assert await page.evaluate(MOVING, "n2") > 0


class Scales:
    """Weighs a page through the debugger, without anything of a locator's in it."""

    def __init__(self, session: CDPSession) -> None:
        self._session = session

    async def until(self, expression: str, wanted: object) -> None:
        """Wait for what the page's script finds."""
        found = None
        for _ in range(60):
            answer = await self._session.send("Runtime.evaluate", {"expression": expression})
            found = answer["result"].get("value")
            if found == wanted:
                return
            await asyncio.sleep(1)
        raise AssertionError(f"{expression} is {found!r}, not {wanted!r}")

    async def weigh(self) -> dict[str, float]:
        """What is held once what moved has come to rest and all garbage is gone."""
        await self.until("document.querySelectorAll('.gain').length", 0)
        for _ in range(3):
            await self._session.send("HeapProfiler.collectGarbage")
        answer = await self._session.send("Performance.getMetrics")
        held: dict[str, float] = {each["name"]: each["value"] for each in answer["metrics"]}
        for kind in ("EventSource", "AbortSignal", "Promise", "Array", "Object", "Function"):
            held[kind] = await self._count(kind)
        return held

    async def _count(self, kind: str) -> float:
        group = {"objectGroup": "counted"}
        asked = {"expression": f"{kind}.prototype"} | group
        prototype = (await self._session.send("Runtime.evaluate", asked))["result"]["objectId"]
        asked = {"prototypeObjectId": prototype} | group
        found = (await self._session.send("Runtime.queryObjects", asked))["objects"]["objectId"]
        asked = {"objectId": found, "functionDeclaration": "function () { return this.length }"}
        count = await self._session.send("Runtime.callFunctionOn", asked)
        await self._session.send("Runtime.releaseObjectGroup", group)
        return float(count["result"]["value"])


async def test_weeks_of_updates_turns_and_reconnects_leave_nothing_behind(browser: Browser) -> None:
    context = await browser.new_context(viewport={"width": 1280, "height": 720}, locale="en-GB")
    page = await context.new_page()
    rows = [a_row(place, f"N{place} Name", f"{place}.00") for place in range(1, 13)]
    stage = Stage(rows, names=(BOARD, OTHER))
    session = await context.new_cdp_session(page)
    await session.send("Performance.enable")
    scales = Scales(session)
    number = 0

    async def lived(updates: int) -> None:
        """So many updates, with turns between boards, after the server was away."""
        nonlocal number
        async with stage.running():
            if page.url == "about:blank":
                await enter(page, stage, f"/tv/{BOARD}?boards={BOARD},{OTHER}&every=5")
            await scales.until("document.getElementById('live').dataset.state", "live")
            for _ in range(updates // 50):
                for _ in range(50):
                    number += 1
                    one, other = (stage.rows[f"person:n{1 + (number + n) % 11}"] for n in (0, 1))
                    stage.update(
                        one | {"rank": other["rank"], "value": f"{number}.25"},
                        other | {"rank": one["rank"]},
                    )
                await asyncio.sleep(0.3)
            stage.update(stage.rows["person:n12"] | {"value": f"{number}.75"})
            last = """document.querySelector('[data-subject="person:n12"] .amount').textContent"""
            await scales.until(last, f"€{number:,}.75")
            weights.append(await scales.weigh())

    weights: list[dict[str, float]] = []
    for updates in (200, 700, 600, 600):
        await lived(updates)
    before, after = weights[1], weights[-1]

    assert number > 2_000
    assert stage.streams > 8
    assert after["EventSource"] <= 2  # one more while a turn is prepared
    for kind in ("Nodes", "JSEventListeners", "AbortSignal", "Promise", "Array", "Object"):
        assert after[kind] <= before[kind] * 1.05 + 10, kind
    # Compiled code and shapes of objects still grow a little, for the first 1,500 updates or so.
    assert after["JSHeapUsedSize"] <= before["JSHeapUsedSize"] + 250_000
    await context.close()
