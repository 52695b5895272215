"""Fixtures of the tests with independent clients."""

import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.browser.conftest import browser as browser
from tests.clients.browsers import ChromiumTab, Tab, find_minibrowser, firefox, webkit
from tests.fake_upstream import ScriptedUpstream
from tests.installed import require
from tests.processes import Server, holdline


@pytest_asyncio.fixture(scope="session")
async def server(upstream: ScriptedUpstream) -> AsyncIterator[Server]:
    """Yield a server as the README starts one, whose upstream is the fake one."""
    settings = {"OPENAI_BASE_URL": upstream.base_url, "CHAT_MODEL": "gpt-5-mini"}
    async with holdline(RATE_LIMIT="off", **settings) as started:
        yield started


@pytest_asyncio.fixture(scope="session", params=["Chromium", "Firefox", "WebKitGTK"])
async def tab(request: pytest.FixtureRequest, browser: Browser) -> AsyncIterator[Tab]:
    """Yield a tab of each browser engine."""
    if request.param == "Chromium":
        page = await browser.new_page()
        yield ChromiumTab(page)
        await page.close()
    elif request.param == "Firefox":
        require("firefox-esr", shutil.which("firefox-esr"))
        async with firefox() as started:
            yield started
    else:
        require("webkit2gtk-driver", shutil.which("WebKitWebDriver") and find_minibrowser())
        require("xvfb", shutil.which("Xvfb"))
        async with webkit() as started:
            yield started
