"""Notifications end when they are cancelled, whatever they are doing."""

import asyncio

import pytest

from sessions.client.connection import connect
from sessions.client.notifications import Notifications


@pytest.mark.parametrize("steps", range(0, 60, 3))
async def test_a_cancellation_while_connecting_ends_the_notifications(
    redis_url: str, steps: int
) -> None:
    """On Python 3.11 redis-py swallows a cancellation while it connects."""
    redis = connect(redis_url)
    notifications = Notifications(redis)
    running = asyncio.create_task(notifications.run("channel", lambda data: None))
    for _ in range(steps):
        await asyncio.sleep(0)
    running.cancel()
    try:
        done, _ = await asyncio.wait([running], timeout=20)
        assert done
    finally:
        running.cancel()
        await asyncio.wait([running])
        await notifications.close()
        await redis.aclose()
