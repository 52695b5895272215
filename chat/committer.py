"""The write-ahead: frames go to Redis in groups, and only then to viewers.

Whoever generates appends frames; the worker's one committer sends what all its turns have pending in one
write, while the next group gathers.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from chat import frames
from chat.log import Log
from sessions.connection import AWAY
from sessions.turn_store import State, TurnStore

logger = logging.getLogger("holdline.committer")

PENDING_MAX = 256 << 10
"""Bytes of one turn that may wait for Redis; until they are committed its upstream is read no further."""

_PACE_S = 0.025
"""A group of several turns is followed no sooner by the next: what comes meanwhile goes together.

Forty times a second look smooth. What it saves is measured in docs/performance.md."""


class Writer:
    """A worker's right to append to one log, for as long as its fence holds."""

    def __init__(self, log: Log, fence: int, committer: "Committer", lane: "_Lane", store: TurnStore) -> None:
        self.log = log
        self.fence = fence
        self.refused = False
        self.finishing = False
        self.on_stop: Callable[[], None] = lambda: None
        self.lane = lane
        self._begin = log.committed
        self._committer = committer
        self._store = store

    def append(self, data: str, event: str = "") -> None:
        """Encode a frame at the log's end and have it committed: at once, if it is the writer's first."""
        self._encode(data, event)
        if self.log.committed == self._begin:
            self.lane.hurry(self)
        else:
            self.lane.submit(self)

    @property
    def full(self) -> bool:
        """Whether more than PENDING_MAX bytes wait for Redis."""
        return self.log.end - self.log.committed > PENDING_MAX and not self.refused

    async def room(self) -> None:
        """Return when at most PENDING_MAX bytes wait for Redis, or the turn is another worker's."""
        while self.full:
            await self.log.changed()

    async def finish(self, last: list[tuple[str, str]], state: State, answer: str) -> None:
        """Append the last frames, given as event and data, and end the turn in one step with its history.

        `answer` is the message to keep, as JSON, or "". Waits while Redis is away; a turn that is another
        worker's by now is left to it.
        """
        log = self.log
        await self._flush()
        self.finishing = True
        begin = log.end
        for event, data in last:
            self._encode(data, event)
        tail = log.held(begin, log.end)
        waits = Backoff()
        while not self.refused:
            try:
                if await self._store.finish(log.place, self.fence, begin, tail, state, answer):
                    log.confirm(log.end, ended=True)
                else:
                    self.refuse()
                return
            except AWAY as error:
                logger.warning("Redis is away (%s), a finished turn waits", type(error).__name__)
                await waits.wait()

    async def hand_over(self) -> None:
        """Commit all, then let go of the turn, so that another worker goes on with it at once."""
        await self._flush()
        if not self.refused:
            await self._store.release(self.log.place, self.fence)

    async def _flush(self) -> None:
        while self.log.committed < self.log.end and not self.refused:
            self.lane.hurry(self)
            await self.log.changed()
        self.lane.forget(self)  # what is appended from here on goes another way

    def refuse(self) -> None:
        """Give up the log: the turn is another worker's now."""
        self.refused = True
        self.log.lose()
        self.on_stop()

    def close(self) -> None:
        """Hold the log no longer; the viewers of one that has not ended go and look elsewhere."""
        self._committer.forget(self)
        if not self.log.ended:
            self.log.lose()

    def _encode(self, data: str, event: str) -> None:
        log = self.log
        log.data += frames.encode(log.place.turn, log.end, data, event)


class Backoff:
    """Waits between tries: 50 ms at first, doubling up to 1 s."""

    def __init__(self) -> None:
        self._delay_s = 0.05

    async def wait(self) -> None:
        """Wait before the next try."""
        await asyncio.sleep(self._delay_s)
        self._delay_s = min(1.0, self._delay_s * 2)


class _Lane:
    """What the turns of one node have pending; while a group of them is sent, the next one gathers."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._pending: dict[Writer, None] = {}
        self._urgent: dict[Writer, None] = {}
        self._due = False
        self._due_at = 0.0

    def submit(self, writer: Writer) -> None:
        """Have what the writer's log has pending go with the next group."""
        if not self._pending:
            self._loop.call_at(self._due_at, self._fall_due)
        self._pending[writer] = None

    def hurry(self, writer: Writer) -> None:
        """Have it go as soon as the group that is on its way has arrived, whatever the pace."""
        self._urgent[writer] = None
        self._ready.set()

    def forget(self, writer: Writer) -> None:
        """Have nothing of the writer's log go."""
        self._pending.pop(writer, None)
        self._urgent.pop(writer, None)

    async def group(self) -> list[Writer]:
        """Those whose logs are next, perhaps nobody."""
        await self._ready.wait()
        self._ready.clear()
        group = self._urgent
        if self._due:
            group |= self._pending
            self._pending = {}
            self._due = False
            self._due_at = self._loop.time() + _PACE_S if len(group) > 1 else 0.0
        self._urgent = {}
        return list(group)

    def _fall_due(self) -> None:
        self._due = True
        self._ready.set()


class Committer:
    """Commits the pending bytes of all turns of this worker, a group at a time, and keeps their leases.

    On a Redis Cluster each node has groups of its own, so that a slow or dead one holds up no other's turns.
    """

    def __init__(self, store: TurnStore, lease_s: float) -> None:
        self._store = store
        self._lease_s = lease_s
        self._writers: dict[Writer, None] = {}
        self._lanes: dict[str, _Lane] = {}
        self._tasks: asyncio.TaskGroup

    def open(self, log: Log, fence: int) -> Writer:
        """A writer whose lease is kept until it is closed."""
        node = self._store.node(log.place)
        if node not in self._lanes:
            self._lanes[node] = _Lane()
            self._tasks.create_task(self._commit_groups(self._lanes[node]))
        writer = Writer(log, fence, self, self._lanes[node], self._store)
        self._writers[writer] = None
        return writer

    def forget(self, writer: Writer) -> None:
        """Keep the writer's lease no longer."""
        self._writers.pop(writer, None)
        writer.lane.forget(writer)

    async def run(self) -> None:
        """Commit and renew until cancelled; while Redis is away, try again and lose nothing."""
        async with asyncio.TaskGroup() as self._tasks:
            self._tasks.create_task(self._renew_leases())

    async def _commit_groups(self, lane: _Lane) -> None:
        while True:
            group = [(writer, writer.log.end) for writer in await lane.group()]
            if group := [(writer, end) for writer, end in group if end > writer.log.committed]:
                await self._commit(group)

    async def _commit(self, group: list[tuple[Writer, int]]) -> None:
        calls = [
            self._store.commit(
                writer.log.place,
                writer.fence,
                writer.log.committed,
                writer.log.held(writer.log.committed, end),
            )
            for writer, end in group
        ]
        waits = Backoff()
        while True:
            try:
                replies = await self._store.send(calls)
                break
            except AWAY as error:
                logger.warning("Redis is away (%s), %d turns wait", type(error).__name__, len(group))
                await waits.wait()
        for (writer, end), reply in zip(group, replies, strict=True):
            if isinstance(reply, int) and reply > 0:
                writer.log.confirm(end)
            self._heed(writer, reply)

    async def _renew_leases(self) -> None:
        while True:
            await asyncio.sleep(self._lease_s / 3)
            writers = list(self._writers)
            if not writers:
                continue
            with contextlib.suppress(*AWAY):  # the committer says so, and the next round tries again
                replies = await self._store.send([self._store.renew(w.log.place, w.fence) for w in writers])
                await self._store.register([w.log.place for w in writers if w in self._writers])
                for writer, reply in zip(writers, replies, strict=True):
                    # A turn that has just ended has no lease to renew; its end has an answer of its own.
                    if writer in self._writers and not writer.finishing:
                        self._heed(writer, reply)

    def _heed(self, writer: Writer, reply: object) -> None:
        if reply == 2:
            writer.on_stop()
        elif reply != 1:
            logger.warning("turn %s was refused by its log (%s)", writer.log.place.turn, reply)
            writer.refuse()
