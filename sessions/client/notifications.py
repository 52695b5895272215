"""Receive Redis's pub/sub messages over one connection; on a Cluster, one more for each node."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from redis.exceptions import TimeoutError as RedisTimeoutError

from config.system.sampled_log import SampledLog
from sessions.client.connection import Client, find_node, is_cluster
from sessions.client.errors import (
    UNAVAILABLE_ERRORS,
    ResponseError,
    as_connection_error,
    call_redis_py,
)
from sessions.client.faults import Fault, find_fault

logger = logging.getLogger("holdline.notifications")

_RECONNECT_DELAY_S = 0.5

_PING_INTERVAL_S = 1.0
"""A connection that answers none of two PINGs is dead: that is noticed within three seconds."""

_MAX_UNANSWERED = 2

_ERRORS = (*UNAVAILABLE_ERRORS, ResponseError)
"""Errors that `Notifications.run` reports, and after which it connects again."""

OnSubscribed = Callable[[str], None]
"""Called with a channel whenever Redis confirms it; must not block."""

OnMessage = Callable[[str, bytes], None]
"""Called with a channel and a message; must not block."""

_BROADCAST = ""
"""The connection of the channels of all workers; the others are named after their node."""


class Notifications:
    """Subscriptions to channels, restored whenever a connection is replaced.

    A channel has the name of a key. On a Cluster it is sharded: it is on the key's node. When one
    connection is lost, all are replaced, with the topology known by then. Messages that are sent in
    between are lost; each confirmation of a subscription requires the receiver to read the key.
    """

    def __init__(self, redis: Client) -> None:
        self.fault: Fault | None = None
        """Why notifications are not received; None if they are."""
        self._log = SampledLog(logger)
        self._redis = redis
        self._is_sharded = is_cluster(redis)
        self._channels: dict[str, tuple[OnSubscribed, OnMessage]] = {}
        self._pubsub: Any = None
        self._nodes: asyncio.Queue[str]
        """The nodes of subscriptions that have been sent on the current connection."""
        self._unanswered: dict[str, int] = {}
        self._broadcast_channel = ""
        self._on_broadcast: Callable[[bytes], None]

    async def subscribe(
        self, channel: str, on_subscribed: OnSubscribed, on_message: OnMessage
    ) -> None:
        """Subscribe to a key's channel, now or with the next connection."""
        self._channels[channel] = on_subscribed, on_message
        if self._pubsub:
            with contextlib.suppress(*_ERRORS):
                await self._subscribe(channel)

    async def unsubscribe(self, channel: str) -> None:
        """End a subscription."""
        self._channels.pop(channel, None)
        if self._pubsub:
            with contextlib.suppress(*_ERRORS), as_connection_error():
                await (self._pubsub.sunsubscribe if self._is_sharded else self._pubsub.unsubscribe)(
                    channel
                )

    async def run(self, broadcast_channel: str, on_broadcast: Callable[[bytes], None]) -> None:
        """Receive until cancelled, from the channel of all workers and from those subscribed."""
        self._broadcast_channel, self._on_broadcast = broadcast_channel, on_broadcast
        while True:
            try:
                self._nodes = asyncio.Queue()
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._receive_from_nodes(tasks))
                    await self._connect()
                    tasks.create_task(self._receive())
                    tasks.create_task(self._ping())
            except* _ERRORS as group:
                self.fault = find_fault(group.exceptions[0])
                self._log.warn(f"lost the Redis pub/sub connection ({self.fault})")
            except* Exception as group:  # no message may end the worker
                logger.error("the Redis pub/sub connection failed", exc_info=group)
            await self.close()
            await asyncio.sleep(_RECONNECT_DELAY_S)

    async def close(self) -> None:
        """Close the connections."""
        pubsub, self._pubsub = self._pubsub, None
        self._unanswered.clear()
        if pubsub:
            with contextlib.suppress(*_ERRORS), as_connection_error():
                await pubsub.aclose()

    async def _connect(self) -> None:
        await call_redis_py(self._redis.initialize())
        pubsub = self._redis.pubsub()
        await call_redis_py(pubsub.subscribe(self._broadcast_channel))
        self._pubsub = pubsub
        for channel in list(self._channels):
            await self._subscribe(channel)

    async def _subscribe(self, channel: str) -> None:
        pubsub = self._pubsub
        await call_redis_py((pubsub.ssubscribe if self._is_sharded else pubsub.subscribe)(channel))
        if not self._is_sharded or pubsub is not self._pubsub:  # replaced meanwhile: see `_connect`
            return
        self._nodes.put_nowait(find_node(self._redis, channel))

    async def _receive(self) -> None:
        while True:
            message = await call_redis_py(self._pubsub.get_message(timeout=None))
            self._dispatch(_BROADCAST, message)

    async def _receive_from_nodes(self, tasks: asyncio.TaskGroup) -> None:
        """Receive from each node with a subscription.

        A task of the group creates the receiving tasks: a group that ends rejects new tasks, and
        this error must not reach a subscriber.
        """
        receiving: dict[str, asyncio.Task[None]] = {}
        while True:
            node = await self._nodes.get()
            if node not in receiving or receiving[node].done():
                receiving[node] = tasks.create_task(self._receive_sharded(node))

    async def _receive_sharded(self, name: str) -> None:
        pubsub = self._pubsub
        while name in pubsub.node_pubsub_mapping and (node := self._redis.get_node(node_name=name)):
            message = await call_redis_py(
                pubsub.get_sharded_message(timeout=None, target_node=node)
            )
            self._dispatch(name, message)

    def _dispatch(self, connection: str, message: dict[str, Any] | None) -> None:
        self._unanswered[connection] = 0
        kind = message["type"] if message else None
        if not message or kind not in ("message", "smessage", "subscribe", "ssubscribe"):
            return
        channel = message["channel"].decode()
        is_message = kind in ("message", "smessage")
        if is_message and channel == self._broadcast_channel:
            self._on_broadcast(message["data"])
        elif receiver := self._channels.get(channel):
            on_subscribed, on_message = receiver
            on_message(channel, message["data"]) if is_message else on_subscribed(channel)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(_PING_INTERVAL_S)
            self.fault = None  # no subscription was rejected
            nodes = self._pubsub.node_pubsub_mapping if self._is_sharded else {}
            for name, pubsub in [(_BROADCAST, self._pubsub), *nodes.items()]:
                unanswered = self._unanswered.get(name, 0)
                if unanswered >= _MAX_UNANSWERED:
                    raise RedisTimeoutError(f"{unanswered} PINGs without an answer")
                self._unanswered[name] = unanswered + 1
                await call_redis_py(pubsub.ping())


async def try_subscription(redis: Client, broadcast_channel: str, channel: str) -> None:
    """Subscribe to a channel of all workers and to that of a key, and end both subscriptions.

    Raises the error with which Redis rejects a channel or a command.
    """
    pubsub = redis.pubsub()
    try:
        await call_redis_py(pubsub.subscribe(broadcast_channel))
        await call_redis_py(pubsub.get_message(timeout=None))
        await call_redis_py(pubsub.ping())
        await call_redis_py(pubsub.get_message(timeout=None))
        if is_cluster(redis):
            await call_redis_py(pubsub.ssubscribe(channel))
            await call_redis_py(pubsub.get_sharded_message(timeout=None))
            await call_redis_py(pubsub.sunsubscribe(channel))
            await call_redis_py(pubsub.get_sharded_message(timeout=None))
        else:
            await call_redis_py(pubsub.subscribe(channel))
            await call_redis_py(pubsub.get_message(timeout=None))
            await call_redis_py(pubsub.unsubscribe(channel))
            await call_redis_py(pubsub.get_message(timeout=None))
    finally:
        with contextlib.suppress(*_ERRORS), as_connection_error():
            await pubsub.aclose()
