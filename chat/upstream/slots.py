"""Limit the requests to one upstream at a time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Slots:
    """The slots of an upstream, assigned in the order of arrival; `count` None means no limit."""

    def __init__(self, count: int | None = None) -> None:
        self._free = count
        self._queue: dict[asyncio.Future[None], Callable[[int], None]] = {}

    @asynccontextmanager
    async def take(self, on_position: Callable[[int], None]) -> AsyncIterator[None]:
        """Hold a slot during the block; `on_position` is called with the place in the queue.

        The first in the queue has position 1; 0 means that the slot is taken.
        """
        if self._free is None:
            yield
            return
        if self._free > 0:
            self._free -= 1
        else:
            await self._wait(on_position)
            on_position(0)
        try:
            yield
        finally:
            self._release()

    async def _wait(self, on_position: Callable[[int], None]) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue[turn] = on_position
        on_position(len(self._queue))
        try:
            await turn
        except asyncio.CancelledError:
            if self._queue.pop(turn, None):
                self._report_positions()
            elif not turn.cancelled():  # it has received its slot in the same moment
                self._release()
            raise

    def _release(self) -> None:
        while self._queue:
            turn = next(iter(self._queue))
            del self._queue[turn]
            if not turn.done():  # otherwise it was cancelled, and its task has not run since
                turn.set_result(None)
                self._report_positions()
                return
        self._free = (self._free or 0) + 1

    def _report_positions(self) -> None:
        for position, on_position in enumerate(list(self._queue.values()), 1):
            on_position(position)
