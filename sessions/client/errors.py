"""Errors of Redis: which of them mean "unavailable for now", and the time limit of a reply."""

import asyncio
import contextlib
import re
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from redis._parsers import BaseParser
from redis.exceptions import (
    AskError,
    ClusterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError as NoScriptError
from redis.exceptions import ResponseError as ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError


class WritesUnavailable(ResponseError):
    """Redis refuses to write for now: too few replicas, a disk that fails, or no memory."""


UNAVAILABLE_ERRORS = (
    RedisConnectionError,
    RedisTimeoutError,
    ReadOnlyError,
    OutOfMemoryError,
    WritesUnavailable,
    ClusterDownError,
    RedisClusterException,
    AskError,
    TryAgainError,
)
"""Redis does not answer, or not now: unreachable, silent, loading, read-only, out of memory, in two minds."""

# redis-py has no classes for these two, and would have them pass for errors of ours.
BaseParser.EXCEPTION_CLASSES.update(dict.fromkeys(("NOREPLICAS", "MISCONF"), WritesUnavailable))

_SCRIPT_ERROR = re.compile(r": -(OOM|READONLY|NOREPLICAS|MISCONF|MASTERDOWN|CLUSTERDOWN|LOADING) ")
"""How Redis before 7.0 words such a refusal that meets a script in its midst."""

_CLOSED_CONNECTION_ERRORS = (AttributeError, KeyError, RuntimeError)
"""What redis-py trips over where another task closed its connection."""


@contextlib.contextmanager
def as_connection_error() -> Iterator[None]:
    """Have what is in _TRIPS count as a lost connection."""
    try:
        yield
    except _CLOSED_CONNECTION_ERRORS as error:
        raise RedisConnectionError("the connection was closed") from error


TOTAL_TIMEOUT_S = 10
"""Longest wait for a reply: redis-py connects anew within each of its tries, over a minute in all."""


class ReplyTimeout:
    """Wait in this block for Redis as long as it may take, and no longer; raises what is in AWAY.

    Not a generator, which would cost more than a timeout itself does; a question waits here six times.
    """

    __slots__ = ("_timeout",)

    def __init__(self, longest_s: float = TOTAL_TIMEOUT_S) -> None:
        self._timeout = asyncio.timeout(longest_s)

    async def __aenter__(self) -> None:
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
        if isinstance(error, _CLOSED_CONNECTION_ERRORS):
            raise RedisConnectionError("the connection was closed") from error


def classify_reply(reply: Any) -> Any:
    """A reply as it is, unless it is Redis's refusal of any writes from inside a script: a TakesNoWrites."""
    if type(reply) is ResponseError and _SCRIPT_ERROR.search(str(reply)):
        return WritesUnavailable(str(reply))
    return reply
