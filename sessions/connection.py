"""The connection to Redis: our own timeouts and retries, the scripts, and what counts as "away"."""

import asyncio
import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import hiredis
from redis._parsers import BaseParser
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    AskError,
    ClusterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)


class TakesNoWrites(ResponseError):
    """Redis refuses to write for now: too few replicas, a disk that fails, or no memory."""


AWAY = (
    RedisConnectionError,
    RedisTimeoutError,
    ReadOnlyError,
    OutOfMemoryError,
    TakesNoWrites,
    ClusterDownError,
    RedisClusterException,
    AskError,
    TryAgainError,
)
"""Redis does not answer, or not now: unreachable, silent, loading, read-only, out of memory, in two minds."""

Refusal = ResponseError
"""What Redis says to a command that cannot be right, such as one for another type of key."""

# redis-py has no classes for these two, and would have them pass for errors of ours.
BaseParser.EXCEPTION_CLASSES.update(dict.fromkeys(("NOREPLICAS", "MISCONF"), TakesNoWrites))

_SCRIPTS_S = 5
"""How long Redis may take for a group of scripts, in seconds."""

_INSIDE_A_SCRIPT = re.compile(r": -(OOM|READONLY|NOREPLICAS|MISCONF|MASTERDOWN|CLUSTERDOWN|LOADING) ")
"""How Redis before 7.0 words such a refusal that meets a script in its midst."""

SCRIPTS = {path.stem: path.read_bytes() for path in sorted((Path(__file__).parent / "lua").glob("*.lua"))}
_SHARDED = {name: text.replace(b"'PUBLISH'", b"'SPUBLISH'") for name, text in SCRIPTS.items()}
"""On a Cluster a notification stays on the node of its log, rather than to go to all."""

Client = Any
"""A `Redis` or `RedisCluster`: their own types allow for replies decoded to str, which ours never are."""

Argument = str | bytes | int | float
Call = tuple[str, Sequence[str], Sequence[Argument]]
"""A script's name or a command's, its keys, its arguments. Commands come as Redis names them, in capitals."""


_TRIPS = (AttributeError, KeyError, RuntimeError)
"""What redis-py trips over where another task closed its connection."""


@contextlib.contextmanager
def lost() -> Iterator[None]:
    """Have what is in _TRIPS count as a lost connection."""
    try:
        yield
    except _TRIPS as error:
        raise RedisConnectionError("the connection was closed") from error


_GIVE_UP_S = 10
"""Longest wait for a reply: redis-py connects anew within each of its tries, over a minute in all."""


class Answered:
    """Wait in this block for Redis as long as it may take, and no longer; raises what is in AWAY.

    Not a generator, which would cost more than a timeout itself does; a question waits here six times.
    """

    __slots__ = ("_timeout",)

    async def __aenter__(self) -> None:
        self._timeout = asyncio.timeout(_GIVE_UP_S)
        await self._timeout.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError as late:
            raise RedisTimeoutError("Redis is silent") from late
        if isinstance(error, _TRIPS):
            raise RedisConnectionError("the connection was closed") from error


class _Single(Redis):
    """A connection that Redis has closed makes uvloop raise a RuntimeError at the next write."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(connection_pool=BlockingConnectionPool.from_url(url, **options))
        # For calls, which have one timeout for a whole group in place of one for every reply.
        self.calls = BlockingConnectionPool.from_url(url, **options | {"socket_timeout": None})

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await self.calls.disconnect()
        await self.connection_pool.disconnect()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        async with Answered():
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


class _Cluster(RedisCluster):
    """When one command finds the Cluster changed, redis-py closes the connections of all."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        async with Answered():
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
        nodes = [(url.hostname, url.port or 6379) for url in (urlsplit(f"//{node}") for node in others)]
        options["startup_nodes"] = [ClusterNode(str(host), port) for host, port in nodes]
        return _Cluster.from_url(f"{scheme}://{first}", **options)
    options |= {
        "max_connections": 64,
        "timeout": 10,  # seconds that a command waits for a free connection, rather than to fail at once
    }
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
    except AWAY:
        return ""


async def call(redis: Client, name: str, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
    """Run one script or command by its name; raises what redis-py raises.

    Of a command it is the raw reply, had for half of what redis-py's own methods cost.
    """
    (reply,) = await call_all(redis, [(name, keys, arguments)])
    if isinstance(reply, Exception):
        raise reply
    return reply


async def call_in_order(redis: Client, calls: Sequence[Call]) -> list[Any]:
    """Run calls one after the other, in one write where one Redis holds all; raises what redis-py raises."""
    if is_cluster(redis):  # its nodes keep no order between them
        return [await call(redis, *one) for one in calls]
    replies = await call_all(redis, calls)
    for reply in replies:
        if isinstance(reply, Exception):
            raise reply
    return replies


async def call_all(redis: Client, calls: Sequence[Call]) -> list[Any]:
    """Run many calls in one pipeline; a reply that is an error is returned in its place."""
    replies = await _send(redis, calls)
    missing = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if missing:
        await load(redis)
        for i, reply in zip(missing, await _send(redis, [calls[i] for i in missing]), strict=True):
            replies[i] = reply
    return replies


async def execute(pipeline: Any) -> list[Any]:
    """Run a pipeline of plain commands; raises what redis-py raises."""
    async with Answered():
        replies: list[Any] = await pipeline.execute()
    return replies


async def load(redis: Client) -> None:
    """Make every script known to Redis, which forgets them when it restarts."""
    for text in _texts(redis).values():
        await redis.script_load(text)


async def _send(redis: Client, calls: Sequence[Call]) -> list[Any]:
    if not is_cluster(redis):
        return await _send_packed(redis.calls, calls)
    pipeline = redis.pipeline(transaction=False)
    for one in calls:
        pipeline.execute_command(*_command(one, _SHARDED_SHAS))
    async with Answered():
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
    return [classed(reply) for reply in replies]


async def _send_packed(pool: BlockingConnectionPool, calls: Sequence[Call]) -> list[Any]:
    """One write and one read of all replies, without what a pipeline of redis-py does for each command."""
    packed = b"".join([hiredis.pack_command(_command(one, _SHAS)) for one in calls])  # type: ignore[arg-type]

    async def exchange() -> list[Any]:
        replies: list[Any] = []
        try:
            async with asyncio.timeout(_SCRIPTS_S):
                await connection.send_packed_command(packed, check_health=False)
                for _ in calls:
                    try:
                        replies.append(await connection.read_response())
                    except ResponseError as error:
                        replies.append(classed(error))
        except TimeoutError as error:
            raise RedisTimeoutError("no reply in time") from error
        return replies

    async with Answered():
        connection: Any = await pool.get_connection()  # type: ignore[no-untyped-call]
        try:
            found: list[Any] = await connection.retry.call_with_retry(
                exchange, lambda error: connection.disconnect()
            )
        except BaseException:  # replies may still be on their way
            await connection.disconnect(nowait=True)
            raise
        finally:
            await pool.release(connection)
    return found


def _command(call: Call, shas: dict[str, str]) -> tuple[Argument, ...]:
    name, keys, arguments = call
    sha = shas.get(name)
    return ("EVALSHA", sha, len(keys), *keys, *arguments) if sha else (name, *keys, *arguments)


def classed(reply: Any) -> Any:
    """A reply as it is, unless it is Redis's refusal of any writes from inside a script: a TakesNoWrites."""
    if type(reply) is ResponseError and _INSIDE_A_SCRIPT.search(str(reply)):
        return TakesNoWrites(str(reply))
    return reply


def _texts(redis: Client) -> dict[str, bytes]:
    return _SHARDED if is_cluster(redis) else SCRIPTS


def _shas(texts: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha1(text, usedforsecurity=False).hexdigest() for name, text in texts.items()}


_SHAS, _SHARDED_SHAS = _shas(SCRIPTS), _shas(_SHARDED)
