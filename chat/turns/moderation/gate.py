"""Hold the text of a response back until it has passed; release it in order.

One check runs at a time, while the next window fills.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType

from chat.log.records import Kind
from chat.turns.moderation.moderator import Moderator
from chat.turns.moderation.windows import Window, Windows

MAX_WAITING = 8000
"""Characters that may wait for a check; the upstream is not read while there are more."""


class Gate:
    """Withholds the text of a response from the log, while the `async with` block runs.

    `release` appends text that has passed. `resume` is called when the gate is no longer full.
    `fail` ends the response when a text is flagged, or cannot be checked. Text that has not passed
    when the block is left is dropped.
    """

    def __init__(
        self,
        moderator: Moderator,
        contexts: dict[Kind, str],
        *,
        release: Callable[[Kind, str], None],
        resume: Callable[[], None],
        fail: Callable[[Exception], None],
    ) -> None:
        self._moderator = moderator
        self._windows = Windows(contexts)
        self._release = release
        self._resume = resume
        self._fail = fail
        self._failure: Exception | None = None
        self._checking: asyncio.Task[None] | None = None

    @property
    def is_full(self) -> bool:
        """Return whether too much text waits for a check."""
        return self._windows.size > MAX_WAITING

    def feed(self, kind: Kind, text: str) -> None:
        """Take the next text of the response."""
        if self._failure is None:
            self._windows.feed(kind, text)
            self._check()

    async def drain(self) -> None:
        """Return when the rest of a response that has ended has passed; raises its failure."""
        self._windows.end()
        if self._failure is None:
            self._check()
        if self._checking:
            await self._checking
        if self._failure:
            raise self._failure

    async def __aenter__(self) -> "Gate":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._checking:
            self._checking.cancel()
            await asyncio.wait([self._checking])

    def _check(self) -> None:
        if self._checking is None and (window := self._windows.take()):
            self._checking = asyncio.create_task(self._check_windows(window))

    async def _check_windows(self, window: Window | None) -> None:
        """Check this window, and then those that are complete by then."""
        try:
            while window:
                await self._moderator.check_answer(window.texts)
                was_full = self.is_full
                for kind, text in window.pieces:
                    self._release(kind, text)
                window = self._windows.take()
                if was_full and not self.is_full:
                    self._resume()
        except Exception as failure:  # ends this turn, and no other
            self._failure = failure
            self._fail(failure)
        finally:
            self._checking = None
