"""Logs that another worker writes, followed here through Redis's notifications.

A notification carries an offset and, unless they are many, the bytes that stand there; whatever does not
join on is read from the log itself. A look every second finds ends that went unnoticed and workers that died.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from chat.log.log import Log
from sessions import keys
from sessions.client.connection import Client
from sessions.client.errors import UNAVAILABLE_ERRORS
from sessions.client.notifications import Notifications
from sessions.turn_store import TurnRef, TurnStore

logger = logging.getLogger("holdline.following")

_LOOK_S = 1.0

_OVERLAP = 256
"""How many bytes before the end that is known are compared with the log; a failover may have lost its end."""


class Following:
    """The logs that viewers of this worker read and another worker writes."""

    def __init__(
        self,
        redis: Client,
        store: TurnStore,
        *,
        on_stop: Callable[[str], None],
        on_look: Callable[[TurnRef], Awaitable[None]],
    ) -> None:
        self._notifications = Notifications(redis, self._take)
        self._store = store
        self._on_stop = on_stop
        self._on_look = on_look
        self._logs: dict[str, Log] = {}
        self._readers: dict[str, int] = {}
        self._released = False

    @asynccontextmanager
    async def follow(self, ref: TurnRef) -> AsyncIterator[Log]:
        """A log that is kept up with the other worker's while the block runs."""
        channel = ref.log_key
        log = self._logs.get(channel)
        if log is None:
            log = self._logs[channel] = Log(ref, read=self._store.read_range)
        self._readers[channel] = self._readers.get(channel, 0) + 1
        try:
            if self._readers[channel] == 1:
                await self._notifications.subscribe(channel)
            await self._catch_up(log)
            if self._released:
                log.lose()
            yield log
        finally:
            self._readers[channel] -= 1
            if not self._readers[channel]:
                del self._readers[channel], self._logs[channel]
                await self._notifications.unsubscribe(channel)

    async def run(self) -> None:
        """Listen and look until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._notifications.run(keys.stops()))
            group.create_task(self._look())

    async def _take(self, channel: str, data: bytes) -> None:
        if channel == keys.stops():
            self._on_stop(data.decode())
            return
        log = self._logs.get(channel)
        if log is None or log.ended:
            return
        cut = next(i for i, byte in enumerate(data) if byte in b":.")
        offset, ended, appended = int(data[:cut]), data[cut : cut + 1] == b".", data[cut + 1 :]
        if appended and offset == log.committed:
            log.data += appended
            log.confirm(log.end, ended=ended)
        elif offset + len(appended) > log.committed or not appended or ended:
            await self._catch_up(log)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            for log in list(self._logs.values()):
                try:
                    await self._on_look(log.ref)
                    await self._catch_up(log)
                except UNAVAILABLE_ERRORS as error:
                    logger.debug("cannot look after %s (%s)", log.ref.turn, type(error).__name__)

    async def _catch_up(self, log: Log) -> None:
        """Read what is missing from the log itself."""
        while not log.ended:
            begin = log.committed
            known = log.held(max(0, begin - _OVERLAP), begin)
            found, ended = await self._store.read_log(log.ref, begin - len(known))
            if log.committed != begin:
                continue  # a notification came in between
            missed = found[len(known) :]
            if found[: len(known)] != known and not (ended and not found):
                self._logs[log.ref.log_key] = Log(log.ref, read=self._store.read_range)
                # Viewers come back, and are told anew.
                log.lose()
                return
            if missed or ended:
                log.data += missed
                log.confirm(log.end, ended=ended)
            return

    def release(self) -> None:
        """Let every viewer go, who comes later too, so that it reconnects elsewhere."""
        self._released = True
        for log in self._logs.values():
            log.lose()

    async def close(self) -> None:
        """Close the connection."""
        await self._notifications.close()
