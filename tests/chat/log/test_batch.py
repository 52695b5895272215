"""The groups in which frames go to Redis: who goes at once, and who waits for the next."""

import asyncio
import secrets
from pathlib import Path
from typing import Any

import pytest

from chat.log import batch
from chat.log.batch import Committer, Writer
from chat.log.log import Log, LogState
from chat.log.records import Kind
from sessions.client.connection import connect
from sessions.keys import ConversationId, Owner, TurnId
from sessions.turn_store import TurnRef, TurnStore
from tests.questions import question_at


async def begun(turns: TurnStore, writers: Committer, owner: Owner) -> Writer:
    """The writer of a turn that has just begun, in a conversation of its own."""
    ref = TurnRef(owner, ConversationId(secrets.token_hex(8)), TurnId(secrets.token_hex(8)))
    assert (await turns.begin(question_at(ref))).outcome == "begun"
    return writers.open(Log(ref, b"<user-1>", read=turns.read_range), fence=1)


async def shown(writer: Writer) -> None:
    """Return when all that was appended is committed."""
    while writer.log.committed < writer.log.end:
        await writer.log.wait_for_commit()


async def test_a_turns_first_words_and_its_last_wait_for_no_pace(
    turns: TurnStore, writers: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "_PACE_S", 3600)
    owner = Owner(secrets.token_urlsafe(8))
    one, two, *late = [await begun(turns, writers, owner) for _ in range(4)]
    for word in ("first", "second", "more"):  # the first two groups may go at once
        one.append(Kind.TEXT, word)
        two.append(Kind.TEXT, word)
        await shown(one)
        await shown(two)
    one.append(Kind.TEXT, "third")
    two.append(Kind.TEXT, "third")
    for writer in late:
        writer.append(Kind.TEXT, "first")
        await shown(writer)
    waiting = [writer.log.committed < writer.log.end for writer in (one, two)]
    assert waiting == [True, True], "a group of two is followed by the next at its pace"
    await one.finish([(Kind.END, "all of it")], "done", "")
    assert one.log.state is LogState.FINISHED
    assert await turns.read_log(one.log.ref) == (bytes(one.log.data), True)
    assert b"third" in one.log.data


async def test_a_lone_turn_waits_for_no_pace(
    turns: TurnStore, writers: Committer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "_PACE_S", 3600)
    lone = await begun(turns, writers, Owner(secrets.token_urlsafe(8)))
    for word in ("first", "second", "third", "fourth"):
        lone.append(Kind.TEXT, word)
        await shown(lone)
    assert await turns.read_log(lone.log.ref) == (bytes(lone.log.data), False)


async def test_twenty_turns_are_a_crowd_until_one_has_ended(
    turns: TurnStore, writers: Committer
) -> None:
    owner = Owner(secrets.token_urlsafe(8))
    crowd = [await begun(turns, writers, owner) for _ in range(20)]
    assert crowd[0].is_crowded()
    crowd[-1].close()
    assert not crowd[0].is_crowded()


async def test_a_lane_whose_node_is_away_costs_no_other_its_leases(
    turns: TurnStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed = asyncio.Queue[set[TurnRef]]()
    renew = turns.renew

    async def renews(held: list[tuple[TurnRef, int]]) -> list[Any]:
        await all_begun.wait()
        if lost.log.ref in {ref for ref, _ in held}:
            await away.wait()
        replies = await renew(held)
        renewed.put_nowait({ref for ref, _ in held})
        return replies

    all_begun, away = asyncio.Event(), asyncio.Event()
    monkeypatch.setattr(turns, "renew", renews)
    monkeypatch.setattr(batch, "_LANE_MAX", 2)
    writers = Committer(turns, lease_s=0.3)
    running = asyncio.create_task(writers.run())
    await asyncio.sleep(0)
    owner = Owner(secrets.token_urlsafe(8))
    lost, same_lane, other = [await begun(turns, writers, owner) for _ in range(3)]
    all_begun.set()
    for _ in range(3):
        assert await renewed.get() == {other.log.ref}
    away.set()
    while await renewed.get() != {lost.log.ref, same_lane.log.ref}:
        pass
    running.cancel()
    await asyncio.wait([running])


async def test_while_redis_is_away_an_upstream_is_read_but_once(tmp_path: Path) -> None:
    away = connect(f"unix://{tmp_path}/nobody-listens-here")
    writers = Committer(TurnStore(away, lease_s=600, ttl_s=1000, rate=(0, 1)), lease_s=600)
    running = asyncio.create_task(writers.run())
    await asyncio.sleep(0)
    ref = TurnRef(Owner("o"), ConversationId("c"), TurnId("turn-0123456789ab"))
    writer = writers.open(Log(ref), fence=1)
    reads = asyncio.Queue[None]()

    def read_on() -> None:
        writer.append(Kind.TEXT, "more")
        writer.pace(read_on)
        reads.put_nowait(None)

    writer.append(Kind.TEXT, "first")
    writer.pace(read_on)
    await reads.get()
    await asyncio.sleep(0.2)
    assert reads.empty()
    running.cancel()
    await asyncio.wait([running])
    await away.aclose()


async def test_of_a_long_log_only_the_end_is_held(turns: TurnStore, writers: Committer) -> None:
    """Whoever comes late, or lags behind, reads the rest from Redis."""
    writer = await begun(turns, writers, Owner(secrets.token_urlsafe(8)))
    long, ref = writer.log, writer.log.ref
    for number in range(200):
        writer.append(Kind.TEXT, f"word {number}")
        await shown(writer)
    stored, _ = await turns.read_log(ref)
    assert len(stored) == long.end
    assert len(long.data) < len(stored) / 2
    for offset in (0, 2, 3, long.begin - 1, long.begin, long.end - 1):
        assert await long.read(offset, long.end) == stored[offset:]
        assert await long.read(offset, offset) == b""
