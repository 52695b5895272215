"""A Redis Cluster that loses a node in the middle of an answer."""

import asyncio
import contextlib
import os
import signal

import httpx
from httpx_sse import ServerSentEvent

from sessions.client.connection import connect
from tests.fake_upstream import Exchange, ScriptedUpstream
from tests.processes import holdline, redis_cluster
from tests.streams import asking, text_of


async def until_its_end(
    client: httpx.AsyncClient, turn: str, question: str
) -> list[ServerSentEvent]:
    """All that a viewer sees who comes back as an EventSource does; `restart` takes back what it saw."""
    seen: list[ServerSentEvent] = []
    while not seen or seen[-1].event not in ("end", "failed"):
        headers = {"Last-Event-ID": seen[-1].id} if seen else {}
        with contextlib.suppress(httpx.HTTPError):
            async with asking(client, headers, message=question, turn=turn) as source:
                async for event in source.aiter_sse():
                    if event.event == "restart":
                        seen.clear()
                    seen.append(event)
        await asyncio.sleep(0.05)
    return seen


async def speak(exchange: Exchange) -> str:
    """Say numbers until the connection is closed or there are a hundred; returns what was said."""
    said = ""
    for number in range(100):
        with contextlib.suppress(ConnectionError):
            await exchange.say(f"{number} ")
            said += f"{number} "
        await asyncio.sleep(0.05)
    return said


async def test_an_answer_continues_after_the_cluster_master_of_its_log_is_killed(
    upstream: ScriptedUpstream, question: str
) -> None:
    settings = {"OPENAI_BASE_URL": upstream.base_url, "CHAT_MODEL": "m", "LEASE_S": "30"}
    async with (
        redis_cluster(replicas=1) as url,
        holdline(REDIS_URL=url, **settings) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        turn = "t" + question[-32:]
        reading = asyncio.create_task(until_its_end(client, turn, question))
        exchange = await upstream.exchange(question)
        await exchange.say("before ")
        redis = connect(url)
        (log,) = [key async for key in redis.scan_iter(f"holdline:*:records:{turn}")]
        master = redis.get_node_from_key(log)
        info = await redis.info("server", target_nodes=master)
        os.kill(info["process_id"], signal.SIGKILL)
        said = await speak(exchange)
        await exchange.finish()
        events = await reading
        assert (events[-1].event, events[-1].data) == ("end", f"before {said}")
        assert text_of(events) == events[-1].data
        assert len(upstream.asked(question)) == 1
        conversations = (await client.get("/api/conversations/")).json()["conversations"]
        assert [one["title"] for one in conversations] == [question]
        await redis.aclose()
