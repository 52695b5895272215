"""The connection to Redis: our own timeouts and retries, and what counts as "away"."""

import asyncio
from typing import Any
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, ConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from sessions.client.errors import (
    TOTAL_TIMEOUT_S,
    UNAVAILABLE_ERRORS,
    ReplyTimeout,
    ResponseError,
    classify_reply,
)

_REPLY_TIMEOUT_S = 5
"""How long Redis may take for a group of scripts, in seconds."""

_CONNECTIONS_MAX = 64

Client = Any
"""A `Redis` or `RedisCluster`: their own types allow for replies decoded to str, which ours never are."""


class PipelinePool:
    """The connections that calls take in turn; a pool of redis-py takes a quarter of a call's time itself."""

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._all: list[Any] = []
        self._free: list[Any] = []
        self._room = asyncio.Semaphore(min(_CONNECTIONS_MAX, pool.max_connections))

    async def exchange(self, packed: bytes, count: int) -> list[Any]:
        """The replies to so many packed commands, which are sent again where the connection fails."""
        if not self._room.locked():
            async with self._room:
                return await self._take_line(packed, count)
        async with ReplyTimeout(), self._room:
            return await self._take_line(packed, count)

    async def _take_line(self, packed: bytes, count: int) -> list[Any]:
        connection = self._free.pop() if self._free else self._new()
        try:
            return await self._exchange(connection, packed, count)
        except BaseException:  # replies may still be on their way
            await connection.disconnect(nowait=True)
            raise
        finally:
            self._free.append(connection)

    async def _exchange(self, connection: Any, packed: bytes, count: int) -> list[Any]:
        try:
            return await self._try(connection, packed, count)
        except (RedisConnectionError, RedisTimeoutError):
            await connection.disconnect(nowait=True)
        async with ReplyTimeout(TOTAL_TIMEOUT_S - _REPLY_TIMEOUT_S):
            found: list[Any] = await connection.retry.call_with_retry(
                lambda: self._try(connection, packed, count), lambda error: connection.disconnect()
            )
        return found

    def _new(self) -> Any:
        connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
        self._all.append(connection)
        return connection

    async def _try(self, connection: Any, packed: bytes, count: int) -> list[Any]:
        replies: list[Any] = []
        async with ReplyTimeout(_REPLY_TIMEOUT_S):
            await connection.send_packed_command(packed, check_health=False)
            for _ in range(count):
                try:
                    replies.append(await connection.read_response())
                except ResponseError as error:
                    replies.append(classify_reply(error))
        return replies

    async def close(self) -> None:
        """Close every connection at once."""
        closing = [connection.disconnect(nowait=True) for connection in self._all]
        await asyncio.gather(*closing, return_exceptions=True)


class _Single(Redis):
    """A connection that Redis has closed makes uvloop raise a RuntimeError at the next write."""

    def __init__(self, url: str, **options: Any) -> None:
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS_MAX,
            timeout=TOTAL_TIMEOUT_S,  # that a command waits for a free connection, rather than to fail at once
            **options,
        )
        super().__init__(connection_pool=pool)
        # One timeout for a whole group of replies in place of one for each.
        self.pipelines = PipelinePool(
            ConnectionPool.from_url(url, **options | {"socket_timeout": None})
        )

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await self.pipelines.close()
        await self.connection_pool.disconnect()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        async with ReplyTimeout():
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


class _Cluster(RedisCluster):
    """When one command finds the Cluster changed, redis-py closes the connections of all."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        async with ReplyTimeout():
            return await super().execute_command(*args, **options)


def connect(url: str) -> Client:
    """A client that gives up on a silent Redis within about 10 s; it connects at its first command.

    With `redis+cluster://` or `rediss+cluster://` the URL names nodes of a Redis Cluster, with commas
    between: one that answers is enough. A command whose reply was lost is sent again, so that every script
    must bear being run twice.
    """
    options: dict[str, Any] = {
        "socket_connect_timeout": 2,
        "socket_timeout": 5,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.5), retries=3),
        "protocol": 2,
    }
    scheme, cluster, rest = url.partition("+cluster://")
    if cluster:
        # Its pools cannot wait for a free connection. One slot without a node is no reason to stop serving.
        options |= {"max_connections": 4096, "require_full_coverage": False}
        first, *others = rest.split(",")
        if others:
            others[-1], slash, tail = others[-1].partition("/")
            first += slash + tail
        nodes = [
            (url.hostname, url.port or 6379) for url in (urlsplit(f"//{node}") for node in others)
        ]
        options["startup_nodes"] = [ClusterNode(str(host), port) for host, port in nodes]
        return _Cluster.from_url(f"{scheme}://{first}", **options)
    return _Single(url, **options)


def is_cluster(redis: Client) -> bool:
    """Whether a client is that of a Redis Cluster."""
    return isinstance(redis, RedisCluster)


def node_of(redis: Client, key: str) -> str:
    """The name of the node that holds a key: "" on a single Redis, and while the Cluster's are unknown."""
    if not is_cluster(redis):
        return ""
    try:
        return str(redis.get_node_from_key(key).name)
    except UNAVAILABLE_ERRORS:
        return ""
