"""The batches of a worker: which turns share one, and how often they tick."""

import asyncio

from chat.log.batch import Batch, Writer
from chat.log.log import Log
from sessions.turns.turn_store import TurnStore

MIN_INTERVAL_S, MAX_INTERVAL_S = 0.03, 0.08
"""Bounds of the time between two ticks of a batch: twice the last rounds of all batches.

Fast models send a token every 20 ms. Below 30 ms a delayed token often misses a tick, and the gap
is two intervals: at 25 ms 99 % of gaps were at most 51 ms, at 30 ms 38 (bench, streams-100).
"""

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
        self._rounds_s: dict[Batch, float] = {}
        self._interval_s = min_interval_s
        self._tasks: asyncio.TaskGroup

    def note_round(self, batch: Batch, round_s: float) -> None:
        """Adapt the interval of all batches to the time that the last round of one took."""
        self._rounds_s[batch] = round_s
        twice_s = 2 * sum(self._rounds_s.values())
        self._interval_s = min(self._max_interval_s, max(self._min_interval_s, twice_s))
        for other in self._rounds_s:
            other.interval_s = self._interval_s

    def open(self, log: Log, fence: int) -> Writer:
        """Return a writer whose lease is renewed until it is closed."""
        batches = self._batches.setdefault(self._store.node(log.ref), [])
        batch = next((one for one in batches if len(one.writers) < MAX_BATCH_TURNS), None)
        if batch is None:
            offset = len(batches) % _START_TIMES / _START_TIMES
            batch = Batch(self._store, offset, self._interval_s, self.note_round)
            batches.append(batch)
            self._tasks.create_task(batch.run())
            self._tasks.create_task(batch.renew_leases(self._lease_s))
        writer = Writer(log, fence, batch, self._store)
        batch.writers[writer] = None
        return writer

    async def run(self) -> None:
        """Commit and renew until cancelled; while Redis is unavailable, repeat and lose nothing."""
        async with asyncio.TaskGroup() as self._tasks:
            await asyncio.get_running_loop().create_future()
