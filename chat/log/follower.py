"""Fill the logs that other workers write, from Redis's notifications.

A notification carries an offset and, unless they are many, the bytes that were appended there.
Bytes that do not continue the log are ignored, and the log is read from Redis instead.
"""

import asyncio
import logging
import re
from collections.abc import Callable

from chat.log.log import Log
from config.system.sampled_log import SampledLog
from sessions import keys
from sessions.client.faults import find_fault
from sessions.client.notifications import Notifications
from sessions.turns.turn_record import TurnRef
from sessions.turns.turn_store import TurnStore

logger = logging.getLogger("holdline.follower")

_CONFIRM_TIMEOUT_S = 2.0
"""A viewer waits this long for Redis to confirm a subscription; without one the log is polled."""

MAX_READ_BYTES = 16 << 20
"""More than a log has, also one of version 0.1."""

_OVERLAP_BYTES = 256
"""Bytes before the known end that are compared with the log: a failover may have lost its end."""


_NOTIFICATION = re.compile(rb"([0-9]{1,15})([:.])")
"""An offset in bytes, and `.` after the last append of a turn."""


class Follower:
    """The logs that viewers of this worker read and another worker writes."""

    def __init__(self, notifications: Notifications, store: TurnStore) -> None:
        self._notifications = notifications
        self._store = store
        self._followed: dict[str, _Followed] = {}
        self._tasks: asyncio.TaskGroup
        self._detached = False
        self._log = SampledLog(logger)

    async def follow(self, log: Log) -> None:
        """Keep a log up to date; return when it is.

        The log is read only after Redis has confirmed the subscription, so that no append falls
        between the two. Raises UNAVAILABLE_ERRORS.
        """
        channel = log.ref.log_key
        followed = self._followed.get(channel)
        if followed is None or followed.log is not log:
            followed = self._followed[channel] = _Followed(log)
            self._tasks.create_task(
                self._notifications.subscribe(channel, self._on_subscribed, self._on_message)
            )
        try:
            async with asyncio.timeout(_CONFIRM_TIMEOUT_S):
                await followed.up_to_date.wait()
        except TimeoutError:
            logger.warning("turn %s: subscription not confirmed; polling", log.ref.turn)
            await self._catch_up(followed)
        if self._detached:
            log.detach()

    def unfollow(self, log: Log) -> None:
        """Stop following a log, if it is followed."""
        channel = log.ref.log_key
        followed = self._followed.get(channel)
        if followed is not None and followed.log is log:
            del self._followed[channel]
            followed.up_to_date.set()  # a writer fills the log from here on
            self._tasks.create_task(self._notifications.unsubscribe(channel))

    def take_silent(self) -> list[TurnRef]:
        """Return the turns without a notification for a lease's time: their worker may be dead.

        Their logs are read, in case the notifications were lost, and then count as active again.
        """
        now = asyncio.get_running_loop().time()
        silent = [
            one
            for one in self._followed.values()
            if one.last_notified_at + self._store.lease_s < now
        ]
        for followed in silent:
            followed.last_notified_at = now
            self._read_soon(followed)
        return [followed.log.ref for followed in silent]

    async def run(self, on_stop: Callable[[str], None]) -> None:
        """Receive notifications until cancelled; call `on_stop` with the key of a turn to stop."""
        async with asyncio.TaskGroup() as self._tasks:
            self._tasks.create_task(
                self._notifications.run(
                    keys.stops(), lambda data: on_stop(data.decode(errors="replace"))
                )
            )

    def detach_all(self) -> None:
        """Disconnect every viewer, and those that come later, so that they reconnect elsewhere."""
        self._detached = True
        for followed in self._followed.values():
            followed.log.detach()

    def _on_subscribed(self, channel: str) -> None:
        if followed := self._followed.get(channel):
            self._read_soon(followed)

    def _on_message(self, channel: str, data: bytes) -> None:
        followed = self._followed.get(channel)
        if followed is None or not followed.log.is_open:
            return
        followed.last_notified_at = asyncio.get_running_loop().time()
        log, found = followed.log, _NOTIFICATION.match(data)
        if found is None:
            self._read_soon(followed)
            return
        offset, finished, appended = int(found[1]), found[2] == b".", data[found.end() :]
        if appended and offset == log.committed:
            log.append(appended)
            log.finish(log.end) if finished else log.mark_committed(log.end)
        elif offset + len(appended) > log.committed or not appended or finished:
            self._read_soon(followed)

    def _read_soon(self, followed: "_Followed") -> None:
        """Read a log in its own task, so that a slow read delays no other log's notifications."""
        if followed.is_reading:
            followed.read_again = True
        else:
            followed.is_reading = True
            self._tasks.create_task(self._read(followed))

    async def _read(self, followed: "_Followed") -> None:
        try:
            followed.read_again = True
            while followed.read_again:
                followed.read_again = False
                await self._catch_up(followed)
            followed.up_to_date.set()
        except Exception as error:  # the next poll reads it again; no log may end the worker
            self._log.warn(f"cannot read a turn's log ({find_fault(error)})", followed.log.ref.turn)
        finally:
            followed.is_reading = False

    async def _catch_up(self, followed: "_Followed") -> None:
        """Read the missing bytes of a log from Redis."""
        log = followed.log
        while log.is_open and self._followed.get(log.ref.log_key) is followed:
            begin = log.committed
            known = log.buffered(max(log.begin, begin - _OVERLAP_BYTES), begin)
            state, _, found = await self._store.read(log.ref, begin - len(known), MAX_READ_BYTES)
            finished = state != "running"
            if log.committed != begin or self._followed.get(log.ref.log_key) is not followed:
                continue  # a notification came in between, or this worker writes the log now
            if state is None:
                log.end_as_deleted()
                return
            if found[: len(known)] != known and not (finished and not found):
                log.detach()  # viewers reconnect, and receive a restart
                return
            missed = found[len(known) :]
            if missed or finished:
                log.append(missed)
                log.finish(log.end) if finished else log.mark_committed(log.end)
            return


class _Followed:
    """One followed log, and the state of its reading."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.up_to_date = asyncio.Event()
        self.last_notified_at = asyncio.get_running_loop().time()
        self.is_reading = False
        self.read_again = False
