"""Notifications end when they are cancelled, whatever they are doing."""

import asyncio

import pytest

from sessions.client.connection import Client, connect
from sessions.client.notifications import Notifications
from tests.own_redis import own_cluster
from tests.processes import PATIENCE_S


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


# redis-py leaves the sockets of lost connections to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_subscription_while_connections_are_lost_raises_nothing_and_is_restored() -> None:
    async with own_cluster() as (url, masters):
        nodes: list[Client] = [master.admin for master in masters]
        redis = connect(url)
        notifications = Notifications(redis)
        running = asyncio.create_task(notifications.run("channel", lambda data: None))
        confirmed: set[str] = set()
        channels: list[str] = []

        async def subscribe(channel: str) -> None:
            await notifications.subscribe(channel, confirmed.add, lambda channel, data: None)

        async def confirm() -> None:
            async with asyncio.timeout(PATIENCE_S):
                while confirmed != set(channels):
                    await asyncio.sleep(0.01)

        for number in range(3):
            channels += [f"{number} {index}" for index in range(20)]
            subscribing = asyncio.gather(*map(subscribe, channels[-20:]))
            for node in nodes:
                await node.execute_command("CLIENT KILL TYPE pubsub")
            await subscribing
            await confirm()
        running.cancel()
        await asyncio.wait([running])
        await notifications.close()
        await redis.aclose()
