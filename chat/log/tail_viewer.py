"""A viewer that has received every committed record of a log, and waits for the next ones."""

import asyncio
from collections.abc import Callable

HEARTBEAT_S = 5

Push = Callable[[bytes], bool]
"""Sends a viewer bytes without waiting; sends none, and returns False, if earlier ones wait."""


class TailViewer:
    """A viewer at the end of a log, which is pushed each commit."""

    __slots__ = ("_push", "_waiter", "offset")

    def __init__(self, offset: int, push: Push) -> None:
        self.offset = offset
        self._push = push
        self._waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def push(self, frames: bytes, committed: int) -> bool:
        """Push the frames up to the offset `committed`; return False if the viewer lags behind."""
        # Never push nothing: in a chunked body an empty chunk is the end.
        if frames and not self._push(frames):
            return False
        self.offset = committed
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
