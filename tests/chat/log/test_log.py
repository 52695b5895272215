"""A log in memory: what is committed is read, by each at its own pace; a silence is bridged."""

import asyncio

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from chat.formats import sse
from chat.log import log
from chat.log.log import Log, LogState
from sessions.keys import ConversationId, Owner, TurnId
from sessions.turn_store import TurnRef

PLACE = TurnRef(Owner("owner"), ConversationId("talk"), TurnId("turn-0123456789ab"))


class Viewer:
    """Takes what a log relays; `keeps_up` says whether it takes what is pushed."""

    def __init__(self, shown: Log, offset: int = 0) -> None:
        self.chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self.keeps_up = True
        self.sent = 0
        self.relaying = asyncio.create_task(shown.relay(offset, self._send, self._push))

    async def _send(self, data: bytes) -> None:
        self.sent += 1
        self.chunks.put_nowait(data)

    def _push(self, data: bytes) -> bool:
        if self.keeps_up:
            self.chunks.put_nowait(data)
        return self.keeps_up

    async def all(self) -> bytes:
        """All that it has had, once the relay is over."""
        await self.relaying
        return b"".join(self.chunks.get_nowait() for _ in range(self.chunks.qsize()))


async def test_a_stream_gets_a_comment_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "HEARTBEAT_S", 0.01)
    silent = Log(PLACE, b"first")
    viewer = Viewer(silent)
    assert [await viewer.chunks.get() for _ in range(3)] == [b"first", sse.HEARTBEAT, sse.HEARTBEAT]
    silent.data += b"more"
    silent.mark_committed(9)
    while (chunk := await viewer.chunks.get()) == sse.HEARTBEAT:
        pass
    assert chunk == b"more"
    silent.mark_committed(9, finished=True)
    await viewer.relaying


async def test_only_what_is_committed_is_sent() -> None:
    growing = Log(PLACE, b"one")
    growing.data += b"two"
    viewer = Viewer(growing)
    assert await viewer.chunks.get() == b"one"
    await asyncio.sleep(0)
    assert viewer.chunks.empty()
    growing.mark_committed(6, finished=True)
    assert await viewer.all() == b"two"
    assert viewer.sent == 1, "who keeps up is pushed what is new"


async def test_who_has_missed_nothing_hears_so_before_anything_is_pushed() -> None:
    growing = Log(PLACE, b"one")
    viewer = Viewer(growing, 3)
    assert await viewer.chunks.get() == sse.HEARTBEAT
    assert viewer.sent == 1
    growing.data += b"two"
    growing.mark_committed(6, finished=True)
    assert await viewer.all() == b"two"


async def test_who_lags_behind_gets_the_rest_at_its_own_pace() -> None:
    growing = Log(PLACE)
    slow, quick = Viewer(growing), Viewer(growing)
    slow.keeps_up = False
    assert [await viewer.chunks.get() for viewer in (slow, quick)] == [sse.HEARTBEAT] * 2
    for _ in range(3):
        growing.data += b"word "
        growing.mark_committed(len(growing.data))
        await asyncio.sleep(0)
    growing.mark_committed(len(growing.data), finished=True)
    assert (await slow.all(), await quick.all()) == (b"word " * 3, b"word " * 3)
    assert (slow.sent > 1, quick.sent) == (True, 1)


async def test_a_long_log_is_sent_in_slices() -> None:
    viewer = Viewer(Log(PLACE, bytes(200_000), state=LogState.FINISHED), 1)
    await viewer.relaying
    chunks = [viewer.chunks.get_nowait() for _ in range(viewer.chunks.qsize())]
    assert b"".join(chunks) == bytes(199_999)
    assert max(map(len, chunks)) == 65_536


async def test_the_viewer_of_a_lost_log_is_let_go() -> None:
    lost = Log(PLACE, b"one")
    viewer = Viewer(lost, 3)
    assert await viewer.chunks.get() == sse.HEARTBEAT
    lost.detach()
    assert await viewer.all() == b""


async def test_a_late_viewer_gets_from_redis_what_is_no_longer_held() -> None:
    stored = bytearray()
    asked = []

    async def read(ref: TurnRef, begin: int, end: int) -> bytes:
        asked.append((begin, end))
        return bytes(stored[begin:end])

    growing = Log(PLACE, read=read)
    early = Viewer(growing)
    assert await early.chunks.get() == sse.HEARTBEAT
    for number in range(3000):
        word = b"word %d " % number
        stored.extend(word)
        growing.data += word
        growing.mark_committed(growing.end)
    assert growing.end == len(stored)
    assert len(growing.data) <= 2 << 10, "what is committed is not held for long"
    late, later = Viewer(growing), Viewer(growing, growing.end - 100)
    await later.chunks.get()
    growing.mark_committed(growing.end, finished=True)
    assert await late.all() == await early.all() == bytes(stored)
    await later.all()
    assert [begin for begin, _ in asked] == [0], "who lacks little gets it from memory"


async def test_a_late_viewer_comes_back_when_redis_cannot_say_what_it_lacks() -> None:
    async def away(ref: TurnRef, begin: int, end: int) -> bytes:
        raise RedisConnectionError

    async def gone(ref: TurnRef, begin: int, end: int) -> bytes:
        return b""

    for read in (away, gone):
        growing = Log(PLACE, b"word " * 2000, read=read)
        growing.mark_committed(growing.end)
        assert await Viewer(growing).all() == b""
