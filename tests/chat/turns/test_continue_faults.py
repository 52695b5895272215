"""A continuation that begins while Redis is unavailable waits, as a commit does."""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx
import pytest
from httpx_sse import ServerSentEvent

from chat.errors import HistoryUnavailable
from chat.turns import history
from chat.turns.history import read_patiently
from sessions.client.errors import CONNECTION_ERRORS
from sessions.keys import TurnId
from tests.chat.turns.test_faults import Outage, assert_consistent, frozen, killed, runs
from tests.fake_upstream import Exchange, ScriptedUpstream
from tests.own_redis import own_redis
from tests.processes import PATIENCE_S, Server, find_worker, holdline
from tests.proxy import RedisProxy, redis_proxy
from tests.streams import asking, read, text_of


@dataclass
class Answering:
    """A turn with a partial answer."""

    proxy: RedisProxy
    server: Server
    exchange: Exchange


async def reach_the_token_limit(answering: Answering) -> None:
    await answering.exchange.finish("length")


async def lose_the_connection(answering: Answering) -> None:
    answering.exchange.drop()


async def prepare_nothing(answering: Answering) -> None:
    pass


async def kill_the_worker(answering: Answering) -> None:
    """Kill the worker; return when another has taken the turn over, and Redis has sent its log."""
    answering.proxy.hold_replies(runs("read"))
    os.kill(find_worker(answering.exchange.connection), signal.SIGKILL)
    async with asyncio.timeout(PATIENCE_S):
        await answering.proxy.holds_reply.wait()


async def release_replies(answering: Answering) -> None:
    await answering.proxy.recover()


Act = Callable[[Answering], Awaitable[None]]

CAUSES: dict[str, tuple[Act, Act]] = {
    "token limit": (prepare_nothing, reach_the_token_limit),
    "connection loss": (prepare_nothing, lose_the_connection),
    "takeover": (kill_the_worker, release_replies),
}
"""For each cause of a continuation, the acts just before the outage and at its beginning."""


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("outage", [frozen, killed])
async def test_a_continuation_waits_for_redis(
    outage: Outage, cause: str, upstream: ScriptedUpstream, question: str
) -> None:
    prepare, begin = CAUSES[cause]
    first, rest = f"the first half of {question} ", "and the second"
    async with (
        own_redis() as redis,
        redis_proxy(redis.url) as proxy,
        holdline(
            REDIS_URL=proxy.url, LEASE_S="1", OPENAI_BASE_URL=upstream.base_url, CHAT_MODEL="m"
        ) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        async with asking(client, message=question) as source:
            arriving = source.aiter_sse()
            turn = json.loads((await anext(arriving)).data)["turn"]
            exchange = await upstream.exchange(question)
            await exchange.send_text(first)
            assert (await anext(arriving)).data == first
        answering = Answering(proxy, server, exchange)
        await prepare(answering)
        async with outage(redis, proxy):
            await begin(answering)
            async with asyncio.timeout(PATIENCE_S):
                while "waits for its history" not in server.read_log():
                    await asyncio.sleep(0.02)
            assert not [e for e in upstream.exchanges if continues(e, first)]
        again = await upstream.continued(first)
        await again.answer(rest)
        shown = await read_to_end(client, turn)
        assert text_of(shown) == shown[-1].data == first + rest
        await assert_consistent(client, shown, question)
        assert "Traceback" not in server.read_log()


def continues(exchange: Exchange, partial: str) -> bool:
    """Return whether a request asks to continue a partial answer."""
    return {"role": "assistant", "content": partial} in exchange.messages[-2:]


async def read_to_end(client: httpx.AsyncClient, turn: str) -> list[ServerSentEvent]:
    """Return the events of a turn, once a connection has received its last one."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            events = await read(client, turn=turn)
            if events and events[-1].event in ("end", "failed"):
                return events


async def fail() -> None:
    raise CONNECTION_ERRORS[0]


async def test_a_turn_fails_for_an_unreadable_history_only_before_its_first_delta(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(history, "MAX_WAIT_S", 0.0)
    with pytest.raises(HistoryUnavailable):
        await read_patiently(TurnId("t"), fail, may_fail=True)
    waiting = asyncio.create_task(read_patiently(TurnId("t"), fail, may_fail=False))
    done, _ = await asyncio.wait([waiting], timeout=1)
    assert not done
    waiting.cancel()


async def test_a_turn_waits_a_minute_for_its_history() -> None:
    assert history.MAX_WAIT_S == 60
    waiting = asyncio.create_task(read_patiently(TurnId("t"), fail, may_fail=True))
    done, _ = await asyncio.wait([waiting], timeout=1)
    assert not done
    waiting.cancel()
