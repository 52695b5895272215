"""Commit the records of several turns to Redis together, and only then push them to viewers.

In each round turns take the data that their upstreams have sent, one script call commits their
records, and viewers are pushed the frames. Further data waits in the sockets.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable

from chat.log.backoff import Backoff
from chat.log.log import Log, LogState
from chat.log.records import TEXT_KINDS, Kind
from config.system.sampled_log import SampledLog
from sessions.client.errors import UNAVAILABLE_ERRORS, ResponseError
from sessions.client.faults import find_fault
from sessions.turns.turn_record import State
from sessions.turns.turn_store import TurnStore

logger = logging.getLogger("holdline.batch")

_MAX_READS = 3
"""Reads of a turn in one round, before its first output: a chunk without text must not delay it."""


class Fenced(Exception):
    """Another worker has the turn's lease: this one may write no more."""


class Writer:
    """Appends the records of one turn to its log, while its fence holds; its batch commits them.

    The turn sets four functions. `advance` appends the data received so far, and returns whether to
    call it at the next tick; otherwise the turn calls `wake`. `fail` takes an exception of
    `advance`, which ends this turn only. `on_stop` is called when a client stops the turn,
    `on_fenced` when another worker has its lease.
    """

    __slots__ = (
        "_store", "advance", "batch", "fail", "fence", "has_output", "is_finishing", "log",
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
        self.has_output = False
        self._store = store

    def append(self, kind: Kind, payload: str) -> None:
        """Add a record at the log's end; the next tick commits it.

        The first output, and each record of an attempt or a seam, is committed immediately.
        """
        log = self.log
        log.data += log.codec.encode(log.ref.turn, log.end, kind, payload)
        is_output = kind in TEXT_KINDS
        if (is_output and self.has_output) or kind is Kind.EXTRA:
            self.batch.submit(self)
        else:
            self.has_output = is_output
            self.batch.flush(self)

    def wake(self) -> None:
        """Schedule `advance` for the next tick; before the first output, for now."""
        if self.has_output:
            self.batch.read(self)
        else:
            self.batch.read_now(self)

    async def finish(self, last: list[tuple[Kind, str]], state: State, message: str) -> None:
        """Commit the pending and the last records, and finish the turn in the same step.

        The payload of `END` is the whole answer. `message` is the answer's message as JSON, or ""
        to store none. Waits while Redis is unavailable. Raises Fenced.
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
                self.batch.outages.warn(f"Redis unavailable ({find_fault(error)})", "turns wait")
                await backoff.wait()

    async def hand_over(self) -> None:
        """Commit all, then release the lease, so that another worker continues; raises Fenced.

        While Redis is unavailable, the lease expires instead.
        """
        log = self.log
        while log.committed < log.end:
            if log.state is LogState.DETACHED:
                raise Fenced
            self.batch.flush(self)
            await log.wait_for_commit()
        self.batch.remove(self)  # a renewal would take the lease back
        try:
            await self._store.release(log.ref, self.fence)
        except UNAVAILABLE_ERRORS as error:
            logger.warning("Redis unavailable (%s); a lease was not released", find_fault(error))

    async def _wait_for_commit(self) -> None:
        """Wait until no commit of this log is under way; `finish` commits its pending bytes."""
        while self.batch.is_committing(self):
            await self.log.wait_for_commit()
        if self.log.state is LogState.DETACHED:
            raise Fenced
        self.batch.discard(self)

    def close(self) -> None:
        """Write no more, and renew the lease no more."""
        self.batch.remove(self)


class Batch:
    """Turns of one node, whose records are committed together.

    It ticks every `interval_s` seconds, at the share `offset` of the interval. `on_round` is called
    with the time in seconds that each round took, and with 0 when no turn is left.
    """

    def __init__(
        self,
        store: TurnStore,
        offset: float,
        interval_s: float,
        on_round: "Callable[[Batch, float], None]",
    ) -> None:
        self.writers: dict[Writer, None] = {}
        self.offset = offset
        self.interval_s = interval_s
        self.outages = SampledLog(logger)
        self._store = store
        self._on_round = on_round
        self._loop = asyncio.get_running_loop()
        self._due = asyncio.Event()
        self._reading: dict[Writer, None] = {}
        self._pending: dict[Writer, None] = {}
        self._urgent: dict[Writer, None] = {}
        self._committing: dict[Writer, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_tick = False
        self._is_in_round = False
        self._tick_at: float | None = None

    def submit(self, writer: Writer) -> None:
        """Commit the writer's records at the next tick."""
        self._pending[writer] = None
        if not self._is_in_round:
            self._schedule()

    def flush(self, writer: Writer) -> None:
        """Commit the writer's records as soon as the commit under way is done."""
        self._urgent[writer] = None
        self._due.set()

    def read(self, writer: Writer) -> None:
        """Call the writer's `advance` at the next tick."""
        self._reading[writer] = None
        self._schedule()

    def read_now(self, writer: Writer) -> None:
        """Call the writer's `advance` as soon as the commit under way is done, and commit."""
        self._reading[writer] = None
        self.flush(writer)

    def is_committing(self, writer: Writer) -> bool:
        """Return whether a commit of the writer's records is under way."""
        return writer in self._committing

    def discard(self, writer: Writer) -> None:
        """Neither read nor commit for a writer any more."""
        for waiting in (self._reading, self._pending, self._urgent):
            waiting.pop(writer, None)

    def remove(self, writer: Writer) -> None:
        """Let a writer leave the batch."""
        self.discard(writer)
        self.writers.pop(writer, None)
        if not self.writers:
            self._on_round(self, 0.0)

    async def run(self) -> None:
        """Do rounds until cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            self._is_in_round = True
            began = self._loop.time()
            is_tick, self._is_tick = self._is_tick, False
            for writer in self._take_due(is_tick):
                self._advance(writer)
            if writers := self._take_committable(is_tick):
                await self._commit(writers)
            if is_tick:
                self._on_round(self, self._loop.time() - began)
            self._is_in_round = False
            if self._reading or self._pending:
                self._schedule()

    def _take_due(self, is_tick: bool) -> list[Writer]:
        """Return the writers to read now: at a tick all that wait, otherwise the urgent ones."""
        due = [one for one in (self._reading if is_tick else self._urgent) if one in self._reading]
        for writer in due:
            del self._reading[writer]
        return due

    def _advance(self, writer: Writer) -> None:
        try:
            for _ in range(_MAX_READS):
                if not writer.advance():
                    return
                if writer.has_output:
                    break
            self._reading[writer] = None
        except Exception as error:  # ends this turn, and no other
            writer.fail(error)

    def _take_committable(self, is_tick: bool) -> list[tuple[Writer, int]]:
        """Return the writers to commit now, with the end of their records."""
        writers, self._urgent = self._urgent, {}
        if is_tick:
            writers = writers | self._pending
            self._pending = {}
        found = []
        for writer in writers:
            end = writer.log.end
            if end > writer.log.committed:
                found.append((writer, end))
        return found

    async def _commit(self, writers: list[tuple[Writer, int]]) -> None:
        self._committing = dict(writers)
        parts = [
            (log.ref, writer.fence, log.committed, log.buffered(log.committed, end))
            for log, writer, end in ((writer.log, writer, end) for writer, end in writers)
        ]
        backoff = Backoff()
        while True:
            try:
                replies = await self._store.commit(parts)
                break
            except UNAVAILABLE_ERRORS as error:
                self.outages.warn(f"Redis unavailable ({find_fault(error)})", "turns wait")
                await backoff.wait()
        self._committing = {}
        for (writer, end), reply in zip(writers, replies, strict=True):
            if reply in (1, 2):
                writer.log.mark_committed(end)
            if reply != 1:
                self._handle_reply(writer, reply)

    async def renew_leases(self, lease_s: float) -> None:
        """Renew every lease three times in its life of `lease_s` seconds, until cancelled."""
        while True:
            await asyncio.sleep(lease_s / 3)
            writers = list(self.writers)
            if not writers:
                continue
            # While Redis is unavailable, the commits log it; the next round renews again.
            with contextlib.suppress(*UNAVAILABLE_ERRORS, ResponseError):
                held = [(writer.log.ref, writer.fence) for writer in writers]
                replies = await self._store.renew(held)
                for writer, reply in zip(writers, replies, strict=True):
                    # A turn that has just finished has no lease; `finish` has its own reply.
                    if writer in self.writers and not writer.is_finishing:
                        self._handle_reply(writer, reply)

    def _handle_reply(self, writer: Writer, reply: object) -> None:
        """Act on the reply to a commit or renewal: stop the turn, or abandon it."""
        if reply == 2:
            writer.on_stop()
        elif reply != 1:
            turn = writer.log.ref.turn
            logger.warning("turn %s: rejected (%s); another worker has the lease", turn, reply)
            writer.log.detach()
            writer.on_fenced()

    def _schedule(self) -> None:
        if self._timer is None and not self._is_tick and not self._is_in_round:
            self._tick_at = self._next_tick()
            self._timer = self._loop.call_at(self._tick_at, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._is_tick = True
        self._due.set()

    def _next_tick(self) -> float:
        """Return the point of the interval nearest to one interval after the last tick.

        If that is past, return the latest point: the tick was missed, and comes at once. So does
        the first tick.
        """
        interval_s, now = self.interval_s, self._loop.time()
        if self._tick_at is None:
            return now
        point = round((self._tick_at + interval_s) / interval_s - self.offset) + self.offset
        if point * interval_s < now:
            point = math.floor(now / interval_s - self.offset) + self.offset
        return point * interval_s
