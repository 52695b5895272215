"""Fixtures of the tests with real proxies."""

import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import trustme

from tests.browser.conftest import browser as browser
from tests.processes import Server, private_folder
from tests.proxies.fronts import FRONTS, Certificate, Front, find_missing, start_front


@pytest_asyncio.fixture(scope="session")
async def certificate() -> AsyncIterator[Certificate]:
    """Yield a certificate for localhost, signed by its own authority."""
    async with private_folder() as folder:
        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        authority.cert_pem.write_to_path(folder / "ca.pem")
        issued.private_key_pem.write_to_path(folder / "holdline.key")
        for pem in issued.cert_chain_pems:
            pem.write_to_path(folder / "holdline.crt", append=True)
        yield Certificate(folder)


def require(name: str) -> None:
    """Skip the test if the proxy is not installed; in continuous integration, fail."""
    if missing := find_missing(name):
        if os.environ.get("CI"):
            pytest.fail(f"{missing} is not installed")
        pytest.skip(f"not run, because it is not installed: {missing}")


@pytest_asyncio.fixture(scope="session", params=FRONTS)
async def front(
    request: pytest.FixtureRequest, server: Server, certificate: Certificate
) -> AsyncIterator[Front]:
    """Yield each proxy in front of the shared server."""
    require(request.param)
    async with start_front(request.param, certificate, find_port(server)) as started:
        yield started


def find_port(server: Server) -> int:
    return int(server.url.rpartition(":")[2])
