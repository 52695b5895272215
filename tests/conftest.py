"""Fixtures of all tests: one Redis, one fake upstream and one server, each started once."""

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from hypothesis import settings

from chat.log.batches import Batches
from sessions.client.connection import Client, connect
from sessions.turns.turn_store import TurnStore
from tests.fake_upstream import ScriptedUpstream
from tests.processes import REDIS_KINDS, Server, holdline, redis_of_kind

# A shell starts a background job with SIGINT ignored, and every process of a test inherits that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No test depends on the machine's speed.
settings.register_profile("default", deadline=None)
settings.load_profile("default")
# With --hypothesis-profile=deep the state machine runs more and longer examples.
settings.register_profile("deep", deadline=None)

KEY = "sk-test-secret-key-0123456789"
"""The upstream's key. Only requests to the upstream may contain it."""


_ANY_REDIS = [
    Path(__file__).parent / path
    for path in (
        "browser",
        "chat/api/http",
        "chat/api/openapi",
        "chat/api/test_cors.py",
        "chat/api/test_formats.py",
        "chat/api/test_guard.py",
        "chat/api/test_headers.py",
        "chat/api/test_large_bodies.py",
        "chat/api/test_lenient_parsing.py",
        "chat/api/test_page_files.py",
        "chat/api/test_rejected_bodies.py",
        "chat/api/trust",
        "chat/api/v1/test_access.py",
        "chat/export",
        "chat/turns/moderation",
        "chat/upstream",
        "proxies",
    )
]
"""For the page, proxies, HTTP, formats, model servers and moderation, any kind of Redis will do."""


_LONGEST = ("test_state_machine.py", "test_chaos.py")
"""The tests that take longest: begun last, they would run alone on idle processors."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with `_LONGEST`; run the tests of `_ANY_REDIS` on one Redis only, not on a Cluster."""
    items.sort(key=lambda item: item.path.name not in _LONGEST)
    dropped = {
        item
        for item in items
        if isinstance(item, pytest.Function)
        and hasattr(item, "callspec")
        and "cluster" in item.callspec.params.values()
        and any(item.path.is_relative_to(path) for path in _ANY_REDIS)
    }
    if dropped:
        config.hook.pytest_deselected(items=list(dropped))
        items[:] = [item for item in items if item not in dropped]


@pytest_asyncio.fixture(scope="session", params=REDIS_KINDS)
async def redis_url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Yield the URL of a Redis that all tests share, and then of a Redis Cluster of three masters.

    Owners are random, so that no test sees another test's keys.
    """
    async with redis_of_kind(request.param) as url:
        yield url


@pytest_asyncio.fixture(scope="module", params=REDIS_KINDS)
async def lone_redis_url(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """Yield the same without the other tests' Holdlines.

    They would take over a turn that is released, or whose worker is killed, with their settings.
    """
    async with redis_of_kind(request.param) as url:
        yield url


@pytest_asyncio.fixture
async def redis(redis_url: str) -> AsyncIterator[Client]:
    client = connect(redis_url)
    yield client
    await client.aclose()


@pytest.fixture
def turns(redis: Client) -> TurnStore:
    """Return a store whose leases do not expire during a test."""
    return TurnStore(redis, lease_s=60, ttl_s=1000)


@pytest_asyncio.fixture
async def writers(turns: TurnStore) -> AsyncIterator[Batches]:
    """Yield the running batches of a worker."""
    writers = Batches(turns, lease_s=600)
    running = asyncio.create_task(writers.run())
    await asyncio.sleep(0)  # lets its tasks start
    yield writers
    running.cancel()
    await asyncio.wait([running])


@pytest_asyncio.fixture(scope="session")
async def upstream() -> AsyncIterator[ScriptedUpstream]:
    """Yield a fake upstream, which responds only when and as a test directs it."""
    scripted = ScriptedUpstream()
    scripted.base_url = await scripted.start()
    yield scripted
    await scripted.stop()


def start_server(redis_url: str, upstream: ScriptedUpstream) -> AbstractAsyncContextManager[Server]:
    """Start a server that uses the shared Redis and the fake upstream."""
    return holdline(
        REDIS_URL=redis_url,
        OPENAI_BASE_URL=upstream.base_url,
        OPENAI_API_KEY=KEY,
        CHAT_MODEL="test-model,other-model",
        RATE_LIMIT="off",
        CONTINUE_MAX="0",  # interrupted answers fail at once; test_continue.py tests continuations
    )


@pytest_asyncio.fixture(scope="session")
async def server(redis_url: str, upstream: ScriptedUpstream) -> AsyncIterator[Server]:
    """Yield the server that most tests share."""
    async with start_server(redis_url, upstream) as started:
        yield started


@pytest_asyncio.fixture
async def client(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client with its own session."""
    async with httpx.AsyncClient(base_url=server.url, timeout=httpx.Timeout(60)) as browser:
        yield browser


@pytest_asyncio.fixture(scope="module")
async def new_server(redis_url: str, upstream: ScriptedUpstream) -> AsyncIterator[Server]:
    """Yield a server whose estimates of tokens no other module has corrected."""
    async with start_server(redis_url, upstream) as started:
        yield started


@pytest_asyncio.fixture
async def new_client(new_server: Server) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of that server with its own session."""
    async with httpx.AsyncClient(base_url=new_server.url, timeout=httpx.Timeout(60)) as browser:
        yield browser


@pytest.fixture
def question() -> str:
    """Return a question that no other test sends."""
    return f"question {uuid.uuid4().hex}"
