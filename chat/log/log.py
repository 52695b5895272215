"""A turn's bytes, as far as this worker knows them, read by any number of viewers.

Viewers see only what Redis has: the `committer` says so where the turn is generated, and on other workers
Redis's notifications do (`following`). What Redis has need not be kept here too: but for the last
kilobyte, it is read from there for those who come late or lag behind.
"""

import asyncio
from collections.abc import Awaitable, Callable

from chat.formats import sse
from sessions.client.errors import UNAVAILABLE_ERRORS
from sessions.turn_store import TurnRef

HEARTBEAT_S = 12
LOG_MAX = 8 << 20
"""Largest log of one turn in bytes, far above what a model says in one go."""

_SLICE = 64 << 10

_KEPT = 1 << 9
"""Committed bytes that are kept in any case; twice as many at most."""

Read = Callable[[TurnRef, int, int], Awaitable[bytes]]
"""Reads the bytes of a turn's log from one offset to another, as far as they are there."""

Send = Callable[[bytes], Awaitable[None]]
"""Sends a viewer bytes, and returns when it can take more."""

Push = Callable[[bytes], bool]
"""Sends a viewer bytes at once; False, and none sent, where it has not taken those before."""


class Log:
    """The log of one turn; `committed` bytes of it stand in Redis. `data` is what is held, from `begin` on.

    Without `read` all of it is held.
    """

    def __init__(
        self,
        ref: TurnRef,
        data: bytes = b"",
        *,
        begin: int = 0,
        ended: bool = False,
        read: Read | None = None,
    ) -> None:
        self.ref = ref
        self.begin = begin
        self.data = bytearray(data)
        self.committed = begin + len(data)
        self.ended = ended
        self.lost = False
        self.viewers = 0
        self._read = read
        self._waiters: list[asyncio.Future[None]] = []
        self._followers: dict[_Follower, None] = {}

    @property
    def end(self) -> int:
        """Length of the whole log in bytes, with what is not committed yet."""
        return self.begin + len(self.data)

    def held(self, begin: int, end: int) -> bytes:
        """Bytes between two offsets, neither of which lies before `begin`."""
        return bytes(self.data[begin - self.begin : end - self.begin])

    async def part(self, begin: int, end: int) -> bytes:
        """Committed bytes between two offsets, wherever they are; raises what is in AWAY.

        Fewer where Redis has lost them.
        """
        if begin >= self.begin or begin == end or self._read is None:
            return self.held(begin, end)
        return await self._read(self.ref, begin, end)

    def confirm(self, committed: int, *, ended: bool = False) -> None:
        """Show viewers the bytes up to `committed`, which Redis has."""
        self.committed = committed
        self.ended = self.ended or ended
        self._wake()
        spare = committed - self.begin - _KEPT
        if spare > _KEPT and self._read:
            del self.data[:spare]
            self.begin += spare

    def lose(self) -> None:
        """Let every viewer go, so that it reconnects: this worker no longer follows the turn."""
        self.lost = True
        self._wake()

    async def changed(self) -> None:
        """Return when something was confirmed, or the log was lost."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    async def relay(self, offset: int, send: Send, push: Push) -> None:
        """Send a viewer the committed bytes from `offset` on, as they come, until the turn ends or is lost.

        While the viewer keeps up, what is committed goes by `push`, from the committer's own step and with no
        task woken; what piles up before it goes by `send`, in slices and at its own pace, so that a slow
        reader holds up nobody. Every HEARTBEAT_S a comment is sent, and at once to a viewer who has missed
        nothing: the first bytes go by `send`, which sends the response's head before them.
        """
        if offset == self.committed and not (self.ended or self.lost):
            await send(sse.HEARTBEAT)
        while True:
            if offset < self.committed:
                chunk = await self._next(offset)
                if not chunk:
                    return
                await send(chunk)
                offset += len(chunk)
            elif self.ended or self.lost:
                return
            else:
                follower = _Follower(offset, push)
                self._followers[follower] = None
                try:
                    silent = await follower.wait()
                finally:
                    self._followers.pop(follower, None)
                offset = follower.offset
                if silent:
                    await send(sse.HEARTBEAT)

    async def _next(self, offset: int) -> bytes:
        """The next slice for a viewer; none for one that had better come back."""
        if self.lost and offset < self.begin:
            return b""
        try:
            return await self.part(offset, min(self.committed, offset + _SLICE))
        except UNAVAILABLE_ERRORS:
            return b""

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
        over = self.ended or self.lost
        for follower in list(self._followers):
            if not follower.push(self) or over:
                del self._followers[follower]
                follower.wake()


class _Follower:
    """A viewer that has had all that was committed, and gets the rest as it is committed."""

    __slots__ = ("_push", "_waiter", "offset")

    def __init__(self, offset: int, push: Push) -> None:
        self.offset = offset
        self._push = push
        self._waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def push(self, log: Log) -> bool:
        """Push what is new; False where the viewer lags behind."""
        # Never nothing: in a chunked body an empty chunk is the end.
        if self.offset < log.committed:
            if not self._push(log.held(self.offset, log.committed)):
                return False
            self.offset = log.committed
        return True

    def wake(self, silent: bool = False) -> None:
        """Have `wait` return."""
        if not self._waiter.done():
            self._waiter.set_result(silent)

    async def wait(self) -> bool:
        """Return when the viewer lags behind or the log is over, or, with True, after HEARTBEAT_S."""
        timer = asyncio.get_running_loop().call_later(HEARTBEAT_S, self.wake, True)
        try:
            return await self._waiter
        finally:
            timer.cancel()
