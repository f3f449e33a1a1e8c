"""The pages of territories and roles on the real API, and the ways that lead to them."""

import re
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from deploy.local import Stack
from tests.e2e.test_person_page import DESK, PHONE, euros
from tests.support.accessible import barriers, sideways
from tests.support.browser import complaints, launched
from tests.support.company import NOVEMBER, Company, a_company

pytestmark = pytest.mark.asyncio(loop_scope="module")

DACH = "territory:dach"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with launched() as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def company(stack: Stack) -> AsyncIterator[Company]:
    async with a_company(stack) as company:
        yield company


@pytest_asyncio.fixture(loop_scope="module")
async def page(browser: Browser) -> AsyncIterator[Page]:
    context = await browser.new_context(viewport=DESK, locale="en-GB")
    yield await context.new_page()
    await context.close()


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


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
async def test_everyone_can_use_it_everywhere(
    browser: Browser, company: Company, size: Any
) -> None:
    context = await browser.new_context(viewport=size, locale="de-DE")
    page = await context.new_page()
    await page.goto(company.link("/territories/dach", "ops"))
    await expect(page.locator("#people-body tbody tr")).to_have_count(2)

    assert await barriers(page) == []
    assert await sideways(page) == []
    await context.close()
