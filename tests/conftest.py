"""What all tests share: one Redis, one scripted upstream and one server, started once."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from hypothesis import settings

from chat.log.batch import Batches
from sessions.client.connection import Client, connect
from sessions.turn_store import TurnStore
from tests.fake_upstream import ScriptedUpstream
from tests.processes import REDIS_KINDS, Server, holdline, redis_of_kind

settings.register_profile(
    "deep"
)  # for --hypothesis-profile: tests that can look for longer then do

KEY = "sk-test-secret-key-0123456789"
"""The upstream's key; it may never be seen outside the request to the upstream."""


@pytest_asyncio.fixture(scope="session", params=REDIS_KINDS)
async def redis_url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A real Redis that all tests share, and then a real Redis Cluster of three masters.

    Owners are random, so that no test sees another's keys.
    """
    async with redis_of_kind(request.param) as url:
        yield url


@pytest_asyncio.fixture(scope="module", params=REDIS_KINDS)
async def lone_redis_url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """The same without a Holdline, which would take over the turns that a test lets go of."""
    async with redis_of_kind(request.param) as url:
        yield url


@pytest_asyncio.fixture
async def redis(redis_url: str) -> AsyncIterator[Client]:
    client = connect(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def turns(redis: Client) -> TurnStore:
    """Turns whose leases do not run out."""
    return TurnStore(redis, lease_s=600, ttl_s=1000, rate=(0, 1))


@pytest_asyncio.fixture
async def writers(turns: TurnStore) -> AsyncIterator[Batches]:
    """A worker's batches at work."""
    writers = Batches(turns, lease_s=600)
    running = asyncio.create_task(writers.run())
    await asyncio.sleep(0)
    yield writers
    running.cancel()
    await asyncio.wait([running])


@pytest_asyncio.fixture(scope="session")
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """The model's server: it answers only what and when the test says."""
    scripted = ScriptedUpstream()
    scripted.base_url = await scripted.start()
    yield scripted
    await scripted.stop()


@pytest_asyncio.fixture(scope="session")
async def server(redis_url: str, upstream: ScriptedUpstream) -> AsyncIterator[Server]:
    """A server before the shared Redis and the scripted upstream."""
    async with holdline(
        REDIS_URL=redis_url,
        OPENAI_BASE_URL=upstream.base_url,
        OPENAI_API_KEY=KEY,
        CHAT_MODEL="test-model,other-model",
        RATE_LIMIT="off",
        CONTINUE_MAX="0",  # what breaks off fails at once: continuing has tests of its own
    ) as started:
        yield started


@pytest_asyncio.fixture
async def client(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """A browser of its own session."""
    async with httpx.AsyncClient(base_url=server.url, timeout=httpx.Timeout(60)) as browser:
        yield browser


@pytest.fixture
def question() -> str:
    """A question that no other test asks."""
    return f"question {uuid.uuid4().hex}"
