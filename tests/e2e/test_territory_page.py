"""The pages of territories, roles and the organisation on the real API, and the ways to them."""

import re
from decimal import Decimal
from typing import Any

import pytest
from playwright.async_api import Browser, Page, expect

from tests.support.accessible import barriers, sideways
from tests.support.browser import DESK, PHONE, complaints, euros
from tests.support.company import NOVEMBER, Company

pytestmark = pytest.mark.asyncio(loop_scope="module")

DACH = "territory:dach"


async def test_a_territory_has_its_numbers_and_its_parts(page: Page, company: Company) -> None:
    found = complaints(page)
    asked = {"metric": "revenue_won", "period": NOVEMBER}
    whole = await company.get("/v1/values", person="", role="ops", subject=DACH, **asked)
    await page.goto(company.link("/territories/dach", "ops"))

    await expect(page.get_by_role("heading", level=1)).to_have_text("DACH")
    tile = page.locator('[data-metric="revenue_won"]')
    await expect(tile.locator(".number")).to_have_text(euros(whole["value"]))
    await expect(tile.locator(".reached")).to_contain_text(euros(whole["effective_target"]))
    await expect(page.locator("#pace-said")).to_contain_text("Revenue won: ")
    await expect(page.locator("#funnel")).to_be_visible()
    await expect(page.locator("#heat")).to_be_hidden()  # there is one of people and teams

    rows = page.get_by_role("table", name="Parts").locator("tbody tr")
    await expect(rows).to_have_count(2)
    values = []
    for row in await rows.all():
        subject = await row.get_attribute("data-subject") or ""
        said = await company.get("/v1/values", person="", role="ops", subject=subject, **asked)
        await expect(row.locator("td").first).to_have_text(euros(said["value"]))
        values.append(Decimal(said["value"]))
    assert sum(values) == Decimal(whole["value"])

    await page.get_by_role("link", name="Austria").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Austria")
    await page.get_by_role("link", name="DACH").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("DACH")
    assert found == []


async def test_its_records_name_their_people(page: Page, company: Company) -> None:
    await page.goto(company.link("/territories/dach", "ops"))
    await page.get_by_role("button", name=re.compile("^Deals won, ")).click()

    people = page.locator("#records-rows td a")
    await expect(people.first).to_be_visible()
    assert {"Ada Lovelace", "Ben Ode"} <= set(await people.all_inner_texts())


async def test_own_territories_are_a_step_away(page: Page, company: Company) -> None:
    await page.goto(company.link("/people/me", "rep", person="ada"))
    also = page.locator("#also")
    await expect(also).to_have_text("Germany · Account executive")
    await expect(also.get_by_role("link")).to_have_text(["Germany"])  # a role is for finance

    await also.get_by_role("link").click()
    await expect(page.locator('[data-metric="revenue_won"] .number')).to_contain_text("€")
    # The records behind a territory's numbers show the deals of others.
    await expect(page.locator(".tile button")).to_have_count(0)
    await page.goto(f"{company.address}/territories/austria")
    await expect(page.locator("#note")).to_contain_text("These numbers aren't yours to see.")


async def test_a_role_has_its_numbers(page: Page, company: Company) -> None:
    asked = {"metric": "deals_won", "period": NOVEMBER, "subject": "role:Account executive"}
    said = await company.get("/v1/values", person="", role="ops", **asked)
    await page.goto(company.link("/people/ada", "ops"))
    await page.get_by_role("link", name="Account executive").click()

    await expect(page.get_by_role("heading", level=1)).to_have_text("Account executive")
    await expect(page.locator('[data-metric="deals_won"] .number')).to_have_text(said["value"])
    await expect(page.locator("#people")).to_be_hidden()


async def test_the_organisation_has_its_numbers_and_what_it_is_made_of(
    page: Page, company: Company
) -> None:
    found = complaints(page)
    asked = {"metric": "revenue_won", "period": NOVEMBER}
    await page.goto(company.link("/", "ops"))
    await page.get_by_role("link", name="The whole organisation").click()

    await expect(page.get_by_role("heading", level=1)).to_have_text("Acme")
    whole = await company.get("/v1/values", person="", role="ops", subject="org:all", **asked)
    tile = page.locator('[data-metric="revenue_won"]')
    await expect(tile.locator(".number")).to_have_text(euros(whole["value"]))
    rows = page.get_by_role("table", name="Parts").locator("tbody tr")
    await expect(rows.locator("th")).to_have_text([re.compile("Sales"), re.compile("DACH")])
    await expect(rows.first.locator("td").first).to_have_text(euros(whole["value"]))

    await page.get_by_role("link", name="Sales").click()
    await page.get_by_role("link", name="North").click()
    await page.get_by_role("link", name="Ada Lovelace").click()
    way = page.locator("#way li")
    await expect(way).to_have_text(["Boards", "Acme", "Sales", "North"])
    await way.get_by_text("Acme").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Acme")
    assert found == []


async def test_everybody_sees_what_all_have_reached(page: Page, company: Company) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(company.link("/organisation", "rep", person="di"))

    await expect(page.locator('[data-metric="revenue_won"] .number')).to_contain_text("€")
    await expect(page.locator("#people-body tbody tr")).to_have_count(2)
    await expect(page.locator("#people-body tbody a")).to_have_count(0)
    assert not [url for url in asked if "/v1/values/each" in url]
    await expect(page.locator(".tile button")).to_have_count(0)


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
@pytest.mark.parametrize("path", ["/territories/dach", "/organisation"])
async def test_everyone_can_use_it_everywhere(
    browser: Browser, company: Company, path: str, size: Any
) -> None:
    context = await browser.new_context(viewport=size, locale="de-DE")
    page = await context.new_page()
    await page.goto(company.link(path, "ops"))
    await expect(page.locator("#people-body tbody tr")).to_have_count(2)

    assert await barriers(page) == []
    assert await sideways(page) == []
    await context.close()
