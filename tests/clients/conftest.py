"""Fixtures of the tests with independent clients."""

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

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
from tests.proxies.configurations import FRONTS
from tests.proxies.conftest import certificate as certificate
from tests.proxies.conftest import find_port
from tests.proxies.conftest import require as require_front
from tests.proxies.doors import API_KEY
from tests.proxies.fronts import start_front


def pytest_addoption(parser: pytest.Parser) -> None:
    fronts = ("direct", *FRONTS)
    parser.addoption("--front", choices=fronts, default="direct", help="a proxy before Holdline")


@pytest.fixture(scope="session")
def tls(pytestconfig: pytest.Config, certificate: Path) -> Path | None:
    """Return the certificate of the proxy and of the site; None without a proxy."""
    return None if pytestconfig.getoption("front") == "direct" else certificate


@pytest_asyncio.fixture(scope="session")
async def site(tls: Path | None) -> AsyncIterator[Site]:
    """Yield a web site of another origin."""
    async with web_site(tls) as opened:
        yield opened


@pytest_asyncio.fixture(scope="session")
async def server(
    pytestconfig: pytest.Config, upstream: ScriptedUpstream, site: Site, tls: Path | None
) -> AsyncIterator[Server]:
    """Yield a server that uses the fake upstream, and that the site's pages may use.

    Behind a proxy, its URL is that of the proxy, and /v1 needs a key.
    """
    settings = {
        "OPENAI_BASE_URL": upstream.base_url, "CHAT_MODEL": "gpt-5-mini", "RATE_LIMIT": "off",
        "CORS_ORIGINS": ",".join(site.origins),
    }  # fmt: skip
    async with AsyncExitStack() as stack:
        if not tls:
            yield await stack.enter_async_context(holdline(**settings))
            return
        require_front(name := pytestconfig.getoption("front"))
        settings["API_KEYS"] = f"clients:{API_KEY}"
        started = await stack.enter_async_context(holdline(**settings))
        front = await stack.enter_async_context(start_front(name, tls, find_port(started)))
        yield replace(started, url=front.url)


@pytest_asyncio.fixture
async def link(server: Server, tls: Path | None) -> AsyncIterator[TcpLink]:
    """Yield a TCP link to the server or its proxy."""
    async with tcp_link(server, tls) as opened:
        yield opened


@pytest.fixture
def home(tmp_path: Path, certificate: Path) -> Path:
    """Return the home of a program, with the authority that it trusts."""
    return Path(shutil.copy(certificate / "ca.pem", tmp_path)).parent


@pytest_asyncio.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """Yield an empty tab of Chromium with its own profile."""
    context = await browser.new_context(ignore_https_errors=True)
    yield await context.new_page()
    await context.close()


@pytest_asyncio.fixture(scope="session", params=["Chromium", "Firefox", "WebKitGTK"])
async def tab(request: pytest.FixtureRequest, browser: Browser) -> AsyncIterator[Tab]:
    """Yield a tab of each browser engine."""
    if request.param == "Chromium":
        page = await browser.new_page(ignore_https_errors=True)
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
