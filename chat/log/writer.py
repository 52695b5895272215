"""A worker's right to append to one log, for as long as its fence holds."""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from chat.log.log import Log, LogState
from chat.log.records import Kind
from sessions.client.errors import UNAVAILABLE_ERRORS
from sessions.turn_record import State
from sessions.turn_store import TurnStore

if TYPE_CHECKING:
    from chat.log.batch import Batch

logger = logging.getLogger("holdline.writer")


class Fenced(Exception):
    """Another worker has the turn's lease: this one may write no more."""


class Backoff:
    """Waits between tries: 50 ms at first, doubling up to 1 s."""

    def __init__(self) -> None:
        self._delay_s = 0.05

    async def wait(self) -> None:
        """Wait before the next try."""
        await asyncio.sleep(self._delay_s)
        self._delay_s = min(1.0, self._delay_s * 2)


class Writer:
    """Appends records to a log; its batch commits them.

    The turn sets four functions. `advance` appends what has been received, and returns whether to be
    called at the next tick: if not, the turn calls `wake`. `fail` takes an exception of `advance`,
    which ends this turn only. `on_stop` is called when a client stops the turn, `on_fenced` when
    another worker has its lease.
    """

    __slots__ = (
        "_has_output", "_store", "advance", "batch", "fail", "fence", "is_finishing", "log",
        "on_fenced", "on_stop",
    )  # fmt: skip

    def __init__(self, log: Log, fence: int, batch: "Batch", store: TurnStore) -> None:
        self.log = log
        self.fence = fence
        self.batch = batch
        self.is_finishing = False
        self.advance: Callable[[], bool] = lambda: False
        self.fail: Callable[[Exception], None] = lambda error: None
        self.on_stop: Callable[[], None] = lambda: None
        self.on_fenced: Callable[[], None] = lambda: None
        self._has_output = False
        self._store = store

    def append(self, kind: Kind, payload: str) -> None:
        """Add a record at the log's end; the next tick commits it.

        The first output, and every record that announces a request or a seam, is committed at once.
        """
        log = self.log
        log.append(log.codec.encode(log.ref.turn, log.end, kind, payload))
        if kind in (Kind.TEXT, Kind.REASONING) and self._has_output:
            self.batch.submit(self)
        else:
            self._has_output = kind in (Kind.TEXT, Kind.REASONING)
            self.batch.flush(self)

    def wake(self) -> None:
        """Have `advance` called at the next tick, or at once if viewers wait for the first output."""
        if self._has_output:
            self.batch.read(self)
        else:
            self.batch.read_now(self)

    async def finish(self, last: list[tuple[Kind, str]], state: State, message: str) -> None:
        """Commit what is pending with the last records, and end the turn in the same step.

        The payload of `END` is the whole answer. `message` is the answer's message as JSON, or "" to
        keep none. Waits while Redis is unavailable. Raises Fenced.
        """
        log = self.log
        self.is_finishing = True
        await self._wait_for_commit()
        begin = log.committed
        for kind, payload in last:
            log.append(log.codec.encode(log.ref.turn, log.end, kind, payload))
        tail = log.buffered(begin, log.end)
        backoff = Backoff()
        while True:
            try:
                if not await self._store.finish(log.ref, self.fence, begin, tail, state, message):
                    raise Fenced
                log.finish(log.end, dict(last).get(Kind.END))
                return
            except UNAVAILABLE_ERRORS as error:
                logger.warning(
                    "Redis unavailable (%s); a finished turn waits", type(error).__name__
                )
                await backoff.wait()

    async def hand_over(self) -> None:
        """Commit all, then release the lease, so that another worker continues. Raises Fenced."""
        log = self.log
        while log.committed < log.end:
            if log.state is LogState.DETACHED:
                raise Fenced
            self.batch.flush(self)
            await log.wait_for_commit()
        self.batch.remove(self)  # a renewal would take the lease back
        await self._store.release(log.ref, self.fence)

    async def _wait_for_commit(self) -> None:
        """Wait until no commit of this log is under way, and leave its pending bytes to `finish`."""
        while self.batch.is_committing(self):
            await self.log.wait_for_commit()
        if self.log.state is LogState.DETACHED:
            raise Fenced
        self.batch.discard(self)

    def close(self) -> None:
        """Write no more, and renew the lease no more."""
        self.batch.remove(self)
