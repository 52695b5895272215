"""Errors of Redis: which of them mean "unavailable for now", and the time limit of a reply."""

import asyncio
import re
from collections.abc import Awaitable
from types import TracebackType
from typing import Any

from redis.exceptions import (
    AskError,
    ClusterError,
    InvalidResponse,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError as NoPermissionError
from redis.exceptions import NoScriptError as NoScriptError
from redis.exceptions import OutOfMemoryError as OutOfMemoryError
from redis.exceptions import ResponseError as ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

CONNECTION_ERRORS = (RedisConnectionError, RedisTimeoutError, InvalidResponse)
"""The connection was lost, the reply was late or not from Redis: the command may have run."""


class WritesUnavailable(ResponseError):
    """Redis rejects writes for now: too few replicas, or a failing disk."""


class Rejected(ResponseError):
    """Redis rejects a command, or a new connection, until the operator changes a setting."""


UNAVAILABLE_ERRORS = (
    *CONNECTION_ERRORS,
    NoPermissionError,
    NoScriptError,
    ReadOnlyError,
    OutOfMemoryError,
    Rejected,
    WritesUnavailable,
    ClusterError,
    RedisClusterException,
    AskError,
    TryAgainError,
)
"""Redis is unavailable: unreachable, loading, read-only, out of memory, resharding, without the
scripts although they were just loaded, or it rejects a command or a connection, such as by its ACL,
until the operator changes that.
"""

_WRITES_UNAVAILABLE = ("NOREPLICAS", "MISCONF", "BUSY", "NOPERM")
"""First words of errors that reject commands for now and for which redis-py has no class."""

_SCRIPT_ERROR = re.compile(
    r": -(READONLY|NOREPLICAS|MISCONF|MASTERDOWN|CLUSTERDOWN|LOADING) "
    r"|user executing the script can't|ACL failure in script"
)
"""The form of such an error inside a script: before Redis 7.0, and of its ACL in any version."""

_REJECTED = re.compile(r"^unknown (sub)?command |Unknown Redis command called from ")
"""The form of the error for a command that Redis does not have, or has renamed."""

CLOSED_CONNECTION_ERRORS = (AttributeError, LookupError, RuntimeError)
"""Errors that redis-py raises on a connection that another task, or uvloop, has closed, and for a
Cluster without slots."""


def closed_connection(error: BaseException) -> RedisConnectionError:
    """Return the connection error for one of CLOSED_CONNECTION_ERRORS."""
    return RedisConnectionError(f"the connection was closed ({type(error).__name__})")


class _ClosedConnectionGuard:
    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, CLOSED_CONNECTION_ERRORS):
            raise closed_connection(error) from error


_GUARD = _ClosedConnectionGuard()


def as_connection_error() -> _ClosedConnectionGuard:
    """Return a context that raises CLOSED_CONNECTION_ERRORS as a lost connection.

    The context must contain a single awaited call of redis-py: an error of Holdline's own code
    would be retried as if Redis were unavailable.
    """
    return _GUARD


def count_cancellations() -> int:
    """Return how often this task was cancelled: redis-py swallows a cancellation while it connects.

    It uses asyncio.wait_for, which does so on Python 3.11 (bpo-37658). The count itself is not 0
    after a task group that failed: compare it with the count before the call.
    """
    task = asyncio.current_task()
    return task.cancelling() if task else 0


async def call_redis_py(reply: Awaitable[Any]) -> Any:
    """Return what a call of redis-py returns; raise a cancellation that it has swallowed.

    CLOSED_CONNECTION_ERRORS are raised as a lost connection.
    """
    before = count_cancellations()
    try:
        with as_connection_error():
            result = await reply
    except RedisError as error:
        if type(error) is not RedisError:
            raise
        raise Rejected(str(error)) from error  # a command that no node of the Cluster has
    if count_cancellations() > before:
        raise asyncio.CancelledError
    return result


TOTAL_TIMEOUT_S = 10
"""Maximum time to wait for a reply; redis-py reconnects within each try, over a minute in total."""


class ReplyTimeout:
    """Limits the time to wait for Redis in this block; raises RedisTimeoutError after it.

    A class, because a generator would cost more than the timeout itself.
    """

    __slots__ = ("_timeout",)

    def __init__(self, max_s: float = TOTAL_TIMEOUT_S) -> None:
        self._timeout = asyncio.timeout(max_s)

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
            raise RedisTimeoutError("Redis did not reply in time") from late


def classify_reply(reply: Any) -> Any:
    """Return a reply; replace an error of UNAVAILABLE_ERRORS that redis-py does not recognise."""
    if not isinstance(reply, Exception):
        return reply
    if isinstance(reply, CLOSED_CONNECTION_ERRORS):  # a reply of redis-py's pipeline on a Cluster
        return RedisConnectionError(f"the connection was closed ({reply})")
    if type(reply) is ResponseError:
        text = str(reply)
        if text.startswith("OOM ") or ": -OOM " in text:
            return OutOfMemoryError(text)
        if text.partition(" ")[0] in _WRITES_UNAVAILABLE or _SCRIPT_ERROR.search(text):
            return WritesUnavailable(text)
        if _REJECTED.search(text):
            return Rejected(text)
    return reply


def as_rejection(error: ResponseError) -> ResponseError:
    """Return the error for a connection that Redis has rejected: all such errors last.

    An example is a number of a database that Redis does not have.
    """
    return error if isinstance(error, UNAVAILABLE_ERRORS) else Rejected(str(error))
