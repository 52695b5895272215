"""The write-ahead: frames go to Redis in groups, and only then to viewers.

Whoever generates appends frames; the worker's one committer sends what up to a hundred turns have pending in
one write, while the next group gathers.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable

from chat.log.log import Log, LogState
from chat.log.records import Kind
from sessions.client.errors import UNAVAILABLE_ERRORS
from sessions.turn_store import State, TurnStore

logger = logging.getLogger("holdline.committer")

_PACE_S = 0.08
"""A group of many turns is followed no sooner by the next; meanwhile what their upstreams say waits unread.

Twelve times a second still look smooth, and 99 of 100 gaps stay within 100 ms (docs/performance.md)."""

_CROWD = 20
"""So many turns are many; of fewer the groups follow sooner, and those of a lone turn at once."""

_LANE_MAX = 100
"""Turns that go in one group: the rest have another lane, so that no group takes long."""


class Fenced(Exception):
    """Another worker has the turn's lease: this one may write no more."""


class Writer:
    """A worker's right to append to one log, for as long as its fence holds.

    `on_stop` is called when a client stops the turn, `on_fenced` when another worker has its lease.
    """

    def __init__(self, log: Log, fence: int, lane: "_Lane", store: TurnStore) -> None:
        self.log = log
        self.fence = fence
        self.finishing = False
        self.on_stop: Callable[[], None] = lambda: None
        self.on_fenced: Callable[[], None] = lambda: None
        self.lane = lane
        self._begin = log.committed
        self._store = store

    def append(self, kind: Kind, payload: str) -> None:
        """Add a record at the log's end and have it committed: at once, if it is the writer's first."""
        log = self.log
        log.append(log.codec.encode(log.ref.turn, log.end, kind, payload))
        if log.committed == self._begin:
            self.lane.hurry(self)
        else:
            self.lane.submit(self)

    def pace(self, read_on: Callable[[], None]) -> None:
        """Have `read_on` called just before the next group goes: what has come by then goes with it."""
        self.lane.pace(self, read_on)

    def is_crowded(self) -> bool:
        """Whether so many turns share its lane that deltas which wait for one group are better one frame."""
        return len(self.lane.writers) >= _CROWD

    async def finish(self, last: list[tuple[Kind, str]], state: State, message: str) -> None:
        """Append the last records, and end the turn in one step with its history.

        The payload of `END` is the whole answer. `message` is the answer's message as JSON, or "" to
        keep none. Waits while Redis is unavailable. Raises Fenced.
        """
        log = self.log
        await self._flush()
        self.finishing = True
        begin = log.end
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
        """Commit all, then release the lease, so that another worker continues at once. Raises Fenced."""
        await self._flush()
        self.lane.writers.pop(self, None)  # a renewal would take the lease back
        await self._store.release(self.log.ref, self.fence)

    async def _flush(self) -> None:
        while self.log.committed < self.log.end:
            if self.log.state is LogState.DETACHED:
                raise Fenced
            self.lane.hurry(self)
            await self.log.wait_for_commit()
        self.lane.forget(self)  # the next records are sent by `finish`

    def close(self) -> None:
        """Write no more, and renew the lease no more."""
        self.lane.forget(self)
        self.lane.writers.pop(self, None)


class Backoff:
    """Waits between tries: 50 ms at first, doubling up to 1 s."""

    def __init__(self) -> None:
        self._delay_s = 0.05

    async def wait(self) -> None:
        """Wait before the next try."""
        await asyncio.sleep(self._delay_s)
        self._delay_s = min(1.0, self._delay_s * 2)


class _Lane:
    """Some turns of one node, whose frames go in groups; while one is sent, the next gathers in the sockets.

    A group is taken in three steps: its time comes, the turns' upstreams are read, what they said is sent.
    """

    def __init__(self, number: int) -> None:
        self.writers: dict[Writer, None] = {}
        # Lanes keep apart in time, so that no group waits for another's: by the golden ratio, for any number.
        self._phase = number * 0.618 % 1
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._pending: dict[Writer, None] = {}
        self._urgent: dict[Writer, None] = {}
        self._unread: dict[Writer, Callable[[], None]] = {}
        self._timed = False
        self._due = False
        self._due_at = 0.0

    def submit(self, writer: Writer) -> None:
        """Have what the writer's log has pending go with the next group."""
        self._pending[writer] = None
        if not self._timed:
            self._time()

    def hurry(self, writer: Writer) -> None:
        """Have it go as soon as the group that is on its way has arrived, whatever the pace."""
        self._urgent[writer] = None
        self._ready.set()

    def pace(self, writer: Writer, read_on: Callable[[], None]) -> None:
        """Have `read_on` called when the time of the next group has come."""
        self._unread[writer] = read_on
        if not self._timed:
            self._time()

    def forget(self, writer: Writer) -> None:
        """Have nothing of the writer's log go."""
        self._pending.pop(writer, None)
        self._urgent.pop(writer, None)

    async def group(self) -> list[Writer]:
        """Those whose logs are next, perhaps nobody."""
        await self._ready.wait()
        self._ready.clear()
        group = self._urgent
        self._urgent = {}
        if self._due:
            group |= self._pending
            self._pending = {}
            self._due = self._timed = False
            self._due_at = self._next_due()
            if self._unread:
                self._time()
        return list(group)

    def _next_due(self) -> float:
        now = self._loop.time()
        others = len(self.writers) - 1
        if others <= 0:
            return now
        pace_s = _PACE_S * min(1, others / (_CROWD - 1))
        last = (math.floor(now / pace_s - self._phase) + self._phase) * pace_s
        return last if last > self._due_at else last + pace_s

    def _time(self) -> None:
        self._timed = True
        self._loop.call_at(self._due_at, self._read)

    def _read(self) -> None:
        unread, self._unread = self._unread, {}
        for read_on in unread.values():
            read_on()
        self._due = True
        self._ready.set()


class Committer:
    """Commits the pending bytes of all turns of this worker, a group at a time, and keeps their leases.

    On a Redis Cluster each node has lanes of its own, so that a slow or dead one holds up no other's turns.
    """

    def __init__(self, store: TurnStore, lease_s: float) -> None:
        self._store = store
        self._lease_s = lease_s
        self._lanes: dict[str, list[_Lane]] = {}
        self._tasks: asyncio.TaskGroup

    def open(self, log: Log, fence: int) -> Writer:
        """A writer whose lease is kept until it is closed."""
        lanes = self._lanes.setdefault(self._store.node(log.ref), [])
        lane = next((lane for lane in lanes if len(lane.writers) < _LANE_MAX), None)
        if lane is None:
            lane = _Lane(len(lanes))
            lanes.append(lane)
            self._tasks.create_task(self._commit_groups(lane))
            self._tasks.create_task(self._renew_leases(lane))
        writer = Writer(log, fence, lane, self._store)
        lane.writers[writer] = None
        return writer

    async def run(self) -> None:
        """Commit and renew until cancelled; while Redis is away, try again and lose nothing."""
        async with asyncio.TaskGroup() as self._tasks:
            await asyncio.get_running_loop().create_future()

    async def _commit_groups(self, lane: _Lane) -> None:
        while True:
            writers = await lane.group()
            if group := [(w, end) for w in writers if (end := w.log.end) > w.log.committed]:
                await self._commit(group)

    async def _commit(self, group: list[tuple[Writer, int]]) -> None:
        parts = [
            (
                writer.log.ref,
                writer.fence,
                begin := writer.log.committed,
                writer.log.buffered(begin, end),
            )
            for writer, end in group
        ]
        waits = Backoff()
        while True:
            try:
                replies = await self._store.commit(parts)
                break
            except UNAVAILABLE_ERRORS as error:
                logger.warning(
                    "Redis is away (%s), %d turns wait", type(error).__name__, len(group)
                )
                await waits.wait()
        for (writer, end), reply in zip(group, replies, strict=True):
            if reply in (1, 2):
                writer.log.mark_committed(end)
            if reply != 1:
                self._heed(writer, reply)

    async def _renew_leases(self, lane: _Lane) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            writers = list(lane.writers)
            if not writers:
                continue
            with contextlib.suppress(
                *UNAVAILABLE_ERRORS
            ):  # the committer says so, and the next round tries again
                replies = await self._store.renew([(w.log.ref, w.fence) for w in writers])
                for writer, reply in zip(writers, replies, strict=True):
                    # A turn that has just ended has no lease to renew; its end has an answer of its own.
                    if writer in lane.writers and not writer.finishing:
                        self._heed(writer, reply)

    def _heed(self, writer: Writer, reply: object) -> None:
        if reply == 2:
            writer.on_stop()
        elif reply != 1:
            logger.warning(
                "turn %s: commit rejected (%s); another worker has the lease",
                writer.log.ref.turn,
                reply,
            )
            writer.log.detach()
            writer.on_fenced()
