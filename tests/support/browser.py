"""A real browser for tests: the Chromium of the system, driven by Playwright."""

import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, async_playwright

DESK: Any = {"width": 1280, "height": 900}
PHONE: Any = {"width": 360, "height": 780}
DASH = "\N{EN DASH}"
FLAGS = [
    "--no-sandbox",  # tests run as root in CI's containers
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
MISSING = "no Chromium found; install it: apt-get update && apt-get install -y chromium"


def chromium() -> str:
    """The browser's path. Without one, a developer's run skips and CI fails."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(MISSING)
    pytest.skip(MISSING)


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """A headless browser, closed on exit."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


def complaints(page: Page) -> list[str]:
    """Fills up with what the page reports as errors: exceptions, console errors, CSP violations."""
    found: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            found.append(message.text)

    page.on("console", note)
    page.on("pageerror", lambda error: found.append(str(error)))
    return found


def plain(text: str) -> str:
    """The digits of a number as a page writes it in English."""
    return re.sub(r"[^0-9.\-]", "", text)


def euros(value: str) -> str:
    """A larger amount as a page writes it."""
    return f"€{Decimal(value).quantize(Decimal(1), ROUND_HALF_UP):,}"
