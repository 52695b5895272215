"""Fixtures of the tests with independent clients."""

import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.browser.conftest import browser as browser
from tests.browser.tcp_link import TcpLink, tcp_link
from tests.clients.browsers import ChromiumTab, Tab, find_minibrowser, firefox, webkit
from tests.clients.site import Site, web_site
from tests.fake_upstream import ScriptedUpstream
from tests.installed import require
from tests.processes import Server, holdline


@pytest_asyncio.fixture(scope="session")
async def site() -> AsyncIterator[Site]:
    """Yield a web site of another origin."""
    async with web_site() as opened:
        yield opened


@pytest_asyncio.fixture(scope="session")
async def server(upstream: ScriptedUpstream, site: Site) -> AsyncIterator[Server]:
    """Yield a server that uses the fake upstream, and that the site's pages may use."""
    async with holdline(
        OPENAI_BASE_URL=upstream.base_url,
        CHAT_MODEL="gpt-5-mini",
        RATE_LIMIT="off",
        CORS_ORIGINS=",".join(site.origins),
    ) as started:
        yield started


@pytest_asyncio.fixture
async def link(server: Server) -> AsyncIterator[TcpLink]:
    """Yield a TCP link to the server."""
    async with tcp_link(server) as opened:
        yield opened


@pytest_asyncio.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """Yield an empty tab of Chromium with its own profile."""
    context = await browser.new_context()
    yield await context.new_page()
    await context.close()


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
