"""The logs of this worker: one for each turn that it writes, follows or shows."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chat.log.follower import Follower
from chat.log.log import SLICE_BYTES, Log, LogState
from sessions.turns.turn_record import TurnRecord, TurnRef
from sessions.turns.turn_store import TurnStore


class Logs:
    """Opens logs: a worker has one `Log` of a turn, filled by a writer or by the follower."""

    def __init__(self, store: TurnStore, follower: Follower) -> None:
        self._store = store
        self._follower = follower
        self._logs: dict[str, Log] = {}
        self._written: set[Log] = set()

    def write(self, ref: TurnRef, data: bytes) -> Log:
        """Return the turn's log for a writer, which continues after `data`, the bytes in Redis.

        Viewers that followed the turn on this worker keep their log.
        """
        log = self._find(ref)
        if log is not None:
            self._follower.unfollow(log)
            if not _extend(log, data):
                log.detach()
                log = None
        if log is None:
            log = self._logs[ref.log_key] = Log(ref, data, read=self._store.read_range)
        self._written.add(log)
        return log

    def close(self, log: Log) -> None:
        """End the writing of a log; its viewers stay if it is finished, and reconnect otherwise."""
        self._written.discard(log)
        log.detach()
        self._drop_unused(log)

    @asynccontextmanager
    async def open(self, record: TurnRecord) -> AsyncIterator[Log]:
        """Hold a turn's log for a viewer; it is followed here if another worker writes it.

        Raises UNAVAILABLE_ERRORS.
        """
        ref = record.ref
        log = self._find(ref)
        if log is None:
            state, data, length = LogState.OPEN, b"", 0
            if record.state != "running":
                state, length = LogState.FINISHED, record.length
                data = await self._read_short(record)
                log = self._find(ref)  # another viewer may have opened it
        if log is None:
            log = self._logs[ref.log_key] = Log(
                ref, data, begin=length - len(data), state=state, read=self._store.read_range
            )
        log.viewers += 1
        try:
            if log.is_open and log not in self._written:
                await self._follower.follow(log)
            yield log
        finally:
            log.viewers -= 1
            self._drop_unused(log)

    def detach_all(self) -> None:
        """Disconnect all viewers, and those that follow a log later: they reconnect elsewhere."""
        self._follower.detach_all()

    async def _read_short(self, record: TurnRecord) -> bytes:
        """Return a finished log, unless it is longer than a slice: then empty."""
        data = (await self._store.read(record.ref, 0, SLICE_BYTES)).data
        return data if len(data) == record.length else b""

    def _find(self, ref: TurnRef) -> Log | None:
        log = self._logs.get(ref.log_key)
        return None if log is None or log.state is LogState.DETACHED else log

    def _drop_unused(self, log: Log) -> None:
        if log in self._written or (log.viewers and log.state is not LogState.DETACHED):
            return
        self._follower.unfollow(log)
        if self._logs.get(log.ref.log_key) is log:
            del self._logs[log.ref.log_key]


def _extend(log: Log, data: bytes) -> bool:
    """Bring a followed log up to `data`; return False if it does not begin as the log does."""
    known = bytes(log.data)
    if data[log.begin : log.begin + len(known)] != known:
        return False
    if len(data) > log.end:
        log.append(data[log.end :])
        log.mark_committed(log.end)
    return True
