"""Deletion of a conversation over HTTP while its answers are generated and viewed."""

import asyncio
from contextlib import suppress

import httpx

from sessions.client.connection import Client
from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S
from tests.streams import read


async def test_viewers_receive_end_when_the_conversation_of_a_running_turn_is_deleted(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, redis: Client, question: str
) -> None:
    await client.get("/")
    turn = "turn-" + question[-32:]
    viewers = [asyncio.create_task(read(client, message=question, turn=turn)) for _ in range(2)]
    exchange = await upstream.exchange(question)
    await exchange.send_text("before")
    (key,) = [key async for key in redis.scan_iter(f"holdline:*:turn:{turn}")]
    owner = key.decode().split("{")[1].split("}")[0]
    (listed,) = (await client.get("/api/conversations/")).json()["conversations"]
    assert (await client.delete(f"/api/conversations/{listed['id']}")).status_code == 204
    for events in await asyncio.gather(*viewers):
        assert [event.event for event in events][-1] == "end"
    left = {key async for key in redis.scan_iter(f"holdline:{{{owner}}}:*")}
    assert [key for key in left if b":current:" not in key and b":events" not in key] == []
    assert (await client.get(f"/api/conversations/{listed['id']}")).status_code == 404


async def test_a_question_sent_during_a_deletion_ends_or_is_rejected_and_leaves_no_keys(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, redis: Client, question: str
) -> None:
    for stage in ("sent", "begun", "requested", "streaming", "answered"):
        conversation = (await client.post("/api/conversations/", json={})).json()["id"]
        path = f"/api/conversations/{conversation}"
        staged_question = f"{stage} {question}"

        async def answer(staged_question: str = staged_question) -> None:
            exchange = await upstream.exchange(staged_question)
            with suppress(ConnectionError):
                await exchange.answer("answer")

        reading = asyncio.create_task(
            client.get(
                "/api/chat_stream/",
                params={"message": staged_question, "conversation": conversation},
            )
        )
        if stage == "begun":
            async with asyncio.timeout(PATIENCE_S):
                while (await client.get(path)).json()["running"] is None:
                    await asyncio.sleep(0.01)
        elif stage in ("requested", "streaming"):
            exchange = await upstream.exchange(staged_question)
            if stage == "streaming":
                await exchange.send_text("partial ")
        answering = asyncio.create_task(answer())
        if stage == "answered":
            await answering
        deleted = await client.delete(path)
        assert deleted.status_code == 204
        response = await reading
        if response.status_code == 200:
            assert "event: end" in response.text or "event: failed" in response.text
        else:
            assert response.status_code == 404
            assert response.json()["error"]["type"] == "not_found"
        answering.cancel()
        assert (await client.get(path)).status_code == 404
        left = [key async for key in redis.scan_iter(f"holdline:*:{conversation}*")]
        assert left == []
