"""Renew the leases of the turns in a batch."""

import asyncio
import contextlib
from typing import TYPE_CHECKING

from sessions.client.errors import UNAVAILABLE_ERRORS
from sessions.turn_store import TurnStore

if TYPE_CHECKING:
    from chat.log.batch import Batch


async def renew_leases(batch: "Batch", store: TurnStore, lease_s: float) -> None:
    """Renew every lease three times in its life of `lease_s` seconds, until cancelled."""
    while True:
        await asyncio.sleep(lease_s / 3)
        writers = list(batch.writers)
        if not writers:
            continue
        # While Redis is unavailable the commits say so, and the next round tries again.
        with contextlib.suppress(*UNAVAILABLE_ERRORS):
            replies = await store.renew([(writer.log.ref, writer.fence) for writer in writers])
            for writer, reply in zip(writers, replies, strict=True):
                # A turn that has just finished has no lease; `finish` has its own reply.
                if writer in batch.writers and not writer.is_finishing:
                    batch.handle_reply(writer, reply)
