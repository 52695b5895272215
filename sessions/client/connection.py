"""The connection to Redis: its pool, timeouts and retries."""

import asyncio
from typing import Any

from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff

from sessions.client.errors import (
    CLOSED_CONNECTION_ERRORS,
    CONNECTION_ERRORS,
    TOTAL_TIMEOUT_S,
    UNAVAILABLE_ERRORS,
    ReplyTimeout,
    ResponseError,
    as_connection_error,
    as_rejection,
    classify_reply,
    closed_connection,
    count_cancellations,
)
from sessions.client.url import check_url, split_cluster_url

_REPLY_TIMEOUT_S = 5
"""Maximum time to wait for the replies to one write, in seconds."""

MAX_CONNECTIONS = 64
"""Maximum number of connections of a worker; `max_connections` in REDIS_URL overrides it."""

Client = Any
"""A `Redis` or `RedisCluster`; their types also allow replies decoded to str, unused here."""


class PipelinePool:
    """The connections that commands share: obtained once from redis-py's pool, then retained.

    To acquire and release them in redis-py's pool each time would take a quarter of a call's time.
    One connection of that pool is left for notifications.
    """

    def __init__(self, pool: ConnectionPool) -> None:
        self._pool = pool
        self._all: list[Any] = []
        self._free: list[Any] = []
        self._room = asyncio.Semaphore(max(1, pool.max_connections - 1))

    async def exchange(self, packed: bytes, count: int) -> list[Any]:
        """Send packed commands in one write and return their replies, errors of Redis among them.

        The write is repeated after a lost connection. Raise a connection error or a timeout.
        """
        if not self._room.locked():
            async with self._room:
                return await self._with_connection(packed, count)
        async with ReplyTimeout(), self._room:
            return await self._with_connection(packed, count)

    async def _with_connection(self, packed: bytes, count: int) -> list[Any]:
        connection = self._free.pop() if self._free else await self._obtain()
        try:
            return await self._exchange(connection, packed, count)
        except BaseException:  # replies may still arrive
            await connection.disconnect(nowait=True)
            raise
        finally:
            self._free.append(connection)

    async def _obtain(self) -> Any:
        connection: Any
        before = count_cancellations()
        async with ReplyTimeout():
            try:
                with as_connection_error():
                    connection = await self._pool.get_connection()  # type: ignore[no-untyped-call]
            except ResponseError as error:
                raise as_rejection(error) from error
            if count_cancellations() > before:
                await connection.disconnect(nowait=True)
                raise asyncio.CancelledError
        connection.socket_timeout = None  # one timeout for all replies instead of one for each
        self._all.append(connection)
        return connection

    async def _exchange(self, connection: Any, packed: bytes, count: int) -> list[Any]:
        try:
            return await self._try(connection, packed, count)
        except CONNECTION_ERRORS:
            await connection.disconnect(nowait=True)
        async with ReplyTimeout(TOTAL_TIMEOUT_S - _REPLY_TIMEOUT_S):
            found: list[Any] = await connection.retry.call_with_retry(
                lambda: self._try(connection, packed, count), lambda error: connection.disconnect()
            )
        return found

    async def _try(self, connection: Any, packed: bytes, count: int) -> list[Any]:
        replies: list[Any] = []
        async with ReplyTimeout(_REPLY_TIMEOUT_S):
            # `as_connection_error` would cost three calls for each reply.
            try:
                await connection.send_packed_command(packed, check_health=False)
            except CLOSED_CONNECTION_ERRORS as error:
                raise closed_connection(error) from error
            except ResponseError as error:  # while it connects again
                raise as_rejection(error) from error
            for _ in range(count):
                try:
                    reply = await connection.read_response()
                except ResponseError as error:
                    reply = classify_reply(error)
                except CLOSED_CONNECTION_ERRORS as error:
                    raise closed_connection(error) from error
                replies.append(reply)
        return replies

    async def close(self) -> None:
        """Close every connection without waiting for the peer."""
        closing = [connection.disconnect(nowait=True) for connection in self._all]
        await asyncio.gather(*closing, return_exceptions=True)


class _Single(Redis):
    """The client of a single Redis: `pipelines` for commands, redis-py's methods for pub/sub."""

    def __init__(self, url: str, **options: Any) -> None:
        pool = ConnectionPool.from_url(url, max_connections=MAX_CONNECTIONS, **options)
        pool.max_connections = max(2, pool.max_connections)  # for commands and for notifications
        super().__init__(connection_pool=pool)
        self.pipelines = PipelinePool(pool)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await self.pipelines.close()
        await self.connection_pool.disconnect()


def connect(url: str) -> Client:
    """Return a client that connects with its first command and gives up after about 10 s.

    With `redis+cluster://` or `rediss+cluster://` the URL names nodes of a Redis Cluster, separated
    by commas; one reachable node is enough. A command whose reply was lost is sent again, so that
    every script must tolerate being run twice. Raises ValueError.
    """
    options: dict[str, Any] = {
        "socket_connect_timeout": 2,
        "socket_timeout": _REPLY_TIMEOUT_S,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.5), retries=3),
        "protocol": 2,
    }
    check_url(url)
    if "+cluster://" not in url:
        return _Single(url, **options)
    first, others = split_cluster_url(url)
    # Its pools cannot wait for a free connection. A slot without a node must not stop all.
    options |= {"max_connections": 4096, "require_full_coverage": False}
    options["startup_nodes"] = [ClusterNode(*address) for address in others]
    return RedisCluster.from_url(first, **options)


def is_cluster(redis: Client) -> bool:
    """Return whether a client belongs to a Redis Cluster."""
    return isinstance(redis, RedisCluster)


def find_node(redis: Client, key: str) -> str:
    """Return the name of the node that holds a key: "" on a single Redis or while unknown."""
    if not is_cluster(redis):
        return ""
    try:
        return str(redis.get_node_from_key(key).name)
    except UNAVAILABLE_ERRORS:
        return ""
