"""The making of one answer, where a whole server would have to be lucky to show it."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import cast

import pytest
import pytest_asyncio

from chat.committer import Committer
from chat.generation import Ending, Generation
from chat.history import History
from chat.log import Log
from chat.upstream import Upstream
from sessions.connection import Client
from sessions.keys import ConversationId, Owner, TurnId
from sessions.turn_store import Place, TurnStore
from tests.questions import question_at
from tests.upstream import ScriptedUpstream


@pytest.fixture(scope="module")
def redis_url(lone_redis_url: str) -> str:
    return lone_redis_url


@pytest.fixture
def turns(redis: Client) -> TurnStore:
    return TurnStore(redis, lease_s=600, kept_s=1000, rate=(0, 1))


@pytest_asyncio.fixture
async def committer(turns: TurnStore) -> AsyncIterator[Committer]:
    committer = Committer(turns, lease_s=600)
    running = asyncio.create_task(committer.run())
    await asyncio.sleep(0)
    yield committer
    running.cancel()
    await asyncio.wait([running])


@pytest.mark.parametrize(("ending", "state"), [("stopped", "stopped"), ("shutdown", "running")])
async def test_a_turn_that_is_stopped_before_its_first_step_ends(
    turns: TurnStore, committer: Committer, upstream: ScriptedUpstream, ending: Ending, state: str
) -> None:
    place = Place(Owner(secrets.token_urlsafe(8)), ConversationId("talk"), TurnId(secrets.token_hex(8)))
    await turns.begin(question_at(place))
    record = await turns.find(place.owner, place.turn)
    assert record
    writer = committer.open(Log(place, b"<user-1>", read=turns.read_part), fence=1)
    asked = Upstream(base_url=upstream.base_url, api_key=None, timeout_s=30)
    generation = Generation(record, writer, cast(History, None), [asked])
    generation.stop(ending)
    await generation.task
    await asked.close()
    assert writer not in writer.lane.writers
    found = await turns.find(place.owner, place.turn)
    assert found
    assert found.state == state
    if state == "running":
        assert await turns.take_over(place, "another") == 2
