"""Read what a request needs from Redis, and wait while Redis is unavailable."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from chat.errors import HistoryUnavailable
from chat.log.backoff import Backoff
from sessions.client.errors import UNAVAILABLE_ERRORS
from sessions.client.faults import find_fault
from sessions.keys import TurnId

logger = logging.getLogger("holdline.turn")

MAX_WAIT_S = 60.0
"""Time after which a turn without a first delta fails instead of waiting longer for Redis."""

Found = TypeVar("Found")


async def read_patiently(
    turn: TurnId, read: Callable[[], Awaitable[Found]], *, may_fail: bool = False
) -> Found:
    """Return what `read` returns, and repeat it while Redis is unavailable, as a commit does.

    Raises HistoryUnavailable after MAX_WAIT_S if the turn `may_fail`: it has no first delta yet.
    """
    backoff, began, level = Backoff(), time.monotonic(), logging.WARNING
    while True:
        try:
            return await read()
        except UNAVAILABLE_ERRORS as error:
            if may_fail and time.monotonic() - began > MAX_WAIT_S:
                raise HistoryUnavailable(
                    "history_unavailable",
                    "The conversation could not be read. Try again in a moment.",
                ) from None
            reason = find_fault(error)
            logger.log(level, "Redis unavailable (%s); turn %s waits for its history", reason, turn)
            level = logging.DEBUG  # log once for each turn
            await backoff.wait()
