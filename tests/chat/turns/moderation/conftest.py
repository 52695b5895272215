"""Fixtures: a fake moderation endpoint, and servers that use it."""

from collections.abc import AsyncIterator

import httpx
import pytest_asyncio

from tests.conftest import KEY
from tests.fake_moderation import FakeModeration, fake_moderation
from tests.fake_upstream import ScriptedUpstream
from tests.processes import Server, holdline


@pytest_asyncio.fixture(scope="session")
async def moderation() -> AsyncIterator[FakeModeration]:
    async with fake_moderation() as endpoint:
        yield endpoint


def settings_of(upstream: ScriptedUpstream, moderation: FakeModeration) -> dict[str, str]:
    """Return the settings of a server that checks questions and answers."""
    return {
        "OPENAI_BASE_URL": upstream.base_url,
        "OPENAI_API_KEY": KEY,
        "CHAT_MODEL": "m",
        "RATE_LIMIT": "off",
        "MODERATION": "both",
        "MODERATION_BASE_URL": moderation.base_url,
    }


@pytest_asyncio.fixture(scope="session")
async def server(
    redis_url: str, upstream: ScriptedUpstream, moderation: FakeModeration
) -> AsyncIterator[Server]:
    """Yield a server that withholds texts that cannot be checked."""
    async with holdline(REDIS_URL=redis_url, **settings_of(upstream, moderation)) as started:
        yield started


@pytest_asyncio.fixture(scope="session")
async def open_server(
    redis_url: str, upstream: ScriptedUpstream, moderation: FakeModeration
) -> AsyncIterator[Server]:
    """Yield a server that lets texts pass that cannot be checked."""
    settings = settings_of(upstream, moderation) | {"MODERATION_FAIL": "open"}
    async with holdline(REDIS_URL=redis_url, **settings) as started:
        yield started


@pytest_asyncio.fixture
async def client(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as browser:
        yield browser


@pytest_asyncio.fixture
async def open_client(open_server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=open_server.url, timeout=60) as browser:
        yield browser
