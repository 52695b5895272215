"""The connection to Redis: our own timeouts and retries, the scripts, and what counts as "away"."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis._parsers import BaseParser
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
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

# redis-py has no classes for these two, and would have them pass for errors of ours.
BaseParser.EXCEPTION_CLASSES.update(dict.fromkeys(("NOREPLICAS", "MISCONF"), TakesNoWrites))

_INSIDE_A_SCRIPT = re.compile(r": -(OOM|READONLY|NOREPLICAS|MISCONF|MASTERDOWN|CLUSTERDOWN|LOADING) ")
"""How Redis before 7.0 words such a refusal that meets a script in its midst."""

SCRIPTS = {path.stem: path.read_bytes() for path in sorted((Path(__file__).parent / "lua").glob("*.lua"))}
_SHARDED = {name: text.replace(b"'PUBLISH'", b"'SPUBLISH'") for name, text in SCRIPTS.items()}
"""On a Cluster a notification stays on the node of its log, rather than to go to all."""

Client = Any
"""A `Redis` or `RedisCluster`: their own types allow for replies decoded to str, which ours never are."""

Argument = str | bytes | int | float
Call = tuple[str, Sequence[str], Sequence[Argument]]
"""A script's name, its keys, its arguments."""


def connect(url: str) -> Client:
    """A client that gives up on a silent Redis within about 10 s; it connects at its first command.

    With `redis+cluster://` or `rediss+cluster://` the URL names any node of a Redis Cluster. A command whose
    reply was lost is sent again, so that every script must bear being run twice.
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
        return RedisCluster.from_url(f"{scheme}://{rest}", **options)
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=64,
        timeout=10,  # seconds that a command waits for a free connection, rather than to fail at once
        **options,
    )
    return Redis.from_pool(pool)


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


async def call(redis: Client, script: str, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
    """Run one script by its name; raises what redis-py raises."""
    (reply,) = await call_all(redis, [(script, keys, arguments)])
    if isinstance(reply, Exception):
        raise reply
    return reply


async def call_all(redis: Client, calls: Sequence[Call]) -> list[Any]:
    """Run many scripts in one pipeline; a reply that is an error is returned in its place."""
    replies = await _send(redis, calls)
    missing = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
    if missing:
        await load(redis)
        for i, reply in zip(missing, await _send(redis, [calls[i] for i in missing]), strict=True):
            replies[i] = reply
    return replies


async def load(redis: Client) -> None:
    """Make every script known to Redis, which forgets them when it restarts."""
    for text in _texts(redis).values():
        await redis.script_load(text)


async def _send(redis: Client, calls: Sequence[Call]) -> list[Any]:
    pipeline = redis.pipeline(transaction=False)
    shas = _SHARDED_SHAS if is_cluster(redis) else _SHAS
    for script, keys, arguments in calls:
        pipeline.execute_command("EVALSHA", shas[script], len(keys), *keys, *arguments)
    replies: list[Any] = await pipeline.execute(raise_on_error=False)
    return [_classed(reply) if type(reply) is ResponseError else reply for reply in replies]


def _classed(error: ResponseError) -> ResponseError:
    return TakesNoWrites(str(error)) if _INSIDE_A_SCRIPT.search(str(error)) else error


def _texts(redis: Client) -> dict[str, bytes]:
    return _SHARDED if is_cluster(redis) else SCRIPTS


def _shas(texts: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha1(text, usedforsecurity=False).hexdigest() for name, text in texts.items()}


_SHAS, _SHARDED_SHAS = _shas(SCRIPTS), _shas(_SHARDED)
