"""A log in memory: viewers get committed records only, each at its own pace, and the end once."""

import asyncio
from dataclasses import replace

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from chat.log import tail_viewer
from chat.log.format import Format
from chat.log.log import Log, LogState
from sessions.keys import ConversationId, Owner, TurnId
from sessions.turns.turn_record import TurnRef

REF = TurnRef(Owner("owner"), ConversationId("conversation"), TurnId("turn-0123456789ab"))
HEARTBEAT = b":\n\n"

encoded: list[tuple[int, bytes]] = []
"""The calls of `encode_pushed`."""


def encode_pushed(turn: str, begin: int, records: bytes) -> bytes:
    encoded.append((begin, records))
    return records


PLAIN = Format(
    encode=lambda turn, begin, records: records,
    encode_pushed=encode_pushed,
    encode_end=lambda turn, length, answer: f"<{answer}>".encode(),
    build_heartbeat=lambda: HEARTBEAT,
    encode_waiting=lambda turn, offset, wait: wait.encode(),
)


class Viewer:
    """Receives what a log relays; `keeps_up` tells whether it accepts pushed bytes."""

    def __init__(self, shown: Log, offset: int = 0) -> None:
        self.chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self.keeps_up = True
        self.sent = 0
        self.relaying = asyncio.create_task(shown.relay(offset, PLAIN, self._send, self._push))

    async def _send(self, data: bytes) -> None:
        self.sent += 1
        self.chunks.put_nowait(data)

    def _push(self, data: bytes) -> bool:
        if self.keeps_up:
            self.chunks.put_nowait(data)
        return self.keeps_up

    async def all(self) -> bytes:
        """Return the bytes not taken yet, after the relay has ended."""
        await self.relaying
        return b"".join(self.chunks.get_nowait() for _ in range(self.chunks.qsize()))


async def test_an_idle_stream_gets_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_viewer, "HEARTBEAT_S", 0.01)
    idle = Log(REF, b"\0tone")
    viewer = Viewer(idle)
    assert [await viewer.chunks.get() for _ in range(3)] == [b"\0tone", HEARTBEAT, HEARTBEAT]
    idle.append(b"\0ttwo")
    idle.mark_committed(idle.end)
    while (chunk := await viewer.chunks.get()) == HEARTBEAT:
        pass
    assert chunk == b"\0ttwo"
    idle.finish(idle.end)
    await viewer.relaying


async def test_only_committed_records_are_sent() -> None:
    growing = Log(REF, b"\0tone")
    growing.append(b"\0ttwo")
    viewer = Viewer(growing)
    assert await viewer.chunks.get() == b"\0tone"
    await asyncio.sleep(0)
    assert viewer.chunks.empty()
    growing.finish(growing.end)
    assert await viewer.all() == b"\0ttwo"
    assert viewer.sent == 1, "a viewer that keeps up is pushed the new records"


async def test_a_viewer_that_has_missed_nothing_gets_a_heartbeat_before_any_push() -> None:
    growing = Log(REF, b"\0tone")
    viewer = Viewer(growing, growing.end)
    assert await viewer.chunks.get() == HEARTBEAT
    assert viewer.sent == 1
    growing.append(b"\0ttwo")
    growing.finish(growing.end)
    assert await viewer.all() == b"\0ttwo"


async def test_a_commit_is_encoded_once_for_all_viewers_at_the_tail() -> None:
    growing = Log(REF)
    viewers = [Viewer(growing) for _ in range(5)]
    for viewer in viewers:
        assert await viewer.chunks.get() == HEARTBEAT
    encoded.clear()
    for number in range(3):
        growing.append(b"\0t%d" % number)
        growing.mark_committed(growing.end)
    assert encoded == [(0, b"\0t0"), (3, b"\0t1"), (6, b"\0t2")]
    growing.finish(growing.end)
    assert {await viewer.all() for viewer in viewers} == {b"\0t0\0t1\0t2"}


async def test_a_slow_viewer_gets_the_rest_at_its_own_pace() -> None:
    growing = Log(REF)
    slow, quick = Viewer(growing), Viewer(growing)
    slow.keeps_up = False
    assert [await viewer.chunks.get() for viewer in (slow, quick)] == [HEARTBEAT] * 2
    for _ in range(3):
        growing.append(b"\0tword ")
        growing.mark_committed(growing.end)
        await asyncio.sleep(0)
    growing.finish(growing.end)
    assert (await slow.all(), await quick.all()) == (b"\0tword " * 3, b"\0tword " * 3)
    assert (slow.sent > 1, quick.sent) == (True, 1)


async def test_a_long_log_is_sent_in_slices_of_whole_records() -> None:
    stored = b"".join(b"\0t%06d %s" % (number, b"x" * (number % 999)) for number in range(1500))
    viewer = Viewer(Log(REF, stored, state=LogState.FINISHED))
    await viewer.relaying
    chunks = [viewer.chunks.get_nowait() for _ in range(viewer.chunks.qsize())]
    assert b"".join(chunks) == stored
    assert all(chunk.startswith(b"\0t") for chunk in chunks)
    assert len(chunks) > 3
    assert max(map(len, chunks)) <= 65_536


async def test_a_record_longer_than_a_slice_is_sent_whole() -> None:
    stored = b"\0t" + b"x" * 200_000 + b"\0tlast"
    assert await Viewer(Log(REF, stored, state=LogState.FINISHED)).all() == stored


async def test_viewers_of_a_detached_log_are_disconnected() -> None:
    lost = Log(REF, b"\0tone")
    viewer = Viewer(lost, lost.end)
    assert await viewer.chunks.get() == HEARTBEAT
    lost.detach()
    assert await viewer.all() == b""


@pytest.mark.parametrize("known", [True, False], ids=["by its writer", "from Redis"])
async def test_the_end_holds_the_whole_answer_and_is_read_once(known: bool) -> None:
    stored = b"\0T{}\0tone \0rhm\0ttwo\0u{}\0e"
    reads: list[tuple[int, int]] = []

    async def read(ref: TurnRef, begin: int, end: int) -> bytes:
        reads.append((begin, end))
        return stored[begin:end]

    growing = Log(REF, stored[:4], read=read)
    early = [Viewer(growing) for _ in range(3)]
    growing.append(stored[4:])
    growing.data[:4], growing.begin = b"", 4  # the beginning is in Redis only
    growing.finish(len(stored), "one two" if known else None)
    late = Viewer(growing, len(stored) - 2)
    for viewer in early:
        assert (await viewer.all()).endswith(b"\0e<one two>")
    assert await late.all() == b"\0e<one two>"
    assert reads.count((0, len(stored))) == (0 if known else 1) + len(early)


async def test_a_failed_turn_has_no_end() -> None:
    failed = Log(REF, b'\0tone\0f{"type": "timeout"}', state=LogState.FINISHED)
    assert await Viewer(failed).all() == bytes(failed.data)


async def test_a_late_viewer_reads_from_redis_the_records_that_are_not_retained() -> None:
    stored = bytearray()
    reads = []

    async def read(ref: TurnRef, begin: int, end: int) -> bytes:
        reads.append((begin, end))
        return bytes(stored[begin:end])

    growing = Log(REF, read=read)
    early = Viewer(growing)
    assert await early.chunks.get() == HEARTBEAT
    for number in range(3000):
        record = b"\0tword %d " % number
        stored.extend(record)
        growing.append(record)
        growing.mark_committed(growing.end)
        assert growing.data.startswith(b"\0t"), "the retained end begins with a record"
    assert growing.end == len(stored)
    assert len(growing.data) <= 5 << 10
    resumed_at = growing.begin + growing.data.find(b"\0", 100)
    late, later = Viewer(growing), Viewer(growing, resumed_at)
    await later.chunks.get()
    growing.finish(growing.end)
    assert await late.all() == await early.all() == bytes(stored)
    await later.all()
    assert [begin for begin, _ in reads] == [0], "a viewer that lacks little gets it from memory"


async def test_a_late_viewer_reconnects_when_redis_cannot_return_the_records() -> None:
    async def fail(ref: TurnRef, begin: int, end: int) -> bytes:
        raise RedisConnectionError

    async def lose(ref: TurnRef, begin: int, end: int) -> bytes:
        return b""

    for read in (fail, lose):
        growing = Log(REF, b"\0tword " * 2000, read=read)
        growing.mark_committed(growing.end)
        assert await Viewer(growing).all() == b""


async def test_an_offset_is_valid_between_records_only() -> None:
    growing = Log(REF, b"\0tone\0ttwo")
    assert [at for at in range(-2, 13) if await growing.is_valid_offset(at)] == [0, 5, 10]


async def test_a_viewer_whose_records_have_no_frame_gets_a_heartbeat_before_any_push() -> None:
    framed = replace(PLAIN, encode=lambda turn, begin, records: b"")
    growing, sent = Log(REF, b"\0T{}\0a{}"), list[bytes]()

    async def send(data: bytes) -> None:
        sent.append(data)

    relaying = asyncio.create_task(growing.relay(4, framed, send, lambda data: True))
    while not sent:
        await asyncio.sleep(0)
    assert sent == [HEARTBEAT]
    growing.detach()
    await relaying
