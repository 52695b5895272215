"""A turn's log as this worker has it: filled by one writer or follower, read by any number of viewers.

Viewers see only bytes that Redis has acknowledged. Those bytes need not stay in memory: a viewer that
comes late or lags behind reads them from Redis, and only the log's end is retained here.
"""

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum

from chat.formats import sse
from sessions.client.errors import UNAVAILABLE_ERRORS
from sessions.turn_store import TurnRef

HEARTBEAT_S = 12
MAX_LOG_BYTES = 8 << 20
"""A turn whose log grows beyond this fails; models send far less in one answer."""

_SLICE_BYTES = 64 << 10

_RETAINED_BYTES = 512
"""Committed bytes that stay in memory; twice as many at most."""

Read = Callable[[TurnRef, int, int], Awaitable[bytes]]
"""Reads the bytes of a turn's log between two offsets, as many as Redis has."""

Send = Callable[[bytes], Awaitable[None]]
"""Sends a viewer bytes, and returns when it can take more."""

Push = Callable[[bytes], bool]
"""Sends a viewer bytes without waiting; returns False, and sends none, if earlier bytes still wait."""


class LogState(Enum):
    """Whether this worker still expects bytes for a log."""

    OPEN = "open"
    FINISHED = "finished"
    DETACHED = "detached"
    """This worker no longer keeps the log up to date: its viewers reconnect."""


class Log:
    """The log of one turn, of which Redis has `committed` bytes; `data` holds those from `begin` on.

    Without `read` all bytes are retained.
    """

    def __init__(
        self,
        ref: TurnRef,
        data: bytes = b"",
        *,
        begin: int = 0,
        state: LogState = LogState.OPEN,
        read: Read | None = None,
    ) -> None:
        self.ref = ref
        self.begin = begin
        self.data = bytearray(data)
        self.committed = begin + len(data)
        self.state = state
        self.viewers = 0
        self._read = read
        self._waiters: list[asyncio.Future[None]] = []
        self._tail: dict[_TailViewer, None] = {}

    @property
    def end(self) -> int:
        """Return the length of the whole log in bytes, uncommitted ones included."""
        return self.begin + len(self.data)

    @property
    def is_open(self) -> bool:
        """Return whether more bytes may come."""
        return self.state is LogState.OPEN

    def append(self, data: bytes) -> None:
        """Add bytes at the end; no viewer sees them before `mark_committed`."""
        self.data += data

    def buffered(self, begin: int, end: int) -> bytes:
        """Return the bytes between two offsets, both of which must be in memory."""
        return bytes(self.data[begin - self.begin : end - self.begin])

    async def read(self, begin: int, end: int) -> bytes:
        """Return committed bytes between two offsets, from memory or from Redis.

        Returns fewer if Redis has lost some; raises UNAVAILABLE_ERRORS.
        """
        if begin >= self.begin or begin == end or self._read is None:
            return self.buffered(begin, end)
        return await self._read(self.ref, begin, end)

    def mark_committed(self, committed: int, *, finished: bool = False) -> None:
        """Show viewers the bytes up to the offset `committed`, which Redis has acknowledged."""
        self.committed = committed
        if finished:
            self.state = LogState.FINISHED
        self._notify()
        spare = committed - self.begin - _RETAINED_BYTES
        if spare > _RETAINED_BYTES and self._read:
            del self.data[:spare]
            self.begin += spare

    def detach(self) -> None:
        """Disconnect every viewer, which reconnects: this worker no longer follows the turn."""
        if self.is_open:
            self.state = LogState.DETACHED
        self._notify()

    async def wait_for_commit(self) -> None:
        """Return at the next commit, or when the log is detached."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    async def relay(self, offset: int, send: Send, push: Push) -> None:
        """Send a viewer the committed bytes from `offset` on, until the log is finished or detached.

        A viewer that keeps up is pushed each commit from the committer's own step, without waking a
        task. A viewer that lags behind gets slices by `send`, at its own pace, and delays no other.
        A comment is sent every HEARTBEAT_S seconds, and at once to a viewer that has missed nothing,
        because the first `send` also sends the response's headers.
        """
        if offset == self.committed and self.is_open:
            await send(sse.HEARTBEAT)
        while True:
            if offset < self.committed:
                chunk = await self._next_slice(offset)
                if not chunk:
                    return
                await send(chunk)
                offset += len(chunk)
            elif not self.is_open:
                return
            else:
                viewer = _TailViewer(offset, push)
                self._tail[viewer] = None
                try:
                    is_silent = await viewer.wait()
                finally:
                    self._tail.pop(viewer, None)
                offset = viewer.offset
                if is_silent:
                    await send(sse.HEARTBEAT)

    async def _next_slice(self, offset: int) -> bytes:
        """Return the next slice for a viewer; empty if the viewer must reconnect."""
        if self.state is LogState.DETACHED and offset < self.begin:
            return b""
        try:
            return await self.read(offset, min(self.committed, offset + _SLICE_BYTES))
        except UNAVAILABLE_ERRORS:
            return b""

    def _notify(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        for viewer in list(self._tail):
            if not viewer.push(self) or not self.is_open:
                del self._tail[viewer]
                viewer.wake()


class _TailViewer:
    """A viewer that has received every committed byte and is pushed the next ones."""

    __slots__ = ("_push", "_waiter", "offset")

    def __init__(self, offset: int, push: Push) -> None:
        self.offset = offset
        self._push = push
        self._waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def push(self, log: Log) -> bool:
        """Push the new bytes; return False if the viewer lags behind."""
        # Never push nothing: in a chunked body an empty chunk is the end.
        if self.offset < log.committed:
            if not self._push(log.buffered(self.offset, log.committed)):
                return False
            self.offset = log.committed
        return True

    def wake(self, is_silent: bool = False) -> None:
        """Make `wait` return."""
        if not self._waiter.done():
            self._waiter.set_result(is_silent)

    async def wait(self) -> bool:
        """Return False when the viewer lags or the log is over, True after HEARTBEAT_S seconds."""
        timer = asyncio.get_running_loop().call_later(HEARTBEAT_S, self.wake, True)
        try:
            return await self._waiter
        finally:
            timer.cancel()
