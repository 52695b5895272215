"""What Redis tells: on one subscriber connection a worker, on a Cluster on one for each node besides."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from sessions.client.connection import Client, is_cluster, node_of
from sessions.client.errors import UNAVAILABLE_ERRORS, as_connection_error

logger = logging.getLogger("holdline.notifications")

_RECONNECT_DELAY_S = 0.5


class Notifications:
    """Subscribes to channels and passes on what they say; what is missed is for the reader to notice.

    On a Cluster the channels of logs are sharded: they live on the node that holds the log. When a connection
    is lost, all are made anew, by what is then known of the nodes.
    """

    def __init__(self, redis: Client, on_message: Callable[[str, bytes], Awaitable[None]]) -> None:
        self._redis = redis
        self._sharded = is_cluster(redis)
        self._on_message = on_message
        self._channels: set[str] = set()
        self._pubsub: Any = None
        self._nodes: dict[str, asyncio.Task[None]] = {}
        self._tasks: asyncio.TaskGroup

    async def subscribe(self, channel: str) -> None:
        """Listen to a log's channel, as soon as there is a connection."""
        self._channels.add(channel)
        if self._pubsub:
            with (
                contextlib.suppress(*UNAVAILABLE_ERRORS),
                as_connection_error(),
            ):  # then it is subscribed to with the next connection
                await self._subscribe(channel)

    async def unsubscribe(self, channel: str) -> None:
        """Listen no longer."""
        self._channels.discard(channel)
        if self._pubsub:
            with contextlib.suppress(*UNAVAILABLE_ERRORS), as_connection_error():
                await (self._pubsub.sunsubscribe if self._sharded else self._pubsub.unsubscribe)(
                    channel
                )

    async def run(self, broadcast_channel: str) -> None:
        """Listen to the channel `common` of all workers, and to those subscribed, until cancelled."""
        while True:
            try:
                async with asyncio.TaskGroup() as self._tasks:
                    await self._connect(broadcast_channel)
                    self._tasks.create_task(self._listen())
            except* UNAVAILABLE_ERRORS as group:
                logger.warning("notifications are cut (%s)", type(group.exceptions[0]).__name__)
            await self.close()
            await asyncio.sleep(_RECONNECT_DELAY_S)

    async def _connect(self, broadcast_channel: str) -> None:
        with as_connection_error():
            await self._redis.initialize()
            pubsub = self._redis.pubsub(ignore_subscribe_messages=True)
            await pubsub.subscribe(broadcast_channel)
            self._pubsub = pubsub
            for channel in list(self._channels):
                await self._subscribe(channel)

    async def _subscribe(self, channel: str) -> None:
        if not self._sharded:
            await self._pubsub.subscribe(channel)
            return
        await self._pubsub.ssubscribe(channel)
        node = node_of(self._redis, channel)
        if node not in self._nodes or self._nodes[node].done():
            self._nodes[node] = self._tasks.create_task(self._listen_to(node))

    async def _listen(self) -> None:
        while True:
            with as_connection_error():
                message = await self._pubsub.get_message(timeout=None)
            await self._dispatch(message)

    async def _listen_to(self, name: str) -> None:
        pubsub = self._pubsub
        while name in pubsub.node_pubsub_mapping and (node := self._redis.get_node(node_name=name)):
            with as_connection_error():
                message = await pubsub.get_sharded_message(timeout=None, target_node=node)
            await self._dispatch(message)

    async def _dispatch(self, message: dict[str, Any] | None) -> None:
        if message is not None and message["type"] in ("message", "smessage"):
            await self._on_message(message["channel"].decode(), message["data"])

    async def close(self) -> None:
        """Close the connections."""
        pubsub, self._pubsub = self._pubsub, None
        if pubsub:
            with contextlib.suppress(*UNAVAILABLE_ERRORS), as_connection_error():
                await pubsub.aclose()
