"""A log in memory: what is committed is read, by each at its own pace; a silence is bridged."""

import asyncio
from pathlib import Path

import pytest

from chat import frames, log
from chat.log import Committer, Log
from sessions.connection import connect
from sessions.keys import ConversationId, Owner, TurnId
from sessions.turn_store import Place, TurnStore

PLACE = Place(Owner("owner"), ConversationId("talk"), TurnId("turn-0123456789ab"))


async def test_a_silent_log_sends_heartbeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "HEARTBEAT_S", 0.01)
    silent = Log(PLACE, b"first")
    chunks = silent.read(0)
    assert [await anext(chunks), await anext(chunks), await anext(chunks)] == [
        b"first", frames.HEARTBEAT, frames.HEARTBEAT,
    ]  # fmt: skip
    silent.data += b"more"
    silent.confirm(9)
    while (chunk := await anext(chunks)) == frames.HEARTBEAT:
        pass
    assert chunk == b"more"


async def test_only_what_is_committed_is_read() -> None:
    growing = Log(PLACE, b"one")
    growing.data += b"two"
    chunks = growing.read(0)
    assert await anext(chunks) == b"one"
    waiting = asyncio.ensure_future(anext(chunks))
    await asyncio.sleep(0)
    assert not waiting.done()
    growing.confirm(6, ended=True)
    assert await waiting == b"two"
    with pytest.raises(StopAsyncIteration):
        await anext(chunks)


async def test_a_long_log_is_read_in_slices() -> None:
    long = Log(PLACE, bytes(200_000), ended=True)
    chunks = [chunk async for chunk in long.read(1)]
    assert b"".join(chunks) == bytes(199_999)
    assert max(map(len, chunks)) == 65_536


async def test_the_reader_of_a_lost_log_is_let_go() -> None:
    lost = Log(PLACE, b"one")
    chunks = lost.read(3)
    waiting = asyncio.ensure_future(anext(chunks, None))
    await asyncio.sleep(0)
    lost.lose()
    assert await waiting is None


async def test_what_waits_for_redis_is_bounded(tmp_path: Path) -> None:
    away = connect(f"unix://{tmp_path}/nobody-listens-here")
    committer = Committer(TurnStore(away, lease_s=3, kept_s=1000, rate=(0, 1)), lease_s=3)
    running = asyncio.create_task(committer.run())
    await asyncio.sleep(0)
    writer = committer.open(Log(PLACE), fence=1)
    writer.append("x" * (log.PENDING_MAX // 2))
    await writer.room()
    writer.append("x" * log.PENDING_MAX)
    waiting = asyncio.create_task(writer.room())
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    writer.log.confirm(len(writer.log.data))
    await waiting
    running.cancel()
    await asyncio.wait([running])
    await away.aclose()
