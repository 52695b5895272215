"""Batches: records wait for the tick or not, and a failed turn affects no other."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
import uvloop

from chat.log import batches as batches_module
from chat.log.batch import Batch, Writer
from chat.log.batches import MAX_INTERVAL_S, MIN_INTERVAL_S, Batches
from chat.log.log import Log, LogState
from chat.log.records import Kind
from sessions.client.connection import connect
from sessions.keys import ConversationId, Owner, TurnId
from sessions.turns.turn_record import TurnRef
from sessions.turns.turn_store import TurnStore
from tests.processes import PATIENCE_S
from tests.questions import question_at, read_log

NEVER_S = 3600.0
REF = TurnRef(Owner("owner"), ConversationId("conversation"), TurnId("turn-0123456789ab"))


@pytest_asyncio.fixture
async def slow(turns: TurnStore) -> AsyncIterator[Batches]:
    """Batches whose second tick never comes."""
    slow = Batches(turns, lease_s=600, min_interval_s=NEVER_S, max_interval_s=NEVER_S)
    running = asyncio.create_task(slow.run())
    await asyncio.sleep(0)
    yield slow
    running.cancel()
    await asyncio.wait([running])


async def begin(turns: TurnStore, batches: Batches, owner: Owner | None = None) -> Writer:
    """Return the writer of a turn that has just begun, in its own conversation."""
    owner = owner or Owner(secrets.token_urlsafe(8))
    ref = TurnRef(owner, ConversationId(secrets.token_hex(8)), TurnId(secrets.token_hex(8)))
    assert (await turns.begin(question_at(ref))).outcome == "begun"
    return batches.open(Log(ref, b"<user-1>", read=turns.read_range), fence=1)


async def until_committed(writer: Writer) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while writer.log.committed < writer.log.end:
            await writer.log.wait_for_commit()


async def until_ends_with(writer: Writer, text: str) -> None:
    """Return when the log ends with a text that is committed."""
    async with asyncio.timeout(PATIENCE_S):
        while writer.log.committed < writer.log.end or not writer.log.data.endswith(text.encode()):
            await writer.log.wait_for_commit()


def deliver(writer: Writer, *texts: str) -> None:
    """Let the writer's turn receive one text at each tick."""
    left = list(texts)

    def advance() -> bool:
        writer.append(Kind.TEXT, left.pop(0))
        return bool(left)

    writer.advance = advance
    writer.wake()


async def test_the_first_and_last_records_of_a_turn_are_committed_before_the_tick(
    turns: TurnStore, slow: Batches
) -> None:
    owner = Owner(secrets.token_urlsafe(8))
    early, *late = [await begin(turns, slow, owner) for _ in range(4)]
    early.append(Kind.ATTEMPT, "{}")
    await until_committed(early)
    deliver(early, "first")
    await until_ends_with(early, "first")
    early.append(Kind.TEXT, "second")  # the first tick comes at once
    await until_committed(early)
    early.append(Kind.TEXT, "third")
    for writer in late:
        deliver(writer, "first")
        await until_ends_with(writer, "first")
    assert early.log.committed < early.log.end, "further records wait for the tick"
    await early.finish([(Kind.END, "firstsecondthird")], "done", "")
    assert early.log.state is LogState.FINISHED
    stored, finished = await read_log(turns, early.log.ref)
    assert (stored, finished) == (b"<user-1>\0a{}\0tfirst\0tsecond\0tthird\0e", True)


async def test_the_last_records_and_the_pending_ones_are_one_step(
    turns: TurnStore, slow: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = await begin(turns, slow)
    for text in ("first", "second"):
        writer.append(Kind.TEXT, text)
        await until_committed(writer)
    commits: list[object] = []
    monkeypatch.setattr(turns, "commit", lambda parts: commits.append(parts))
    writer.append(Kind.TEXT, "third")
    await writer.finish([(Kind.END, "")], "done", "")
    assert commits == []
    assert (await read_log(turns, writer.log.ref))[0].endswith(b"\0tthird\0e")


async def test_every_turn_of_a_batch_is_read_once_a_tick_and_committed_in_one_call(
    turns: TurnStore, writers: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    commit = turns.commit

    async def count(parts: list[Any]) -> list[Any]:
        calls.append(len(parts))
        return await commit(parts)

    owner = Owner(secrets.token_urlsafe(8))
    many = [await begin(turns, writers, owner) for _ in range(30)]
    for writer in many:
        deliver(writer, "first")
        await until_ends_with(writer, "first")
    monkeypatch.setattr(turns, "commit", count)
    for writer in many:
        deliver(writer, *(f"text {number} " for number in range(10)))
    expected = b"<user-1>\0tfirst" + b"".join(b"\0ttext %d " % number for number in range(10))
    for writer in many:
        async with asyncio.timeout(PATIENCE_S):
            while writer.log.committed < len(expected):
                await writer.log.wait_for_commit()
        assert (await read_log(turns, writer.log.ref))[0] == expected
    assert (len(calls), set(calls)) == (10, {30})


@pytest.mark.parametrize("stage", ["advance", "append", "commit"])
async def test_one_turn_of_a_hundred_that_raises_ends_no_other(
    turns: TurnStore, writers: Batches, redis: Any, stage: str
) -> None:
    owner = Owner(secrets.token_urlsafe(8))
    many = [await begin(turns, writers, owner) for _ in range(100)]
    broken, failures, fenced = many[41], list[Exception](), asyncio.Event()
    broken.fail = failures.append
    broken.on_fenced = fenced.set
    for writer in many:
        deliver(writer, "first")
    for writer in many:
        await until_ends_with(writer, "first")

    def raise_in_advance() -> bool:
        raise LookupError("broken")

    def raise_in_append() -> bool:
        broken.append(Kind.TEXT, "text " * 2)
        broken.append(Kind.TEXT, None)  # type: ignore[arg-type]
        return True

    if stage == "commit":
        await redis.delete(broken.log.ref.turn_key)
        await redis.rpush(broken.log.ref.turn_key, "not a turn")
    for writer in many:
        deliver(writer, "second", "third")
    if stage != "commit":
        broken.advance = {"advance": raise_in_advance, "append": raise_in_append}[stage]
    whole = b"<user-1>\0tfirst\0tsecond\0tthird"
    for writer in many:
        if writer is not broken:
            async with asyncio.timeout(PATIENCE_S):
                while writer.log.committed < len(whole):
                    await writer.log.wait_for_commit()
            assert (await read_log(turns, writer.log.ref))[0] == whole
    if stage == "commit":
        async with asyncio.timeout(PATIENCE_S):
            await fenced.wait()
        assert broken.log.state is LogState.DETACHED
    else:
        assert len(failures) == 1


async def test_the_interval_is_twice_the_last_rounds_within_its_bounds(
    turns: TurnStore, writers: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "MAX_BATCH_TURNS", 1)
    one, two = await begin(turns, writers), await begin(turns, writers)
    assert one.batch is not two.batch
    for first_s, second_s, interval_s in (
        (0.0, 0.0, MIN_INTERVAL_S),
        (0.001, 0.01, MIN_INTERVAL_S),
        (0.01, 0.02, 0.06),
        (0.03, 0.02, MAX_INTERVAL_S),
    ):
        writers.note_round(one.batch, first_s)
        writers.note_round(two.batch, second_s)
        for writer in (one, two):
            assert writer.batch.interval_s == pytest.approx(interval_s)
    one.close()
    assert two.batch.interval_s == pytest.approx(0.04), "a batch without turns takes no time"


async def test_batches_tick_at_different_points_of_the_interval(
    turns: TurnStore, writers: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "MAX_BATCH_TURNS", 1)
    opened = [await begin(turns, writers) for _ in range(9)]
    by_node: dict[str, list[float]] = {}
    for writer in opened:
        by_node.setdefault(turns.node(writer.log.ref), []).append(writer.batch.offset)
    for offsets in by_node.values():
        assert offsets == [number % 8 / 8 for number in range(len(offsets))]


async def test_a_batch_whose_node_is_unavailable_delays_no_other_leases(
    turns: TurnStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed = asyncio.Queue[set[TurnRef]]()
    renew = turns.renew

    async def renew_when_available(held: list[tuple[TurnRef, int]]) -> list[Any]:
        await all_begun.wait()
        if lost.log.ref in {ref for ref, _ in held}:
            await available.wait()
        replies = await renew(held)
        renewed.put_nowait({ref for ref, _ in held})
        return replies

    all_begun, available = asyncio.Event(), asyncio.Event()
    monkeypatch.setattr(turns, "renew", renew_when_available)
    monkeypatch.setattr(batches_module, "MAX_BATCH_TURNS", 2)
    batches = Batches(turns, lease_s=0.3)
    running = asyncio.create_task(batches.run())
    await asyncio.sleep(0)
    owner = Owner(secrets.token_urlsafe(8))
    lost, same_batch, other = [await begin(turns, batches, owner) for _ in range(3)]
    all_begun.set()
    for _ in range(3):
        assert await renewed.get() == {other.log.ref}
    available.set()
    while await renewed.get() != {lost.log.ref, same_batch.log.ref}:
        pass
    running.cancel()
    await asyncio.wait([running])


async def test_an_upstream_is_read_only_once_while_redis_is_unavailable(tmp_path: Path) -> None:
    missing = connect(f"unix://{tmp_path}/no-server")
    batches = Batches(TurnStore(missing, lease_s=60, ttl_s=1000), lease_s=600)
    running = asyncio.create_task(batches.run())
    await asyncio.sleep(0)
    ref = TurnRef(Owner("o"), ConversationId("c"), TurnId("turn-0123456789ab"))
    writer = batches.open(Log(ref), fence=1)
    reads: list[int] = []

    def advance() -> bool:
        reads.append(writer.log.end)
        writer.append(Kind.TEXT, "more")
        return True

    writer.advance = advance
    writer.wake()
    await asyncio.sleep(10 * MIN_INTERVAL_S)  # of many ticks, none may read again
    assert reads == [0]
    running.cancel()
    await asyncio.wait([running])
    await missing.aclose()


async def test_only_the_end_of_a_long_log_is_retained(turns: TurnStore, writers: Batches) -> None:
    """Viewers that come late, or lag behind, read the rest from Redis."""
    writer = await begin(turns, writers)
    long, ref = writer.log, writer.log.ref
    for number in range(200):
        writer.append(Kind.TEXT, f"text {number}" * 10)
        writer.batch.flush(writer)
        await until_committed(writer)
    stored, _ = await read_log(turns, ref)
    assert len(stored) == long.end
    assert len(long.data) < len(stored) / 2
    for offset in (0, 2, 3, long.begin - 1, long.begin, long.end - 1):
        assert await long.read(offset, long.end) == stored[offset:]
        assert await long.read(offset, offset) == b""


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("offset", [0.0, 0.125, 0.5])
def test_ticks_of_a_busy_batch_are_one_interval_apart(
    run: Callable[[Coroutine[Any, Any, None]], None], offset: float
) -> None:
    async def tick() -> None:
        ticks: list[float] = []
        batch = Batch(cast(TurnStore, None), offset, 0.02, lambda batch, round_s: None)
        writer = Writer(Log(REF), 1, batch, cast(TurnStore, None))
        writer.has_output = True

        def advance() -> bool:
            ticks.append(asyncio.get_running_loop().time())
            return True

        writer.advance = advance
        writer.wake()
        running = asyncio.create_task(batch.run())
        while len(ticks) < 20:
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])
        assert len(ticks) <= (ticks[-1] - ticks[0]) / 0.02 + 3, (
            "no point of the interval ticks twice"
        )

    run(tick())
