"""A real headless Chromium, started once; every test gets a profile of its own."""

import os
import shutil
from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser, Page, async_playwright

from tests.processes import Server

ARGUMENTS = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest_asyncio.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    assert path, "no Chromium on the PATH: make test installs one"
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=ARGUMENTS + as_root)
        yield browser
        await browser.close()


@pytest_asyncio.fixture
async def page(browser: Browser, server: Server) -> AsyncIterator[Page]:
    """The product's page in a fresh profile; a script error or a blocked load fails the test."""
    context = await browser.new_context(
        base_url=server.url, viewport={"width": 1280, "height": 800}
    )
    page = await context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on(
        "console",
        lambda said: faults.append(said.text) if "Content Security" in said.text else None,
    )
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    await page.goto("/")
    yield page
    await context.close()
    assert faults == []
    elsewhere = [url for url in requested if not url.startswith((server.url, "data:", "blob:"))]
    assert elsewhere == [], "the page loaded something from another host"
