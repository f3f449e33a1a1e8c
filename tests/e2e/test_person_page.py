"""A person's page on the real API: what it shows is what the API says, to everyone who may look."""

import re
from decimal import Decimal
from typing import Any

import pytest
from playwright.async_api import Browser, Page, Route, expect

from tests.support.accessible import barriers, sideways
from tests.support.browser import DASH, DESK, PHONE, complaints, euros, plain
from tests.support.company import NOVEMBER, Company

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADA = "person:ada"


async def enter(page: Page, company: Company, path: str = "/people/me", *, by: str = "ada") -> None:
    await page.goto(company.link(path, "rep", person=by))
    await expect(page.locator("#content")).to_be_visible()
    await expect(page.locator("#pace-said")).not_to_be_empty()


async def test_every_number_is_the_apis(page: Page, company: Company) -> None:
    found = complaints(page)
    await enter(page, company)
    assert page.url == f"{company.address}/people/ada"
    await expect(page.get_by_role("heading", level=1)).to_have_text("Ada Lovelace")
    await expect(page.locator("#period")).to_have_text("November 2026")

    for metric in ("revenue_won", "deals_won", "calls_made", "win_rate", "average_deal_size"):
        said = await company.get(
            "/v1/values", person="ada", subject=ADA, metric=metric, period=NOVEMBER
        )
        tile = page.locator(f'[data-metric="{metric}"]')
        shown = Decimal(plain(await tile.locator(".number").inner_text()))
        exact = Decimal(said["value"]) * (100 if said["unit"] == "ratio" else 1)
        assert abs(shown - exact) <= Decimal("0.5"), metric
        towards = tile.locator(".reached")
        if said["target"] is None:
            await expect(towards).to_be_hidden()
        else:
            reached = f"{int(Decimal(said['attainment']) * 100)}% of "
            assert (await towards.inner_text()).startswith(reached)
    dashes = await page.locator("#dashes-list").text_content()
    assert f"Demos {DASH}" in (dashes or "")
    assert found == []


async def test_all_numbers_are_had_in_one_request(page: Page, company: Company) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await enter(page, company)

    await expect(page.locator(".tile")).not_to_have_count(0)
    assert len([url for url in asked if "/v1/values" in url]) == 1


async def test_the_chart_says_in_words_and_as_a_table_what_it_shows(
    page: Page, company: Company
) -> None:
    asked = {"subject": ADA, "metric": "revenue_won", "period": NOVEMBER}
    value = await company.get("/v1/values", person="ada", **asked)
    forecast = await company.get("/v1/forecasts", person="ada", **asked)
    await enter(page, company)

    image = page.get_by_role("img", name=re.compile("Revenue won: "))
    await expect(image).to_be_visible()
    said = await page.locator("#pace-said").inner_text()
    for amount in (
        value["value"],
        value["effective_target"],
        value["required_per_day"],
        str(Decimal(value["expected"]) - Decimal(value["value"])),
        *(forecast["distribution"][name] for name in ("p10", "p50", "p90")),
    ):
        assert euros(amount) in said, amount
    for line in ("actual", "expected", "goal", "band"):
        assert await image.locator(f".{line}").count() == 1, line

    await page.get_by_text("As a table").click()
    rows = page.get_by_role("region", name="Pace by day").locator("tbody tr")
    await expect(rows).to_have_count(30)
    cells = [await row.locator("td").all_inner_texts() for row in await rows.all()]
    assert Decimal(plain(cells[16][0])) == Decimal(value["value"])  # the 17th is today
    assert cells[17][0] == DASH
    assert cells[15][1] == euros(value["expected"])
    assert cells[-1][1] == euros(value["effective_target"])


async def test_a_number_opens_into_its_records_by_keyboard(page: Page, company: Company) -> None:
    said = await company.get(
        "/v1/values", person="ada", subject=ADA, metric="calls_made", period=NOVEMBER
    )
    await enter(page, company)
    number = page.get_by_role("button", name=re.compile("^Calls made, "))

    await number.focus()
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Calls made")
    rows = dialog.locator("tbody tr")
    await expect(rows).to_have_count(said["count"])
    await expect(dialog.locator("#records-sum")).to_have_text(
        f"Ada Lovelace, November 2026: {said['value']} from {said['count']} records"
    )
    assert await barriers(page) == []
    async with page.expect_download() as download:
        await dialog.get_by_role("link", name="All as CSV").click()
    lines = (await (await download.value).path()).read_text().splitlines()
    assert len(lines) == 1 + said["count"]

    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(number).to_be_focused()


async def test_a_long_list_is_had_a_page_at_a_time(page: Page, company: Company) -> None:
    asked = {"subject": ADA, "metric": "calls_made", "period": "year:2026-01-01"}
    said = await company.get("/v1/values", person="ada", **asked)
    pages = range(100, said["count"] + 100, 100)
    assert len(pages) > 1
    await enter(page, company, "/people/ada?grain=year")
    await page.get_by_role("button", name=re.compile("^Calls made, ")).click()

    rows = page.locator("#records-rows tr")
    more = page.get_by_role("button", name="Show more")
    for there in pages[:-1]:
        await expect(rows).to_have_count(there)
        await more.click()
        await expect(rows.nth(there).locator("th")).to_be_focused()
    await expect(rows).to_have_count(said["count"])
    await expect(more).to_be_hidden()
    ids = await rows.locator("small").all_inner_texts()
    assert len(set(ids)) == said["count"]


async def test_the_heat_map_is_a_table_of_the_apis_numbers(page: Page, company: Company) -> None:
    said = await company.get(
        "/v1/heatmap", person="ada", subject=ADA, metric="calls_made", period=NOVEMBER
    )
    await enter(page, company)
    table = page.locator("table.heat")
    heads = await table.locator("thead th").all_inner_texts()
    rows = [
        (await row.locator("th").inner_text(), await row.locator("td").all_text_contents())
        for row in await table.locator("tbody tr").all()
    ]

    assert [day for day, _ in rows] == ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
    shown = {
        (weekday, int(hour)): int(count)
        for weekday, (_, counts) in enumerate(rows, 1)
        for hour, count in zip(heads, counts, strict=True)
        if count != "0"
    }
    assert shown == {(h["weekday"], h["hour"]): h["count"] for h in said["hours"]}


async def test_what_cannot_be_had_leaves_the_rest(page: Page, company: Company) -> None:
    async def refused(route: Route) -> None:
        await route.fulfill(status=404, json={"detail": "There is no such thing."})

    async def without_calls(route: Route) -> None:
        answer = await route.fetch()
        told = await answer.json()
        told["values"] = [each for each in told["values"] if each["metric"] != "calls_made"]
        await route.fulfill(response=answer, json=told)

    for path in ("forecasts", "funnel", "heatmap", "goals/course", "series", "values"):
        await page.route(f"**/v1/{path}?*", refused)
    await page.route("**/v1/values/of?*", without_calls)
    await enter(page, company)

    await expect(page.locator('[data-metric="revenue_won"] .number')).to_contain_text("€")
    await expect(page.locator("#pace-said")).to_contain_text("Revenue won: ")
    await expect(page.locator("#pace-body")).to_contain_text(f"Forecast {DASH}", ignore_case=True)
    await expect(page.locator("#funnel")).to_be_hidden()
    await expect(page.locator('[data-metric="calls_made"]')).to_have_count(0)
    assert f"Calls made {DASH}" in (await page.locator("#dashes-list").text_content() or "")


async def test_numbers_that_cannot_be_had_are_tried_again(page: Page, company: Company) -> None:
    async def away(route: Route) -> None:
        await route.fulfill(status=503, json={"detail": "The database is away."})

    await page.clock.install()
    await page.route("**/v1/values/of?*", away)
    await page.goto(company.link("/people/me", "rep", person="ada"))
    await expect(page.locator("#note")).to_contain_text("The page tries again by itself.")
    # The parts that ask for themselves are there.
    await expect(page.locator("#funnel")).to_be_visible()
    await expect(page.locator("#pace-said")).to_contain_text(f"Revenue won: {DASH}")
    await expect(page.locator("#dashes-list")).to_contain_text(f"Revenue won {DASH}")

    await page.unroute("**/v1/values/of?*")
    await page.clock.fast_forward(61_000)
    await expect(page.locator('[data-metric="revenue_won"] .number')).to_contain_text("€")
    await expect(page.locator("#note")).to_be_hidden()


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/people/di", "These numbers aren't yours to see."),
        ("/people/nobody", "These numbers aren't yours to see."),
        ("/teams/south", "These numbers aren't yours to see."),
    ],
)
async def test_what_may_not_be_seen_is_said_in_a_sentence(
    page: Page, company: Company, path: str, sentence: str
) -> None:
    await page.goto(company.link(path, "rep", person="ada"))
    await expect(page.locator("#note")).to_contain_text(sentence)
    await expect(page.locator("#content")).to_be_hidden()
    await expect(page.locator("#note").get_by_role("link")).to_have_text("Go to the boards")
    assert await barriers(page) == []


async def test_nobody_is_not_found(page: Page, company: Company) -> None:
    await page.goto(company.link("/people/nobody", "ops"))
    await expect(page.locator("#note")).to_contain_text("There is no such person.")


async def test_german_formats(page: Page, company: Company) -> None:
    await enter(page, company, "/people/ada?lang=de&day=2026-11-17")

    figures = page.locator(".standing strong")
    await expect(figures.nth(1)).to_have_text("100.000\N{NO-BREAK SPACE}€")
    await expect(page.locator('[data-metric="win_rate"] .number')).to_have_text(
        re.compile(r"^\d+,\d\s%$")
    )
    await expect(page.locator('[data-metric="sales_cycle"] .number')).to_contain_text("Tg.")
    await expect(page.locator("table.heat tbody th").first).to_have_text("Mo")
    week = page.get_by_role("navigation", name="Period").get_by_role("link", name="Week")
    await week.click()
    await expect(page.locator("#period")).to_have_text(re.compile(r"^16\..22\. November 2026$"))
    assert "lang=de" in page.url


async def test_periods_are_gone_through(page: Page, company: Company) -> None:
    await enter(page, company)
    periods = page.get_by_role("navigation", name="Period")
    await expect(periods.locator("[aria-current]")).to_have_text("Month")
    await expect(periods.get_by_role("link", name="The month after")).to_have_count(0)

    await periods.get_by_role("link", name="The month before").click()
    await expect(page.locator("#period")).to_have_text("October 2026")
    asked = {"subject": ADA, "metric": "deals_won", "period": "month:2026-10-01"}
    said = await company.get("/v1/values", person="ada", **asked)
    await expect(page.locator('[data-metric="deals_won"] .number')).to_have_text(said["value"])
    await periods.get_by_role("link", name="The month after").click()
    await expect(page.locator("#period")).to_have_text("November 2026")


@pytest.mark.parametrize("path", ["/", "/people/ada", "/people/ada?grain=year"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
async def test_everyone_can_use_it_everywhere(
    browser: Browser, company: Company, path: str, size: Any
) -> None:
    context = await browser.new_context(viewport=size, locale="de-DE")
    page = await context.new_page()
    await page.goto(company.link(path, "rep", person="ada"))
    await expect(page.locator(".boards a, #pace-said").first).to_be_visible()
    await page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true })")

    assert await barriers(page) == []
    assert await sideways(page) == []
    await context.close()
