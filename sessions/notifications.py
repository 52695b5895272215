"""What Redis tells: on one subscriber connection a worker, on a Cluster on one for each node besides."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from sessions.connection import AWAY, Client, is_cluster, node_of

logger = logging.getLogger("holdline.notifications")

_AGAIN_S = 0.5


class Notifications:
    """Subscribes to channels and passes on what they say; what is missed is for the reader to notice.

    On a Cluster the channels of logs are sharded: they live on the node that holds the log.
    """

    def __init__(self, redis: Client, on_message: Callable[[str, bytes], Awaitable[None]]) -> None:
        self._redis = redis
        self._on_message = on_message
        self._pubsub = redis.pubsub(ignore_subscribe_messages=True)
        self._nodes: dict[str, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup

    async def subscribe(self, channel: str) -> None:
        """Listen to a log's channel; raises what is in AWAY."""
        if not is_cluster(self._redis):
            await self._pubsub.subscribe(channel)
            return
        await self._pubsub.ssubscribe(channel)
        node = node_of(self._redis, channel)
        if node not in self._nodes or self._nodes[node].done():
            self._nodes[node] = self._tasks.create_task(self._listen_to(node))

    async def unsubscribe(self, channel: str) -> None:
        """Listen no longer; raises what is in AWAY."""
        if is_cluster(self._redis):
            await self._pubsub.sunsubscribe(channel)
        else:
            await self._pubsub.unsubscribe(channel)

    async def run(self, common: str) -> None:
        """Listen to the channel `common` of all workers, and to those subscribed, until cancelled."""
        async with asyncio.TaskGroup() as self._tasks:
            while True:
                try:
                    await self._redis.initialize()
                    await self._pubsub.subscribe(common)
                    while True:
                        await self._pass_on(await self._pubsub.get_message(timeout=None))
                except (*AWAY, KeyError) as error:  # the latter for a slot that no node of a Cluster covers
                    logger.warning("notifications are cut (%s)", type(error).__name__)
                    await asyncio.sleep(_AGAIN_S)

    async def _listen_to(self, name: str) -> None:
        while name in self._pubsub.node_pubsub_mapping and (node := self._redis.get_node(node_name=name)):
            try:
                await self._pass_on(await self._pubsub.get_sharded_message(timeout=None, target_node=node))
            except AWAY as error:
                logger.warning("notifications of %s are cut (%s)", name, type(error).__name__)
                await asyncio.sleep(_AGAIN_S)

    async def _pass_on(self, message: dict[str, object] | None) -> None:
        if message is not None and message["type"] in ("message", "smessage"):
            channel, data = message["channel"], message["data"]
            assert isinstance(channel, bytes)
            assert isinstance(data, bytes)
            await self._on_message(channel.decode(), data)

    async def close(self) -> None:
        """Close the connections."""
        await self._pubsub.aclose()
