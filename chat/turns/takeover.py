"""Take over the turns of workers that died, whether or not a viewer waits for them."""

import asyncio
import logging
import secrets
import time

from chat.log.follower import MAX_READ_BYTES, Follower
from chat.turns.context.client_request import ClientRequest
from chat.turns.registry import Turns
from sessions.client.errors import UNAVAILABLE_ERRORS, ResponseError
from sessions.turn_record import TurnRef
from sessions.turn_store import TurnStore

logger = logging.getLogger("holdline.takeover")

_POLL_INTERVAL_S = 0.5


class Takeover:
    """Looks for turns whose lease has expired, and continues them on this worker."""

    def __init__(self, store: TurnStore, turns: Turns, follower: Follower) -> None:
        self._store = store
        self._turns = turns
        self._follower = follower
        self._takeover_allowed_at = 0.0

    async def run(self) -> None:
        """Poll until cancelled, in the index of running turns and among the followed logs."""
        while True:
            await asyncio.sleep(_POLL_INTERVAL_S)
            if self._turns.is_draining:
                continue
            try:
                for ref in [*await self._store.expired_leases(), *self._follower.take_silent()]:
                    await self.take_over(ref)
            except UNAVAILABLE_ERRORS as error:
                logger.debug("cannot look for expired leases (%s)", type(error).__name__)
                # No worker could renew a lease: allow running workers the time of one to do so.
                self._takeover_allowed_at = time.monotonic() + self._store.lease_s
            except ResponseError as error:
                logger.error("cannot look for expired leases (%s)", error)

    async def take_over(self, ref: TurnRef) -> None:
        """Continue a turn here if its lease has expired; raises UNAVAILABLE_ERRORS."""
        if self._turns.has(ref) or time.monotonic() < self._takeover_allowed_at:
            return
        try:
            await self._take_over(ref)
        except UNAVAILABLE_ERRORS:
            raise
        except Exception:  # its data are malformed: no other turn, nor the worker, may end by it
            logger.exception("turn %s cannot be taken over", ref.turn)
            await self._store.unregister(ref)

    async def _take_over(self, ref: TurnRef) -> None:
        found = await self._store.take_over(ref, secrets.token_urlsafe(12))
        if found.fence < 0:
            await self._store.unregister(ref)
        if found.record is None:
            if found.fence > 0:  # every poll would find it again
                logger.warning("turn %s lacks a field; removed from the running turns", ref.turn)
                await self._store.unregister(ref)
            return
        if self._turns.is_draining:  # since the last poll
            await self._store.release(ref, found.fence)
            return
        log = await self._store.read(found.record.ref, 0, MAX_READ_BYTES)
        request = None
        if found.record.has_request:
            stored = await self._store.read_request(ref)
            request = ClientRequest.decode(stored) if stored else ClientRequest([])
        logger.warning("turn %s is taken over, with fence %d", ref.turn, found.fence)
        self._turns.start(found.record, log.data, found.fence, request=request, interrupted=True)
