"""Load: fifty viewers of one turn, coalesced deltas, an endless answer, a stop with 300 streams."""

import asyncio
import contextlib
import json
from pathlib import Path

import httpx
import psutil
import pytest
from httpx_sse import ServerSentEvent

from chat.log.log import MAX_LOG_BYTES
from tests.chat.turns.test_faults import runs
from tests.config.test_supervisor import find_children
from tests.fake_upstream import ScriptedUpstream
from tests.own_redis import own_redis
from tests.processes import PATIENCE_S, Server, holdline
from tests.proxy import redis_proxy
from tests.streams import asking, read, read_into, text_of, wait_for_text

ANY_NUMBER = httpx.Limits(max_connections=None, max_keepalive_connections=0)
"""Each request opens a connection, which any worker may accept."""


async def test_fifty_viewers_on_two_workers_share_one_upstream_request(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    turn = "turn-" + question[-32:]
    async with (
        holdline(
            REDIS_URL=redis_url, WORKERS="2", OPENAI_BASE_URL=upstream.base_url, CHAT_MODEL="m"
        ) as server,
        httpx.AsyncClient(base_url=server.url, limits=ANY_NUMBER, timeout=60) as client,
    ):
        await client.get("/")  # all connections of one browser send the same cookie
        readings = [
            asyncio.create_task(read(client, message=question, turn=turn)) for _ in range(50)
        ]
        await (await upstream.exchange(question)).answer("once", " only")
        received = await asyncio.gather(*readings)
        assert {text_of(events) for events in received} == {"once only"}
        assert {tuple(event.id for event in events) for events in received} == {
            tuple(e.id for e in received[0])
        }
        assert len(upstream.find_requests(question)) == 1
        begun = json.loads(received[0][0].data)
        messages = (await client.get(f"/api/conversations/{begun['conversation']}")).json()[
            "messages"
        ]
        assert [m["content"] for m in messages] == [question, "once only"]


async def test_deltas_that_arrive_together_are_coalesced_under_load(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    count = 20
    deltas = [{"reasoning": "so"}, {"reasoning": "…"}, {"content": "one\r"}, {"content": "\ntwo"}]
    chunks = "".join(
        f"data: {json.dumps({'choices': [{'delta': delta}]})}\n\n" for delta in deltas
    ).encode()
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            holdline(
                REDIS_URL=redis_url,
                OPENAI_BASE_URL=upstream.base_url,
                CHAT_MODEL="m",
                RATE_LIMIT="off",
            )
        )
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=server.url, limits=ANY_NUMBER, timeout=60)
        )
        questions = [f"<{i}> {question}" for i in range(count)]
        streams = []
        for one in questions:
            conversation = (await client.post("/api/conversations/", json={})).json()["id"]
            source = await stack.enter_async_context(
                asking(client, message=one, conversation=conversation)
            )
            streams.append(source.aiter_sse())
        exchanges = [await upstream.exchange(one) for one in questions]
        seen = [[await anext(events)] for events in streams]
        for exchange in exchanges:
            await exchange.raw(chunks)
        for events, received in zip(streams, seen, strict=True):
            received += [await anext(events), await anext(events)]
        for exchange in exchanges:
            await exchange.answer(" and", " three")
        for events, received in zip(streams, seen, strict=True):
            received += [event async for event in events]
            assert [(event.event, event.data) for event in received[1:3]] == [
                ("reasoning", "so…"),
                ("message", "one\ntwo"),
            ]
            assert text_of(received) == received[-1].data == "one\ntwo and three"


async def test_an_endless_answer_fails_at_the_log_limit_and_is_kept(
    server: Server, upstream: ScriptedUpstream, question: str
) -> None:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        reading = asyncio.create_task(read(client, message=question))
        exchange = await upstream.exchange(question)
        text = "x" * (1 << 20)
        with contextlib.suppress(ConnectionError):  # the worker closes the connection at the limit
            while not exchange.closed.is_set():
                await exchange.send_text(text)
        events = await reading
        failed = json.loads(events[-1].data)
        assert (events[-1].event, failed["type"], failed["retryable"]) == (
            "failed",
            "too_long",
            False,
        )
        assert [event.event for event in events].count("failed") == 1
        assert MAX_LOG_BYTES / 2 <= len(text_of(events)) <= MAX_LOG_BYTES
        conversation = json.loads(events[0].data)["conversation"]
        found = (await client.get(f"/api/conversations/{conversation}")).json()
        assert found["running"] is None
        assert found["messages"][1]["content"] == text_of(events)
        assert found["messages"][1]["finish_reason"] == "failed"


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
async def test_a_stopping_server_with_many_open_streams_reports_it_and_exits(
    upstream: ScriptedUpstream, question: str, loop: str, tmp_path: Path
) -> None:
    count = 300
    if loop == "asyncio":
        (tmp_path / "uvloop.py").write_text("raise ImportError\n")
    async with (
        own_redis() as redis,
        redis_proxy(redis.url) as proxy,
        holdline(
            REDIS_URL=proxy.url, OPENAI_BASE_URL=upstream.base_url, CHAT_MODEL="m",
            RATE_LIMIT="off", PYTHONPATH=str(tmp_path),
        ) as server,
        httpx.AsyncClient(base_url=server.url, limits=ANY_NUMBER, timeout=60) as client,
    ):  # fmt: skip
        maps = psutil.Process(find_children(server.process.pid, "python")[0]).memory_maps()
        assert any("/uvloop/" in found.path for found in maps) == (loop == "uvloop")
        ids = [
            (await client.post("/api/conversations/", json={})).json()["id"] for _ in range(count)
        ]
        received: list[list[ServerSentEvent]] = [[] for _ in range(count)]
        readings = [
            asyncio.create_task(
                read_into(received[i], client, message=f"<{i}> {question}", conversation=ids[i])
            )
            for i in range(count)
        ]
        for i in range(count):
            await (await upstream.exchange(f"<{i}> {question}")).send_text("begun")
        await wait_for_text(received)
        assert (await client.get("/readyz")).status_code == 200
        proxy.hold_replies(runs("release"))
        stopping = asyncio.create_task(server.stop())
        async with asyncio.timeout(PATIENCE_S):
            while not any(runs("release")(command) for command in proxy.passed):
                await asyncio.sleep(0.01)
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "stopping")
        assert not any(reading.done() for reading in readings)
        await proxy.recover()
        assert await stopping == 0
        await asyncio.gather(*readings)
        for events in received:
            assert [event.event for event in events] == ["turn", "message"]
        assert "killed" not in server.read_log()
        assert "Traceback" not in server.read_log()
