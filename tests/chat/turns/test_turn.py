"""The making of one answer, where a whole server would have to be lucky to show it."""

import asyncio
import secrets
from typing import cast

import pytest

from chat.errors import Unavailable
from chat.log.batch import Committer
from chat.log.follower import Following
from chat.log.log import Log
from chat.turns.history import History
from chat.turns.question import QuestionBuilder
from chat.turns.registry import Turns
from chat.turns.turn import Ending, Generation
from chat.upstream.client import Upstream
from sessions.client.connection import Client
from sessions.keys import ConversationId, Owner, TurnId
from sessions.store import Store
from sessions.turn_store import TurnRecord, TurnRef, TurnStore
from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S
from tests.questions import question_at


@pytest.fixture(scope="module")
def redis_url(lone_redis_url: str) -> str:
    return lone_redis_url


@pytest.mark.parametrize(("ending", "state"), [("stopped", "stopped"), ("shutdown", "running")])
async def test_a_turn_that_is_stopped_before_its_first_step_ends(
    turns: TurnStore,
    writers: Committer,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
    ending: Ending,
    state: str,
) -> None:
    release = turns.release

    async def releases(ref: TurnRef, fence: int) -> None:
        assert writer not in writer.lane.writers, "a renewal would take the lease back"
        await release(ref, fence)

    monkeypatch.setattr(turns, "release", releases)
    ref = TurnRef(
        Owner(secrets.token_urlsafe(8)), ConversationId("talk"), TurnId(secrets.token_hex(8))
    )
    await turns.begin(question_at(ref))
    record = await turns.find(ref.owner, ref.turn)
    assert record
    writer = writers.open(Log(ref, b"<user-1>", read=turns.read_range), fence=1)
    asked = Upstream(base_url=upstream.base_url, api_key=None, timeout_s=30)
    generation = Generation(record, writer, cast(History, None), [asked])
    generation.stop(ending)
    await generation.task
    await asked.close()
    assert writer not in writer.lane.writers
    found = await turns.find(ref.owner, ref.turn)
    assert found
    assert found.state == state
    if state == "running":
        assert await turns.take_over(ref, "another") == 2


async def test_a_turn_that_is_handed_over_meanwhile_is_stopped_where_it_goes_on(
    redis: Client,
    turns: TurnStore,
    writers: Committer,
    upstream: ScriptedUpstream,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ref = TurnRef(
        Owner(secrets.token_urlsafe(8)), ConversationId("talk"), TurnId(secrets.token_hex(8))
    )
    await turns.begin(question_at(ref))
    await turns.release(ref, 1)
    asked = Upstream(base_url=upstream.base_url, api_key=None, timeout_s=30)
    store = Store(redis, idle_s=1000, ttl_s=1000)
    history = History(store, system_prompt="", context_tokens=1000, prefill=False)
    here = Turns(turns, store, writers, history, [asked], cast(QuestionBuilder, None))
    here.following = Following(redis, turns, on_stop=here.stop_here, on_look=here.look_after)
    following = asyncio.create_task(here.following.run())
    release, find = turns.release, turns.find
    releasing, found, let_go = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def releases(ref: TurnRef, fence: int) -> None:
        releasing.set()
        await let_go.wait()
        await release(ref, fence)

    async def finds(owner: Owner, turn: TurnId) -> TurnRecord | None:
        record = await find(owner, turn)
        found.set()
        return record

    await here.look_after(ref)
    monkeypatch.setattr(turns, "release", releases)
    monkeypatch.setattr(turns, "find", finds)
    draining = asyncio.create_task(here.drain())
    await releasing.wait()
    stopping = asyncio.create_task(here.stop(ref.owner, ref.turn))
    await found.wait()
    await asyncio.sleep(0)
    let_go.set()
    await draining
    async with asyncio.timeout(PATIENCE_S):
        while await redis.hget(ref.turn_key, "stop") != b"1":
            await asyncio.sleep(0.01)
    with pytest.raises(
        Unavailable
    ):  # at once: this worker is not there any more when the turn ends
        await stopping
    assert await turns.take_over(ref, "another") == 3
    assert await turns.renew([(ref, 3)]) == [2]
    following.cancel()
    await asyncio.wait([following])
    await asked.close()
