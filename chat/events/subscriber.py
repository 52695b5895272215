"""One open connection that receives the events of an owner, each once and in order."""

import asyncio
from contextlib import suppress

from sessions.event_store import Event, EventId

MAX_WAITING = 200
"""New events that wait for a slow connection; one more ends it, and the client reconnects."""


class Subscriber:
    """Collects events until the connection takes them.

    It is registered before the stored events are read, so that no event is missed in between.
    Until `start`, it collects every event, including those that have been read.
    """

    def __init__(self) -> None:
        self.is_open = True
        self._position: EventId | None = None
        self._max_waiting = MAX_WAITING
        self._waiting: list[Event] = []
        self._changed = asyncio.Event()

    def start(self, position: EventId, missed: list[Event]) -> None:
        """Put the stored events, the last of which has the id `position`, before those collected.

        A second start replaces the waiting events: the first of `missed` is then a `reset`.
        """
        later = [event for event in self._waiting if event.id > position]
        self._waiting = missed + later
        self._max_waiting = len(missed) + MAX_WAITING
        self._position = self._waiting[-1].id if later else position
        self._changed.set()

    def add(self, event: Event) -> None:
        """Add an event, unless the connection has it already."""
        if self._position is not None:
            if event.id <= self._position:
                return
            self._position = event.id
        if len(self._waiting) >= self._max_waiting:
            self.end()
        elif self.is_open:
            self._waiting.append(event)
            self._changed.set()

    def end(self) -> None:
        """Make the connection end, so that the client reconnects after the last event it has."""
        self.is_open = False
        self._waiting.clear()
        self._changed.set()

    async def take(self, timeout_s: float) -> list[Event]:
        """Return the events that have arrived: none after a timeout, or if `is_open` is False."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        self._changed.clear()
        taken, self._waiting = self._waiting, []
        return taken
