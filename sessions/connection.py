"""The connection to Redis: our own timeouts and retries, the scripts, and what counts as "away"."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import (
    ConnectionError as RedisConnectionError,
)
from redis.exceptions import (
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    TryAgainError,
)
from redis.exceptions import (
    TimeoutError as RedisTimeoutError,
)

AWAY = (RedisConnectionError, RedisTimeoutError, ReadOnlyError, OutOfMemoryError, TryAgainError)
"""Redis does not answer, or not now: unreachable, silent, loading, read-only, or out of memory."""

SCRIPTS = {path.stem: path.read_bytes() for path in sorted((Path(__file__).parent / "lua").glob("*.lua"))}
_SHAS = {name: hashlib.sha1(text, usedforsecurity=False).hexdigest() for name, text in SCRIPTS.items()}

Client = Any
"""A `Redis`: its own types allow for replies decoded to str, which ours never are."""

Argument = str | bytes | int | float
Call = tuple[str, Sequence[str], Sequence[Argument]]
"""A script's name, its keys, its arguments."""


def connect(url: str) -> Client:
    """A client that gives up on a silent Redis within about 10 s; it connects at its first command.

    A command whose reply was lost is sent again, so that every script must bear being run twice.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=64,
        timeout=10,  # seconds that a command waits for a free connection, rather than to fail at once
        socket_connect_timeout=2,
        socket_timeout=5,
        retry=Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.5), retries=3),
        protocol=2,
    )
    return Redis.from_pool(pool)


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
    for text in SCRIPTS.values():
        await redis.script_load(text)


async def _send(redis: Client, calls: Sequence[Call]) -> list[Any]:
    pipeline = redis.pipeline(transaction=False)
    for script, keys, arguments in calls:
        pipeline.execute_command("EVALSHA", _SHAS[script], len(keys), *keys, *arguments)
    replies: list[Any] = await pipeline.execute(raise_on_error=False)
    return replies
