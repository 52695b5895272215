"""A Redis Cluster that loses a node in the middle of an answer."""

import asyncio
import contextlib
import itertools
import os
import signal

import httpx
import pytest
from httpx_sse import ServerSentEvent

from sessions.client.connection import Client, connect
from sessions.client.errors import UNAVAILABLE_ERRORS
from sessions.client.scripts import call
from tests.fake_upstream import Exchange, ScriptedUpstream
from tests.own_redis import own_cluster
from tests.processes import PATIENCE_S, holdline, redis_cluster
from tests.streams import asking, text_of


async def read_to_end(client: httpx.AsyncClient, turn: str, question: str) -> list[ServerSentEvent]:
    """Return the frames of a viewer that reconnects as an EventSource does.

    A `restart` discards the frames before it.
    """
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


async def send_numbers(exchange: Exchange, until: asyncio.Task[None]) -> str:
    """Send a number every 50 ms until the task is done; return the text that was sent."""
    text = ""
    for number in itertools.count():
        await exchange.send_text(f"{number} ")
        text += f"{number} "
        await asyncio.wait([until], timeout=0.05)
        if until.done():
            until.result()
            break
    return text


async def wait_until_longer(redis: Client, log: bytes, size: int) -> None:
    """Return when a log has more than `size` bytes, as reported by its node's replacement."""
    found = 0
    async with asyncio.timeout(PATIENCE_S):
        while found <= size:
            with contextlib.suppress(*UNAVAILABLE_ERRORS):
                found = await call(redis, "STRLEN", [log.decode()], [])
            await asyncio.sleep(0.05)


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
        reading = asyncio.create_task(read_to_end(client, turn, question))
        exchange = await upstream.exchange(question)
        await exchange.send_text("before ")
        redis = connect(url)
        (log,) = [key async for key in redis.scan_iter(f"holdline:*:records:{turn}")]
        master = redis.get_node_from_key(log)
        info = await redis.info("server", target_nodes=master)
        size = await redis.strlen(log)
        os.kill(info["process_id"], signal.SIGKILL)
        longer = asyncio.create_task(wait_until_longer(redis, log, size))
        text = await send_numbers(exchange, longer)
        await exchange.finish()
        events = await reading
        assert (events[-1].event, events[-1].data) == ("end", f"before {text}")
        assert text_of(events) == events[-1].data
        assert len(upstream.find_requests(question)) == 1
        conversations = (await client.get("/api/conversations/")).json()["conversations"]
        assert [one["title"] for one in conversations] == [question]
        await redis.aclose()


async def test_a_call_whose_keys_are_being_moved_counts_as_unavailable() -> None:
    async with own_cluster() as (url, masters):
        redis = connect(url)
        await redis.set("{tag}first", "x")
        slot = redis.keyslot("{tag}first")
        nodes: list[Client] = [master.admin for master in masters]
        sizes = [await node.dbsize() for node in nodes]
        source, target = nodes[sizes.index(1)], nodes[sizes.index(0)]
        source_id = await source.execute_command("CLUSTER MYID")
        await target.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", source_id)
        target_id = await target.execute_command("CLUSTER MYID")
        await source.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", target_id)
        with pytest.raises(UNAVAILABLE_ERRORS):
            await call(redis, "MGET", ["{tag}first", "{tag}not moved yet"], [])
        await redis.aclose()
