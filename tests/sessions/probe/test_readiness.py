"""A worker finds out whether Redis serves, and clients cannot load Redis with that."""

import asyncio
import time
from contextlib import aclosing

from sessions.client.connection import connect
from sessions.client.notifications import Notifications
from sessions.probe.readiness import Readiness
from tests.own_redis import OwnRedis, own_redis
from tests.processes import PATIENCE_S


async def count_tries(redis: OwnRedis) -> int:
    """Return how often Redis was tried: nothing else calls ZDIFF here."""
    calls = await redis.admin.info("commandstats")
    return int(calls["cmdstat_zdiff"]["calls"])


async def test_many_requests_cause_one_try_of_redis_per_second() -> None:
    async with own_redis() as redis, aclosing(connect(redis.url)) as client:
        readiness = Readiness(client, Notifications(client), is_embedded=False)
        began = time.monotonic()
        found = await asyncio.gather(*(readiness.find_fault() for _ in range(100)))
        assert found == [None] * 100
        assert await count_tries(redis) == 1
        for _ in range(1000):
            assert await readiness.find_fault() is None
        assert await count_tries(redis) <= 1 + time.monotonic() - began
        await redis.kill()
        async with asyncio.timeout(PATIENCE_S):
            while await readiness.find_fault() is None:
                await asyncio.sleep(0.05)
        await redis.start()
        async with asyncio.timeout(PATIENCE_S):
            while await readiness.find_fault():
                await asyncio.sleep(0.05)
