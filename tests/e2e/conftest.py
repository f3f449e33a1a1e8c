"""One browser for each module of pages, and a page of a company whose numbers are known."""

from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser, Page

from deploy.local import Stack
from tests.support.browser import DESK, launched
from tests.support.company import Company, a_company


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
