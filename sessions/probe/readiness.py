"""Find out whether Redis serves a worker now, for `/readyz`."""

import asyncio
import time

from sessions.client.connection import Client
from sessions.client.errors import UNAVAILABLE_ERRORS, ReplyTimeout, ResponseError
from sessions.client.faults import Fault, find_fault
from sessions.client.notifications import Notifications
from sessions.probe.requirements import try_commands

_TIME_LIMIT_S = 2.0
_KEEP_S = 1.0


class Readiness:
    """Tries the commands and the subscriptions of a worker.

    The embedded Redis has no users whose rights could change, and rewrites its file after REMOVALS.
    """

    def __init__(self, redis: Client, notifications: Notifications, *, is_embedded: bool) -> None:
        self._redis = redis
        self._notifications = notifications
        self._is_embedded = is_embedded
        self._trying: asyncio.Task[Fault | None] | None = None
        self._kept_until = 0.0

    async def find_fault(self) -> Fault | None:
        """Return why Redis does not serve this worker, within two seconds; None if it does.

        Requests at the same time, and until `_KEEP_S` after a try, share that try: clients must not
        be able to load Redis with them.
        """
        if self._trying is None or (self._trying.done() and time.monotonic() >= self._kept_until):
            self._trying = asyncio.create_task(self._try())
        return await asyncio.shield(self._trying)

    async def _try(self) -> Fault | None:
        try:
            return await self._try_once()
        finally:
            self._kept_until = time.monotonic() + _KEEP_S

    async def _try_once(self) -> Fault | None:
        try:
            async with ReplyTimeout(_TIME_LIMIT_S):
                await try_commands(self._redis, with_removals=not self._is_embedded)
        except (*UNAVAILABLE_ERRORS, ResponseError) as error:
            return find_fault(error)
        rejected = self._notifications.fault
        return rejected if rejected and rejected.remedy else None
