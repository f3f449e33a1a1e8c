"""The boards' pages in a real browser: what people see, and what must never happen to them."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, expect

from kit.auth import COOKIE, development_token
from services.metrics.pages import FOLDER
from tests.support import DEV_SECRET, TENANT
from tests.support.board import BOARD, Stage, a_row
from tests.support.browser import complaints

pytestmark = pytest.mark.asyncio(loop_scope="module")

DASH = "\N{EN DASH}"
TV = {"width": 1920, "height": 1080}
HOSTILE = "<img src=x onerror='window.pwned = true'>"
MOVING = """name => document.querySelector(`[data-subject="person:${name}"]`).getAnimations()
    .filter(animation => animation.effect.getKeyframes().some(frame => frame.transform)).length"""


@pytest_asyncio.fixture(loop_scope="module")
async def stage() -> AsyncIterator[Stage]:
    stage = Stage(
        [
            a_row(1, "Ada Lovelace", "80000.00", movement=2),
            a_row(2, "Ben Ode", "65000.00", movement=-1, gap_to_next="15000.00"),
            a_row(3, "Cy Twombly", "42000.00", gap_to_next="23000.00"),
            a_row(4, "Di Prince", "1250.50", movement=None, gap_to_next="40749.50"),
            a_row(None, "Eve Nobody", None, movement=None, columns={}),
        ]
    )
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


def way_in(stage: Stage, path: str = f"/tv/{BOARD}") -> str:
    token = development_token(DEV_SECRET, tenant=TENANT, person="p1", roles=["rep"])
    return f"{stage.address}{path}?token={token}"


async def enter(page: Page, stage: Stage) -> None:
    await page.goto(way_in(stage))
    await expect(page.locator("#rows tr")).to_have_count(len(stage.rows))


async def order(page: Page) -> list[str]:
    return await page.locator("#rows .name").all_text_contents()


async def cells(page: Page, name: str) -> list[str]:
    row = page.locator(f'[data-subject="person:{name}"]')
    return [
        await row.locator(part).inner_text()
        for part in (".rank", ".arrow", ".team", ".percent", ".amount", ".gap")
    ]


def swapped(stage: Stage) -> None:
    """Ben overtakes Ada."""
    ada, ben = stage.rows["person:ada"], stage.rows["person:ben"]
    stage.update(
        ben | {"rank": 1, "value": "90000.00", "attainment": "0.9000", "gap_to_next": None},
        ada | {"rank": 2, "gap_to_next": "10000.00"},
    )


async def test_the_board_shows_everyone_as_people_read_numbers(page: Page, stage: Stage) -> None:
    found = complaints(page)
    await enter(page, stage)

    assert page.url == f"{stage.address}/tv/{BOARD}"
    assert await order(page) == [row["name"] for row in stage.rows.values()]
    assert await cells(page, "ada") == ["1", "▲2", "North", "80%", "€80,000", DASH]
    assert await cells(page, "ben") == ["2", "▼1", "North", "65%", "€65,000", "€15,000"]
    assert await cells(page, "cy") == ["3", "=", "North", "42%", "€42,000", "€23,000"]
    assert await cells(page, "di") == ["4", DASH, "North", "1%", "€1,251", "€40,750"]
    assert await cells(page, "eve") == [DASH, DASH, "North", DASH, DASH, DASH]
    heads = await page.locator("thead th").all_inner_texts()
    assert heads[4:] == ["Revenue won", "To next", "Deals won", "Win rate"]
    assert await page.locator('[data-subject="person:ada"] .extra').all_inner_texts() == [
        "3",
        "42.9%",
    ]
    assert await page.locator("#rows [data-place='1'] .name").all_inner_texts() == ["Ada Lovelace"]
    assert await page.locator("#subtitle").inner_text() == "Revenue won · November 2026"
    await expect(page.locator("#live")).to_have_attribute("data-state", "live")
    assert found == []


async def test_an_update_moves_the_rows_without_a_reload(page: Page, stage: Stage) -> None:
    found = complaints(page)
    await enter(page, stage)
    await page.evaluate("window.here = true")

    swapped(stage)

    await expect(page.locator("#rows .name").first).to_have_text("Ben Ode")
    assert await page.evaluate(MOVING, "ben") > 0
    assert await page.evaluate(MOVING, "cy") == 0
    await expect(page.locator(".gain")).to_have_text("+€25,000")
    assert await page.evaluate("window.here")
    assert stage.streams == 1
    await expect(page.locator("#announcement")).to_contain_text(
        "Ben Ode: first with €90,000.00.", timeout=20_000
    )
    await expect(page.locator(".gain")).to_have_count(0, timeout=10_000)
    assert found == []


async def test_who_comes_and_who_goes(page: Page, stage: Stage) -> None:
    await enter(page, stage)

    stage.update(a_row(5, "Flo New", "10.00"), removed=("person:ben",))

    await expect(page.locator("#rows tr")).to_have_count(5)
    assert (await order(page))[-2:] == ["Flo New", "Eve Nobody"]


async def test_nothing_moves_for_those_who_ask_for_calm(browser: Browser, stage: Stage) -> None:
    context = await browser.new_context(reduced_motion="reduce")
    page = await context.new_page()
    await enter(page, stage)

    swapped(stage)

    await expect(page.locator("#rows .name").first).to_have_text("Ben Ode")
    assert await page.evaluate(MOVING, "ben") == 0
    await context.close()


async def test_what_happened_while_the_server_was_away_is_shown(page: Page) -> None:
    stage = Stage([a_row(1, "Ada Lovelace", "80000.00"), a_row(2, "Ben Ode", "65000.00")])
    async with stage.running():
        await enter(page, stage)
        await page.evaluate("window.here = true")
    await expect(page.locator("#live")).to_have_attribute("data-state", "waiting")
    await expect(page.locator("#state")).to_have_text("Reconnecting")
    assert await order(page) == ["Ada Lovelace", "Ben Ode"]

    swapped(stage)
    async with stage.running():
        await expect(page.locator("#rows .name").first).to_have_text("Ben Ode", timeout=30_000)
        await expect(page.locator("#live")).to_have_attribute("data-state", "live")
        assert await page.evaluate("window.here")


async def test_a_gap_is_closed_by_a_fresh_snapshot(page: Page, stage: Stage) -> None:
    await enter(page, stage)
    cy, di = stage.rows["person:cy"], stage.rows["person:di"]

    stage.change_unheard(cy | {"value": "43000.00"})
    stage.update(di | {"value": "2000.00"})

    await expect(page.locator('[data-subject="person:cy"] .amount')).to_have_text("€43,000")
    await expect(page.locator('[data-subject="person:di"] .amount')).to_have_text("€2,000")
    assert stage.streams == 2


async def test_a_silent_stream_is_replaced_without_anyone_noticing(
    page: Page, stage: Stage
) -> None:
    await page.clock.install()
    await enter(page, stage)

    await page.evaluate("""() => {
        window.states = [];
        const note = () => window.states.push(document.getElementById("live").dataset.state);
        new MutationObserver(note).observe(document.getElementById("live"), {attributes: true});
    }""")

    async with page.expect_response("**/events?last_event_id=v1"):
        await page.clock.fast_forward(61_000)
    swapped(stage)

    await expect(page.locator("#rows .name").first).to_have_text("Ben Ode")
    assert await page.evaluate("window.states") == []


async def test_a_screen_does_not_fill_up(page: Page, stage: Stage) -> None:
    await enter(page, stage)
    count = "document.querySelectorAll('*').length"
    before = await page.evaluate(count)
    ada = stage.rows["person:ada"]

    for cents in range(300):
        stage.update(ada | {"value": f"80000.{cents % 100:02}", "rank": 1 + cents % 2})
    stage.update(ada | {"value": "99999.00"})

    await expect(page.locator('[data-subject="person:ada"] .amount')).to_have_text("€99,999")
    assert await page.evaluate(count) <= before + 1  # one gain may be on show


async def test_a_new_version_of_the_page_is_loaded_once(page: Page, stage: Stage) -> None:
    loads: list[str] = []
    page.on("load", lambda page: loads.append(page.url))
    await page.route("**/static/version.json", lambda route: route.fulfill(json={"version": "x"}))

    async with page.expect_event("load", lambda _: len(loads) == 2):
        await enter(page, stage)
    await expect(page.locator("#rows tr")).to_have_count(len(stage.rows))
    await page.wait_for_timeout(500)

    assert len(loads) == 2


@pytest.mark.parametrize("width", [390, 360])
async def test_a_phone_never_scrolls_sideways(browser: Browser, stage: Stage, width: int) -> None:
    stage.info["title"] = "Revenue of this month and of everybody in the organisation"
    long = a_row(5, "Wolfeschlegelsteinhausenbergerdorff" * 3, "1.00", team="Longteamname" * 9)
    stage.update(long | {"columns": {"deals_won": "1234567890123", "win_rate": "0.5000"}})
    context = await browser.new_context(viewport={"width": width, "height": 844}, locale="de-DE")
    page = await context.new_page()
    found = complaints(page)

    await enter(page, stage)

    assert await page.evaluate("document.documentElement.scrollWidth") == width
    edges = await page.locator("#rows tr, .top, .top > * > *").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().right)"
    )
    assert max(edges) <= width
    await page.evaluate("scrollTo(0, 400)")
    assert await page.evaluate("document.querySelector('.top').getBoundingClientRect().top") == 0
    assert found == []
    await context.close()


async def test_markup_in_names_is_only_text(page: Page, stage: Stage) -> None:
    found = complaints(page)
    stage.info["title"] = HOSTILE
    stage.update(a_row(5, HOSTILE, "1.00", subject=f'person:"{HOSTILE}', team=HOSTILE))

    await enter(page, stage)
    stage.update(stage.rows["person:ada"] | {"name": HOSTILE})

    await expect(page.locator("#rows .name").first).to_have_text(HOSTILE)
    await expect(page.locator("#title")).to_have_text(HOSTILE)
    await page.goto(f"{stage.address}/")
    await expect(page.locator("#boards a span").first).to_have_text(HOSTILE)
    assert await page.locator("img[src=x]").count() == 0
    assert await page.evaluate("window.pwned") is None
    assert found == []


async def test_the_boards_can_be_changed_with_the_keyboard(page: Page, stage: Stage) -> None:
    await enter(page, stage)
    current = page.locator("#boards [aria-current=page]")

    await page.locator("summary").focus()
    await page.keyboard.press("Enter")
    await expect(current).to_have_text("Revenue this month")
    await expect(current).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(current).to_be_hidden()
    await expect(page.locator("summary")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.get_by_role("link", name="Calls today").click()

    await expect(page.locator("#state")).to_have_text("No such board")  # the stage has but one
    await expect(page.locator("#note")).to_contain_text("Choose another one")


async def test_a_screen_reader_finds_a_table(page: Page, stage: Stage) -> None:
    await enter(page, stage)

    table = page.get_by_role("table", name="Revenue this month")
    await expect(table.get_by_role("columnheader")).to_have_count(8)
    row = table.get_by_role("row").nth(1)
    await expect(row.get_by_role("rowheader")).to_contain_text("Ada Lovelace")
    await expect(row.get_by_role("cell").nth(1)).to_contain_text("up 2 today")


async def test_a_long_board_scrolls_by_itself_on_the_wall(page: Page, stage: Stage) -> None:
    stage.update(*(a_row(10 + number, f"N{number} Name", "1.00") for number in range(40)))
    await page.clock.install()
    await enter(page, stage)

    await page.clock.run_for(13_000)
    while await page.evaluate("scrollY") < 100:
        await page.clock.run_for(100)
    await page.get_by_role("button", name="Stop scrolling").click()
    stopped_at = await page.evaluate("scrollY")
    await page.clock.run_for(120_000)

    assert 0 < stopped_at == await page.evaluate("scrollY")


async def test_without_a_token_the_page_says_how_to_get_in(page: Page, stage: Stage) -> None:
    answer = await page.goto(f"{stage.address}/tv/{BOARD}")
    assert answer is not None
    assert answer.status == 401
    await expect(page.get_by_role("heading")).to_have_text("You are not signed in here")

    await page.get_by_label("Token").fill("<script>nonsense")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("alert")).to_have_text("This is not a token.")
    await page.get_by_label("Token").fill(way_in(stage).partition("=")[2])
    await page.get_by_role("button", name="Sign in").click()

    await expect(page.locator("#rows tr")).to_have_count(len(stage.rows))
    assert page.url == f"{stage.address}/tv/{BOARD}"
    cookie = next(c for c in await page.context.cookies() if c.get("name") == COOKIE)
    assert cookie.get("httpOnly")
    assert cookie.get("sameSite") == "Strict"
    assert cookie.get("path") == "/"


@pytest.mark.parametrize("attainment", ["0.8000", None], ids=["goal", "no-goal"])
async def test_what_a_row_gained_leaves_its_name_readable(
    page: Page, stage: Stage, attainment: str | None
) -> None:
    name = "Adalbertina Lovelace-Raghunathan of Sussex"
    row = a_row(1, name, "80000.00", subject="person:ada", attainment=attainment)
    stage.begin("month:2026-12-01", row)
    await enter(page, stage)
    stage.update(row | {"value": "105000.00"})

    gain = await page.locator(".gain").bounding_box()
    named = await page.locator('[data-subject="person:ada"] .name').bounding_box()
    amount = await page.locator('[data-subject="person:ada"] .amount').bounding_box()
    assert gain is not None
    assert named is not None
    assert amount is not None
    assert gain["x"] >= named["x"] + named["width"]
    assert gain["x"] + gain["width"] <= amount["x"]


async def test_names_lead_to_the_pages_of_those_who_bear_them(page: Page, stage: Stage) -> None:
    pages = {
        "person:ada": "/people/ada",
        "team:north": "/teams/north",
        "territory:dach": "/territories/dach",
        "role:ae / dach": "/roles/ae%20%2F%20dach",
    }
    stage.begin(
        "month:2026-12-01",
        *(a_row(n, subject, "1.00", subject=subject) for n, subject in enumerate(pages, 1)),
    )
    await page.goto(way_in(stage, f"/boards/{BOARD}"))

    links = page.locator("#rows .name a")
    await expect(links).to_have_count(len(pages))
    hrefs = await links.evaluate_all("all => all.map(one => one.getAttribute('href'))")
    assert hrefs == list(pages.values())
    for path in hrefs:
        answer = await page.goto(f"{stage.address}{path}")
        assert answer is not None
        assert answer.status == 200


async def test_a_slash_too_many_is_taken_away(stage: Stage) -> None:
    async with httpx.AsyncClient(base_url=stage.address) as client:
        for path in ("/people/ada", "/teams/north", "/territories/dach"):
            answer = await client.get(f"{path}/")
            assert answer.status_code == 307
            assert answer.headers["location"] == f"{stage.address}{path}"


async def test_a_link_on_another_site_leads_in(page: Page, stage: Stage) -> None:
    elsewhere = f"http://localhost:{stage.port}/"
    for address in (way_in(stage), f"{stage.address}/tv/{BOARD}"):
        await page.goto(elsewhere)
        await page.evaluate("address => { location.href = address }", address)
        await expect(page.locator("#rows tr")).to_have_count(len(stage.rows))


async def test_files_are_cached_and_pages_are_not(stage: Stage) -> None:
    async with httpx.AsyncClient(base_url=stage.address) as client:
        page = await client.get("/", params={"token": way_in(stage).partition("=")[2]})
        page = await client.get("/", headers={"Cookie": page.headers["set-cookie"]})
        (script,) = re.findall(r'src="(/static/\w+/index\.js)"', page.text)
        first = await client.get(script)
        again = await client.get(script, headers={"If-None-Match": first.headers["etag"]})
        old = await client.get("/static/0123456789abcdef/index.js")
        missing = await client.get("/static/0123456789abcdef/..%2fpages.py")

    assert page.headers["cache-control"] == "no-store"
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "immutable" in first.headers["cache-control"]
    assert (again.status_code, again.content) == (304, b"")
    assert old.headers["cache-control"] == "no-cache"
    assert missing.status_code == 404


async def test_the_cookie_needs_https_away_from_loopback(stage: Stage) -> None:
    async with httpx.AsyncClient(base_url=stage.address) as client:
        path = way_in(stage).removeprefix(stage.address)
        near = await client.get(path)
        far = await client.get(path, headers={"Host": "boards.example.com"})

    assert near.status_code == far.status_code == 303
    assert "secure" not in near.headers["set-cookie"].lower()
    assert "; secure" in far.headers["set-cookie"].lower()
    assert far.headers["location"] == f"/tv/{BOARD}"


async def test_colours_are_told_apart_by_everyone() -> None:
    """WCAG AA: 4.5 : 1 for text, on every ground that text stands on."""
    style = (FOLDER / "style.css").read_text()
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", style))

    for ground in ("ground", "ground-soft", "row"):
        for ink in ("text", "muted", "accent", "good", "bad", "wait", "gold", "silver", "bronze"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    for ground in ("gold", "silver", "bronze"):
        assert contrast("#10131a", colours[ground]) >= 4.5


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
