"""A turn's log in this worker: filled by one writer or follower, read by any number of viewers.

Viewers see only bytes that Redis has acknowledged. Only the log's end is retained in memory: a
viewer that arrives late or lags behind reads the rest from Redis.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from enum import Enum
from typing import Protocol

from chat.log import legacy, records
from chat.log.format import Format, Send
from chat.log.records import Kind, PartialAnswer
from chat.log.tail_viewer import Push, TailViewer
from sessions.client.errors import UNAVAILABLE_ERRORS
from sessions.turns.turn_record import TurnRef

MAX_LOG_BYTES = 2 << 20
"""A turn whose records exceed this fails; models send far less in one answer."""

SLICE_BYTES = 64 << 10
"""Bytes that are read from Redis for a viewer in one step."""

_PIECE_BYTES = 16 << 10
"""Bytes of records that are sent in one chunk of the body; it ends where a record ends."""

_RETAINED_BYTES = 2048
"""Committed bytes that stay in memory, about four seconds of an answer; twice as many at most."""

_DELETED = json.dumps(
    {
        "type": "not_found",
        "message": "The answer no longer exists: its conversation was deleted, or it was dropped.",
        "retryable": False,
    }
)

Read = Callable[[TurnRef, int, int], Awaitable[bytes]]
"""Reads the bytes of a turn's log between two offsets, as many as Redis has."""


class Codec(Protocol):
    """The encoding of a log: `records`, or `legacy` for a turn that an older version began."""

    def encode(self, turn: str, offset: int, kind: Kind, payload: str) -> bytes: ...
    def is_valid_offset(self, before: bytes, after: bytes) -> bool: ...
    def is_complete(self, tail: bytes) -> bool: ...
    def keep_whole(self, data: bytes) -> bytes: ...
    def decode_answer(self, data: bytes) -> PartialAnswer: ...


def choose_codec(ref: TurnRef) -> Codec:
    """Return the encoding of a turn's log."""
    return legacy if ref.is_legacy else records


class LogState(Enum):
    """Whether this worker still expects bytes for a log."""

    OPEN = "open"
    FINISHED = "finished"
    DETACHED = "detached"
    """This worker no longer keeps the log up to date: its viewers reconnect."""


class Log:
    """The log of one turn. Redis has `committed` bytes; `data` holds the bytes from `begin` on.

    Without `read` all bytes are retained.
    """

    def __init__(
        self,
        ref: TurnRef,
        data: bytes = b"",
        *,
        begin: int = 0,
        state: LogState = LogState.OPEN,
        read: Read | None = None,
    ) -> None:
        self.ref = ref
        self.begin = begin
        self.data = bytearray(data)
        self.committed = begin + len(data)
        self.state = state
        self.viewers = 0
        self.codec = choose_codec(ref)
        self._read = read
        self._waiters: list[asyncio.Future[None]] = []
        self._tail: dict[Format, dict[TailViewer, None]] = {}
        self._answer: str | None = None
        self._answer_lock: asyncio.Lock | None = None
        self._end_frames: dict[Format, bytes | None] = {}
        self._describe_wait: Callable[[], dict[str, object]] | None = None

    @property
    def end(self) -> int:
        """Return the length of the whole log in bytes, uncommitted ones included."""
        return self.begin + len(self.data)

    def has_room(self, text: str) -> bool:
        """Return whether a text fits into the log, whose maximum depends on its encoding."""
        limit = legacy.MAX_LOG_BYTES if self.ref.is_legacy else MAX_LOG_BYTES
        return self.end + len(text.encode()) <= limit

    @property
    def is_open(self) -> bool:
        """Return whether more bytes may be appended."""
        return self.state is LogState.OPEN

    def append(self, data: bytes) -> None:
        """Add bytes at the end; no viewer sees them before `mark_committed`."""
        self.data += data

    def buffered(self, begin: int, end: int) -> bytes:
        """Return the bytes between two offsets, both of which must be in memory."""
        return bytes(self.data[begin - self.begin : end - self.begin])

    async def read(self, begin: int, end: int) -> bytes:
        """Return committed bytes between two offsets, from memory or from Redis.

        Returns fewer if Redis has lost some; raises UNAVAILABLE_ERRORS.
        """
        if begin >= self.begin or begin == end or self._read is None:
            return self.buffered(begin, end)
        return await self._read(self.ref, begin, end)

    async def is_valid_offset(self, offset: int) -> bool:
        """Return whether a viewer can resume from an offset; raises UNAVAILABLE_ERRORS."""
        if not 0 <= offset <= self.committed:
            return False
        begin = max(0, offset - 2)
        around = await self.read(begin, min(self.committed, offset + 1))
        return self.codec.is_valid_offset(around[: offset - begin], around[offset - begin :])

    def mark_committed(self, committed: int) -> None:
        """Show viewers the bytes up to the offset `committed`, which Redis has acknowledged."""
        begin, self.committed = self.committed, committed
        self._notify()
        if self._tail and begin < committed:
            self._push(begin)
        spare = committed - self.begin - _RETAINED_BYTES
        if spare > _RETAINED_BYTES and self._read:
            cut = self.data.find(b"\0", spare, committed - self.begin)
            if cut > 0:
                del self.data[:cut]
                self.begin += cut

    def finish(self, committed: int, answer: str | None = None) -> None:
        """Mark the whole log as committed; `answer` is its text, if this worker knows it."""
        self._answer = answer
        self.mark_committed(committed)
        self.state = LogState.FINISHED
        self._release_viewers()

    def announce(self, describe_wait: Callable[[], dict[str, object]] | None) -> None:
        """Tell the viewers of this worker why the answer waits, until called with None."""
        self._describe_wait = describe_wait
        if describe_wait:
            for viewers in self._tail.values():
                for viewer in viewers:
                    viewer.wake()

    def end_as_deleted(self) -> None:
        """End the log with a failure for the viewers of this worker: Redis has deleted the log."""
        self.append(self.codec.encode(self.ref.turn, self.end, Kind.FAILED, _DELETED))
        self.finish(self.end)

    def detach(self) -> None:
        """Disconnect every viewer, which reconnects: this worker no longer follows the turn."""
        if self.is_open:
            self.state = LogState.DETACHED
        self._release_viewers()

    async def wait_for_commit(self) -> None:
        """Return at the next commit, or when the log is detached."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    async def wait_until_closed(self) -> None:
        """Return when the log is finished or detached."""
        while self.is_open:
            await self.wait_for_commit()

    async def relay(self, offset: int, viewer_format: Format, send: Send, push: Push) -> bool:
        """Send a viewer the log from `offset` on, until the log is finished or detached.

        Return whether the viewer has the whole answer: False if the turn has failed, and if the
        viewer must reconnect.

        A viewer that keeps up is pushed each commit within the batch's round; no task is woken. One
        that lags behind gets slices by `send`, at its own pace. A heartbeat is sent every
        HEARTBEAT_S seconds, and before a first push: the first `send` also sends the headers.
        """
        turn = self.ref.turn
        has_sent = False
        reported = None
        try:
            while offset < self.committed or self.is_open:
                if offset < self.committed:
                    data = await self._read_records(offset)
                    if not data:
                        return False  # Redis lost the bytes: the viewer reconnects
                    for piece in _cut(data):
                        if frames := viewer_format.encode(turn, offset, piece):
                            await send(frames)
                            has_sent = True
                        offset += len(piece)
                elif has_sent and self._describe_wait in (None, reported):
                    offset, is_silent = await self._wait_at_tail(offset, viewer_format, push)
                    if is_silent:
                        await send(self._build_idle_frame(viewer_format, offset))
                else:
                    reported = self._describe_wait
                    await send(self._build_idle_frame(viewer_format, offset))
                    has_sent = True
            if self.state is not LogState.FINISHED:
                return False
            frame = await self._build_end_frame(viewer_format)
            if frame:
                await send(frame)
            return frame is not None
        except UNAVAILABLE_ERRORS:
            return False

    async def _read_records(self, offset: int) -> bytes:
        """Return whole records from an offset on, about a slice of them; empty if they are lost."""
        if self.state is LogState.DETACHED and offset < self.begin:
            return b""
        size = SLICE_BYTES
        while True:
            end = min(self.committed, offset + size)
            data = await self.read(offset, end)
            if end == self.committed or len(data) < end - offset:
                return data
            if whole := self.codec.keep_whole(data):
                return whole
            size *= 2  # one record is longer than the slice

    async def _wait_at_tail(
        self, offset: int, viewer_format: Format, push: Push
    ) -> tuple[int, bool]:
        """Wait while commits are pushed; return the new offset, and whether a heartbeat is due."""
        viewer = TailViewer(offset, push)
        viewers = self._tail.setdefault(viewer_format, {})
        viewers[viewer] = None
        try:
            is_silent = await viewer.wait()
        finally:
            viewers.pop(viewer, None)
            if not viewers and self._tail.get(viewer_format) is viewers:
                del self._tail[viewer_format]
        return viewer.offset, is_silent

    def _build_idle_frame(self, viewer_format: Format, offset: int) -> bytes:
        if self._describe_wait is None:
            return viewer_format.build_heartbeat()
        wait = json.dumps(self._describe_wait())
        return viewer_format.encode_waiting(self.ref.turn, offset, wait)

    async def _build_end_frame(self, viewer_format: Format) -> bytes | None:
        """Return the frame that completes the answer; None if the answer is not complete.

        It is built once for all viewers. Raises UNAVAILABLE_ERRORS.
        """
        self._answer_lock = lock = self._answer_lock or asyncio.Lock()
        async with lock:
            if viewer_format not in self._end_frames:
                tail = await self.read(max(0, self.committed - 2), self.committed)
                frame = None
                if self.codec.is_complete(tail):
                    answer = self._answer
                    if answer is None:
                        answer = self.codec.decode_answer(await self.read(0, self.committed)).text
                    frame = viewer_format.encode_end(self.ref.turn, self.committed, answer)
                self._end_frames[viewer_format] = frame
        return self._end_frames[viewer_format]

    def _push(self, begin: int) -> None:
        data = self.buffered(begin, self.committed)
        for viewer_format, viewers in self._tail.items():
            try:
                frames = viewer_format.encode_pushed(self.ref.turn, begin, data)
            except Exception:  # its viewers fail by themselves, when they read the record
                frames = None
            for viewer in list(viewers):
                if frames is None or not viewer.push(frames, self.committed):
                    del viewers[viewer]
                    viewer.wake()

    def _notify(self) -> None:
        while self._waiters:
            waiter = self._waiters.pop()
            if not waiter.done():
                waiter.set_result(None)

    def _release_viewers(self) -> None:
        self._notify()
        for viewers in self._tail.values():
            for viewer in viewers:
                viewer.wake()


def _cut(data: bytes) -> Iterator[bytes]:
    """Yield pieces of whole records, each of about _PIECE_BYTES or one record."""
    begin = 0
    while len(data) - begin > _PIECE_BYTES:
        end = data.rfind(b"\0", begin + 1, begin + _PIECE_BYTES)
        if end < 0:
            end = data.find(b"\0", begin + _PIECE_BYTES)
        if end < 0:
            break
        yield data[begin:end]
        begin = end
    yield data[begin:]
