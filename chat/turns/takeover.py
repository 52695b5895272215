"""Take over the turns of workers that died, whether or not a viewer waits for them."""

import asyncio
import logging
import secrets
import time

from chat.log.follower import MAX_READ_BYTES, Follower
from chat.turns.context.client_request import ClientRequest
from chat.turns.registry import Turns
from config.system.sampled_log import SampledLog
from sessions.client.errors import UNAVAILABLE_ERRORS, ResponseError
from sessions.client.faults import find_fault
from sessions.turns.turn_record import TurnRef
from sessions.turns.turn_store import TurnStore

logger = logging.getLogger("holdline.takeover")

_POLL_INTERVAL_S = 0.5

_MALFORMED = (AttributeError, LookupError, RecursionError, ResponseError, TypeError, ValueError)
"""Errors of a record or a log that another program has written."""


class Takeover:
    """Looks for turns whose lease has expired, and continues them on this worker."""

    def __init__(self, store: TurnStore, turns: Turns, follower: Follower) -> None:
        self._store = store
        self._turns = turns
        self._follower = follower
        self._takeover_allowed_at = 0.0
        self._log = SampledLog(logger)

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
                self._log.warn(f"cannot look for expired leases ({find_fault(error)})")
                # No worker could renew a lease: allow running workers the time of one to do so.
                self._takeover_allowed_at = time.monotonic() + self._store.lease_s
            except Exception as error:  # neither a record nor a reply of Redis may end the worker
                self._log.warn(f"cannot look for expired leases ({type(error).__name__}: {error})")

    async def take_over(self, ref: TurnRef) -> None:
        """Continue a turn here if its lease has expired; raises UNAVAILABLE_ERRORS."""
        if self._turns.has(ref) or time.monotonic() < self._takeover_allowed_at:
            return
        try:
            await self._take_over(ref)
        except UNAVAILABLE_ERRORS:
            raise
        except _MALFORMED as error:  # other turns must not end by it
            logger.warning(
                "turn %s cannot be taken over (%s: %s); dropped. Its log stays for a day: %s",
                ref.turn,
                type(error).__name__,
                error,
                ref.log_key,
            )
            await self._store.drop(ref)

    async def _take_over(self, ref: TurnRef) -> None:
        found = await self._store.take_over(ref, secrets.token_urlsafe(12))
        if found.fence < 0:
            await self._store.unregister(ref)
        if found.fence == 0:
            await self._store.postpone(ref)
        if found.record is None:
            return
        if self._turns.is_draining:  # since the last poll
            await self._store.release(ref, found.fence)
            return
        log = await self._store.read(found.record.ref, 0, MAX_READ_BYTES)
        if len(log.data) < log.length:  # its commits would be rejected, again and again
            raise ValueError(f"its log has {log.length} bytes")
        request = None
        if found.record.has_request:
            request = ClientRequest.decode(await self._store.read_request(ref))
        logger.warning("turn %s is taken over, with fence %d", ref.turn, found.fence)
        self._turns.start(found.record, log.data, found.fence, request=request, interrupted=True)
