"""Fixtures of the tests with real proxies."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import trustme

from tests import installed
from tests.browser.conftest import browser as browser
from tests.fake_upstream import ScriptedUpstream
from tests.processes import Server, holdline, private_folder
from tests.proxies.configurations import FRONTS
from tests.proxies.doors import API_KEY
from tests.proxies.fronts import Front, find_missing, start_front


@pytest_asyncio.fixture(scope="session")
async def certificate() -> AsyncIterator[Path]:
    """Yield a certificate for localhost, signed by its own authority."""
    async with private_folder() as folder:
        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        authority.cert_pem.write_to_path(folder / "ca.pem")
        issued.private_key_pem.write_to_path(folder / "holdline.key")
        for pem in issued.cert_chain_pems:
            pem.write_to_path(folder / "holdline.crt", append=True)
        yield folder


@pytest_asyncio.fixture(scope="session")
async def server(redis_url: str, upstream: ScriptedUpstream) -> AsyncIterator[Server]:
    """Yield a server with an API key: without one, /v1 accepts no request through a proxy."""
    async with holdline(
        REDIS_URL=redis_url,
        OPENAI_BASE_URL=upstream.base_url,
        CHAT_MODEL="m",
        RATE_LIMIT="off",
        CONTINUE_MAX="0",
        API_KEYS=f"proxies:{API_KEY}",
    ) as started:
        yield started


def require(name: str) -> None:
    """Skip the test if a proxy is not installed; in continuous integration, fail."""
    missing = find_missing(name)
    installed.require(missing or "", not missing)


@pytest_asyncio.fixture(scope="session", params=FRONTS)
async def front(
    request: pytest.FixtureRequest, server: Server, certificate: Path
) -> AsyncIterator[Front]:
    """Yield each proxy in front of the shared server."""
    require(request.param)
    async with start_front(request.param, certificate, find_port(server)) as started:
        yield started


def find_port(server: Server) -> int:
    port = urlsplit(server.url).port
    assert port
    return port
