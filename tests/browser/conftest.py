"""Start one headless Chromium; each test gets a separate profile."""

import os
import shutil
from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    ViewportSize,
    async_playwright,
)

from tests.browser.tabs import tabbed_browser
from tests.processes import Server

ARGUMENTS = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
    # Browsers send no Fetch Metadata to these hosts: the URLs are neither https nor loopback.
    "--host-resolver-rules=MAP *.test 127.0.0.1",
]  # fmt: skip


if os.geteuid() == 0:
    ARGUMENTS.append("--no-sandbox")


def find_chromium() -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next((found for name in names if (found := shutil.which(name))), None)
    assert path, "Chromium is not on the PATH; `make test` installs it"
    return path


@pytest_asyncio.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest_asyncio.fixture
async def window() -> AsyncIterator[BrowserContext]:
    """Yield a window of tabs, of which only the one in front is visible."""
    async with tabbed_browser(find_chromium(), *ARGUMENTS) as context:
        yield context


@pytest_asyncio.fixture
async def page(browser: Browser, server: Server) -> AsyncIterator[Page]:
    """Open the page in a new profile; a script error or a blocked request fails the test."""
    viewport: ViewportSize = {"width": 1280, "height": 800}
    context = await browser.new_context(base_url=server.url, viewport=viewport)
    page = await context.new_page()
    errors: list[str] = []

    def check_policy(message: ConsoleMessage) -> None:
        if "Content Security" in message.text:
            errors.append(message.text)

    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", check_policy)
    requested: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    await page.goto("/")
    yield page
    await context.close()
    assert errors == []
    own = (server.url, "data:", "blob:")
    foreign = [url for url in requested if not url.startswith(own)]
    assert foreign == [], "the page sent a request to another host"


@pytest_asyncio.fixture
async def chinese_page(browser: Browser, server: Server) -> AsyncIterator[Page]:
    """Open the page in a browser whose language is Chinese."""
    context = await browser.new_context(base_url=server.url, locale="zh-CN")
    page = await context.new_page()
    await page.goto("/")
    yield page
    await context.close()
