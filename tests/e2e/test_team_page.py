"""A team's page on the real API: its numbers, its people, and how their goals add up."""

import re
from decimal import Decimal
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.support.accessible import barriers, sideways
from tests.support.browser import DASH, DESK, PHONE, euros, plain
from tests.support.company import MANAGER, NOVEMBER, Company

pytestmark = pytest.mark.asyncio(loop_scope="module")

NORTH = "team:north"


async def enter(page: Page, link: str) -> None:
    await page.goto(link)
    await expect(page.locator("#people-body tbody tr")).to_have_count(4)


async def test_a_manager_sees_what_everyone_brings(page: Page, company: Company) -> None:
    await enter(page, company.link("/teams/north", "manager", person=MANAGER))
    await expect(page.get_by_role("heading", level=1)).to_have_text("North")
    rows = page.get_by_role("table", name="People").locator("tbody tr")

    values = []
    for subject in await rows.evaluate_all("all => all.map(one => one.dataset.subject)"):
        asked = {"subject": subject, "metric": "revenue_won", "period": NOVEMBER}
        said = await company.get("/v1/values", person=MANAGER, role="manager", **asked)
        row = page.locator(f'[data-subject="{subject}"]')
        cells = await row.locator("td").all_inner_texts()
        if said["value"] is None:
            assert cells == [DASH] * 4
            continue
        values.append(Decimal(said["value"]))
        assert cells[:2] == [euros(said["value"]), euros(said["effective_target"])]
        assert plain(cells[2]) == str(int(Decimal(said["attainment"]) * 100))
    assert values == sorted(values, reverse=True)
    asked = {"subject": NORTH, "metric": "revenue_won", "period": NOVEMBER}
    whole = await company.get("/v1/values", person=MANAGER, role="manager", **asked)
    assert sum(values) == Decimal(whole["value"])
    await expect(page.locator('[data-metric="revenue_won"] .number')).to_have_text(
        euros(whole["value"])
    )

    rolled = await company.get("/v1/goals/roll-up", person=MANAGER, role="manager", **asked)
    await expect(page.locator("#people-body .hint")).to_contain_text(euros(rolled["assigned"]))
    await expect(page.locator("#people-body .hint")).to_contain_text(euros(rolled["gap"]))
    await page.get_by_role("link", name="Ada Lovelace").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Ada Lovelace")
    await page.get_by_role("link", name="North").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("North")


async def test_another_metric_is_asked_of_everyone(page: Page, company: Company) -> None:
    await enter(page, company.link("/teams/north", "manager", person=MANAGER))

    await page.locator("#pace-metric").select_option("calls_made")

    heads = page.locator("#people-body thead th")
    await expect(heads.nth(1)).to_have_text("Calls made")
    asked = {"subject": "person:ada", "metric": "calls_made", "period": NOVEMBER}
    said = await company.get("/v1/values", person=MANAGER, role="manager", **asked)
    ada = page.locator('[data-subject="person:ada"] td')
    await expect(ada.first).to_have_text(said["value"])
    await expect(page.locator("#pace-said")).to_contain_text("Calls made: ")


async def test_the_funnel_is_the_apis(page: Page, company: Company) -> None:
    said = await company.get("/v1/funnel", person="ada", subject=NORTH, period=NOVEMBER)
    await enter(page, company.link("/teams/north", "rep", person="ada"))

    rows = page.get_by_role("table", name="Funnel").locator("tbody tr")
    assert [
        (await row.locator("th").inner_text(), await row.locator("td").first.inner_text())
        for row in await rows.all()
    ] == [(step["name"], str(step["count"])) for step in said["steps"]]
    assert said["steps"][0]["name"] == "Qualified"


async def test_a_rep_sees_the_team_but_not_its_people(page: Page, company: Company) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await enter(page, company.link("/teams/north", "rep", person="ada"))

    links = page.locator("#people-body tbody a")
    await expect(links).to_have_text(["Ada Lovelace"])
    ben = page.locator('[data-subject="person:ben"] td')
    assert await ben.all_inner_texts() == [DASH] * 4
    assert not [url for url in asked if "person%3Aben" in url]
    # The records behind the team's numbers are for its manager.
    await expect(page.locator(".tile button")).to_have_count(0)


async def test_records_of_a_team_name_their_people(page: Page, company: Company) -> None:
    await enter(page, company.link("/teams/north", "manager", person=MANAGER))
    await page.get_by_role("button", name=re.compile("^Deals won, ")).click()

    people = page.locator("#records-rows td a")
    await expect(people.first).to_be_visible()
    assert {"Ada Lovelace", "Ben Ode"} <= set(await people.all_inner_texts())


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
async def test_everyone_can_use_it_everywhere(
    browser: Browser, company: Company, size: Any
) -> None:
    context = await browser.new_context(viewport=size, locale="de-DE")
    page = await context.new_page()
    await enter(page, company.link("/teams/north", "manager", person=MANAGER))
    await expect(page.locator("#pace-said")).not_to_be_empty()
    table = page.get_by_role("table", name="People")
    await expect(table.get_by_role("rowheader")).to_have_count(4)

    assert await barriers(page) == []
    assert await sideways(page) == []
    await context.close()
