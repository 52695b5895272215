"""Commit the records of all turns of a worker to Redis in batches, and only then show them to viewers.

A batch works in rounds: its tick comes, its turns take what their upstreams have sent, one script call
commits their records, and viewers are pushed the frames. The next records wait in the sockets.
"""

import asyncio
import logging
import math

from chat.log.leases import renew_leases
from chat.log.log import Log
from chat.log.writer import Backoff, Writer
from sessions.client.errors import UNAVAILABLE_ERRORS
from sessions.turn_store import TurnStore

logger = logging.getLogger("holdline.batch")

MIN_INTERVAL_S, MAX_INTERVAL_S = 0.025, 0.08
"""Time between two ticks of a batch: twice what the last rounds of all batches took, within these."""

MAX_BATCH_TURNS = 100
"""Turns in one script call; further turns are in another batch, so that no call takes long."""

_START_TIMES = 8
"""Batches tick at this many points of an interval, so that their rounds do not meet."""


class Batches:
    """The batches of this worker.

    On a Redis Cluster each node has its own, so that a slow or dead node delays no other's turns.
    """

    def __init__(
        self,
        store: TurnStore,
        lease_s: float,
        *,
        min_interval_s: float = MIN_INTERVAL_S,
        max_interval_s: float = MAX_INTERVAL_S,
    ) -> None:
        self._store = store
        self._lease_s = lease_s
        self._min_interval_s = min_interval_s
        self._max_interval_s = max_interval_s
        self._batches: dict[str, list[Batch]] = {}
        self._tasks: asyncio.TaskGroup

    @property
    def interval_s(self) -> float:
        """Return the time between two ticks, in seconds."""
        rounds = sum(batch.round_s for batches in self._batches.values() for batch in batches)
        return min(self._max_interval_s, max(self._min_interval_s, 2 * rounds))

    def open(self, log: Log, fence: int) -> Writer:
        """Return a writer whose lease is renewed until it is closed."""
        batches = self._batches.setdefault(self._store.node(log.ref), [])
        batch = next((one for one in batches if len(one.writers) < MAX_BATCH_TURNS), None)
        if batch is None:
            batch = Batch(self, self._store, len(batches))
            batches.append(batch)
            self._tasks.create_task(batch.run())
            self._tasks.create_task(renew_leases(batch, self._store, self._lease_s))
        writer = Writer(log, fence, batch, self._store)
        batch.writers[writer] = None
        return writer

    async def run(self) -> None:
        """Commit and renew until cancelled; while Redis is unavailable, try again and lose nothing."""
        async with asyncio.TaskGroup() as self._tasks:
            await asyncio.get_running_loop().create_future()


class Batch:
    """Up to MAX_BATCH_TURNS turns of one node, whose records are committed together."""

    def __init__(self, batches: Batches, store: TurnStore, number: int) -> None:
        self.writers: dict[Writer, None] = {}
        self.round_s = 0.0
        """How long the last round took, in seconds."""
        self._batches = batches
        self._store = store
        self._offset = number % _START_TIMES / _START_TIMES
        self._loop = asyncio.get_running_loop()
        self._due = asyncio.Event()
        self._reading: dict[Writer, None] = {}
        self._pending: dict[Writer, None] = {}
        self._urgent: dict[Writer, None] = {}
        self._committing: dict[Writer, int] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_tick = False
        self._last_tick = 0.0

    def submit(self, writer: Writer) -> None:
        """Commit the writer's records at the next tick."""
        self._pending[writer] = None
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
            self.round_s = 0.0

    async def run(self) -> None:
        """Do rounds until cancelled."""
        while True:
            await self._due.wait()
            self._due.clear()
            began = self._loop.time()
            is_tick, self._is_tick = self._is_tick, False
            if is_tick:
                self._last_tick = began
            for writer in self._take_due(is_tick):
                self._advance(writer)
            await self._commit(self._take_committable(is_tick))
            if is_tick:
                self.round_s = self._loop.time() - began if self.writers else 0.0
                if self._reading or self._pending:
                    self._schedule()

    def _take_due(self, is_tick: bool) -> list[Writer]:
        """Return the writers to read now: all that wait at a tick, otherwise the urgent ones."""
        if not is_tick:
            due = [writer for writer in self._urgent if writer in self._reading]
            for writer in due:
                del self._reading[writer]
            return due
        reading, self._reading = self._reading, {}
        return list(reading)

    def _advance(self, writer: Writer) -> None:
        try:
            if writer.advance():
                self._reading[writer] = None
        except Exception as error:  # ends this turn, and no other
            writer.fail(error)

    def _take_committable(self, is_tick: bool) -> list[tuple[Writer, int]]:
        """Return the writers to commit now, with the end of their records."""
        writers, self._urgent = self._urgent, {}
        if is_tick:
            writers = writers | self._pending
            self._pending = {}
        elif self._reading or self._pending:
            self._schedule()
        found = [(writer, writer.log.end) for writer in writers]
        return [(writer, end) for writer, end in found if end > writer.log.committed]

    async def _commit(self, writers: list[tuple[Writer, int]]) -> None:
        if not writers:
            return
        self._committing = dict(writers)
        parts = [
            (
                writer.log.ref,
                writer.fence,
                writer.log.committed,
                writer.log.buffered(writer.log.committed, end),
            )
            for writer, end in writers
        ]
        backoff = Backoff()
        while True:
            try:
                replies = await self._store.commit(parts)
                break
            except UNAVAILABLE_ERRORS as error:
                logger.warning(
                    "Redis unavailable (%s); %d turns waiting", type(error).__name__, len(writers)
                )
                await backoff.wait()
        self._committing = {}
        for (writer, end), reply in zip(writers, replies, strict=True):
            if reply in (1, 2):
                writer.log.mark_committed(end)
            if reply != 1:
                self.handle_reply(writer, reply)

    def handle_reply(self, writer: Writer, reply: object) -> None:
        """Act on the reply to a commit or renewal: stop the turn, or give it up."""
        if reply == 2:
            writer.on_stop()
        elif reply != 1:
            turn = writer.log.ref.turn
            logger.warning("turn %s: rejected (%s); another worker has the lease", turn, reply)
            writer.log.detach()
            writer.on_fenced()

    def _schedule(self) -> None:
        if self._timer is None and not self._is_tick:
            self._timer = self._loop.call_at(self._next_tick(), self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._is_tick = True
        self._due.set()

    def _next_tick(self) -> float:
        """Return the time of this batch's next point in the interval; in the past if it was missed."""
        interval_s = self._batches.interval_s
        point = math.floor(self._loop.time() / interval_s - self._offset) + self._offset
        last = point * interval_s
        return last if last > self._last_tick else last + interval_s
