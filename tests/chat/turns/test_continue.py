"""Truncated and interrupted answers are continued, up to CONTINUE_MAX times."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from httpx_sse import ServerSentEvent

from tests.fake_upstream import ScriptedUpstream
from tests.processes import Server, holdline
from tests.streams import read, text_of


@pytest_asyncio.fixture(scope="session")
async def continuing(redis_url: str, upstream: ScriptedUpstream) -> AsyncIterator[Server]:
    """Yield a server with the default settings, which continues partial answers."""
    async with holdline(
        REDIS_URL=redis_url, OPENAI_BASE_URL=upstream.base_url, CHAT_MODEL="m", RATE_LIMIT="off"
    ) as started:
        yield started


@pytest_asyncio.fixture
async def client(continuing: Server) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of that server with its own session."""
    async with httpx.AsyncClient(base_url=continuing.url, timeout=60) as browser:
        yield browser


def usage_of(events: list[ServerSentEvent]) -> dict[str, Any]:
    """Return the data of the `usage` frame."""
    usage: dict[str, Any] = json.loads(
        next(event.data for event in events if event.event == "usage")
    )
    return usage


async def test_an_answer_truncated_at_the_token_limit_is_continued(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    reading = asyncio.create_task(read(client, message=question))
    exchange = await upstream.exchange(question)
    first = f"the first half of {question} "
    await exchange.send_text(first)
    await exchange.finish("length", usage={"prompt_tokens": 5, "completion_tokens": 7})
    again = await upstream.continued(first)
    assert [m["role"] for m in again.messages] == ["user", "assistant", "user"]
    assert "Continue exactly where it stopped" in again.messages[-1]["content"]
    await again.send_text(f"{question} and ", "the second")  # repeats the end of the first part
    await again.finish(usage={"prompt_tokens": 11, "completion_tokens": 2})
    events = await reading
    assert events[-1].data == text_of(events) == first + "and the second"
    usage = usage_of(events)
    assert usage["continued"] == [{"at": len(first), "why": "length"}]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["finish_reason"]) == (
        16,
        9,
        "stop",
    )
    assert [json.loads(e.data) for e in events if e.event == "continued"] == usage["continued"]
    conversation = json.loads(events[0].data)["conversation"]
    messages = (await client.get(f"/api/conversations/{conversation}")).json()["messages"]
    assert messages[1]["continued"] == usage["continued"]
    assert messages[1]["content"] == first + "and the second"


async def test_a_replay_from_the_history_includes_the_reasoning_and_the_seams(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, redis: Any
) -> None:
    reading = asyncio.create_task(read(client, message=question))
    exchange = await upstream.exchange(question)
    first = f"one half of {question} "
    await exchange.chunk({"reasoning_content": "considered"})
    await exchange.send_text(first)
    await exchange.finish("length")
    await (await upstream.continued(first)).answer("and the other")
    events = await reading
    turn = json.loads(events[0].data)["turn"]
    (log,) = [key async for key in redis.scan_iter(f"holdline:*:records:{turn}")]
    await redis.delete(log)
    replay = await read(client, {"Last-Event-ID": events[1].id})
    names = ["restart", "turn", "reasoning", "message", "continued", "usage", "end"]
    assert [event.event for event in replay] == names
    assert replay[2].data == "considered"
    assert text_of(replay) == replay[-1].data == first + "and the other"
    assert json.loads(replay[4].data) == {"at": len(first), "why": "length"}


@pytest.mark.parametrize("how", ["end", "drop", "error"])
async def test_an_answer_interrupted_by_the_upstream_is_continued(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, how: str
) -> None:
    turn = "t" + question[-32:]
    reading = asyncio.create_task(read(client, message=question, turn=turn))
    exchange = await upstream.exchange(question)
    first = f"some of {question}, "
    await exchange.send_text(first)
    await wait_for_first_delta(client, turn)
    if how == "end":
        await exchange.end()
    elif how == "drop":
        exchange.drop()
    else:
        await exchange.raw(b'data: {"error": {"message": "out of memory"}}\n\n')
    await (await upstream.continued(first)).answer("the rest")
    events = await reading
    assert events[-1].data == first + "the rest"
    assert [seam["why"] for seam in usage_of(events)["continued"]] == [
        {"end": "connection_lost", "drop": "connection_lost", "error": "upstream"}[how]
    ]


@pytest.mark.parametrize("first", ["", "some text. "], ids=["no text at all", "text before"])
@pytest.mark.parametrize("delta", [{}, {"content": ""}, {"reasoning_content": "hm"}], ids=str)
async def test_a_truncated_response_without_text_is_not_requested_again(
    client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    question: str,
    first: str,
    delta: dict[str, str],
) -> None:
    reading = asyncio.create_task(read(client, message=question))
    exchange = await upstream.exchange(question)
    if first:
        first += question
        await exchange.send_text(first)
        await exchange.finish("length")
        exchange = await upstream.continued(first)
    count = len(upstream.exchanges)
    await exchange.chunk(delta)
    await exchange.finish("length")
    events = await reading
    if first:
        assert (events[-1].event, events[-1].data) == ("end", first)
        assert usage_of(events)["finish_reason"] == "length"
    else:
        assert (events[-1].event, json.loads(events[-1].data)["type"]) == ("failed", "length")
    assert len(upstream.exchanges) == count


async def wait_for_first_delta(client: httpx.AsyncClient, turn: str) -> None:
    """Return when a viewer has received the turn's first delta."""
    async with client.stream("GET", "/api/chat_stream/", params={"turn": turn}) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: some of"):
                return


async def test_an_answer_is_continued_four_times_and_then_ends_truncated(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    reading = asyncio.create_task(read(client, message=question))
    exchange = await upstream.exchange(question)
    partial = ""
    for number in range(5):
        part = f"part {number} of {question}. "
        await exchange.send_text(part)
        await exchange.finish("length")
        partial += part
        if number < 4:
            exchange = await upstream.continued(partial)
    events = await reading
    assert events[-1].data == partial
    usage = usage_of(events)
    assert usage["finish_reason"] == "length"
    assert len(usage["continued"]) == 4


@pytest.mark.parametrize("by", ["get", "post"])
async def test_a_client_can_disable_continuation_for_a_turn(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, by: str
) -> None:
    if by == "get":
        asking = client.get("/api/chat_stream/", params={"message": question, "continue": "false"})
    else:
        asking = client.post("/api/chat_stream/", json={"message": question, "continue": False})
    reading = asyncio.create_task(asking)
    exchange = await upstream.exchange(question)
    await exchange.send_text("truncated")
    await exchange.finish("length")
    text = (await reading).text
    assert '"finish_reason": "length"' in text
    assert "continued" not in text


async def test_prefill_sends_the_partial_answer_as_the_last_message(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    async with (
        holdline(
            REDIS_URL=redis_url,
            OPENAI_BASE_URL=upstream.base_url,
            CHAT_MODEL="m",
            CONTINUE_MODE="prefill",
        ) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        reading = asyncio.create_task(read(client, message=question))
        exchange = await upstream.exchange(question)
        first = f"half of {question}"
        assert "continue_final_message" not in exchange.body
        await exchange.send_text(first)
        await exchange.finish("length")
        again = await upstream.continued(first)
        assert again.messages[-1] == {"role": "assistant", "content": first}
        assert (again.body["continue_final_message"], again.body["add_generation_prompt"]) == (
            True,
            False,
        )
        await again.answer(" done")
        assert (await reading)[-1].data == first + " done"


async def test_a_truncated_demo_answer_is_continued_to_its_end() -> None:
    async with (
        holdline(CHAT_MODEL="demo,demo-length", CONTINUE_MAX="20") as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        full = await read(client, message="hello", model="demo")
        await client.post("/api/conversations/", json={})
        continued = await read(client, message="hello", model="demo-length")
        assert continued[-1].data == full[-1].data
        assert len(usage_of(continued)["continued"]) > 2


@pytest_asyncio.fixture
async def other() -> AsyncIterator[ScriptedUpstream]:
    """Yield a second fake upstream."""
    scripted = ScriptedUpstream()
    scripted.base_url = await scripted.start()
    yield scripted
    await scripted.stop()


def settings_with_both(upstream: ScriptedUpstream, other: ScriptedUpstream) -> dict[str, str]:
    """Return settings with two upstreams: the first for the model m, the second for the model n."""
    more = [{"base_url": other.base_url, "api_key": "other-key", "model": "n"}]
    return {"OPENAI_BASE_URL": upstream.base_url, "CHAT_MODEL": "m", "UPSTREAMS": json.dumps(more)}


async def test_the_next_upstream_continues_an_interrupted_answer(
    redis_url: str, upstream: ScriptedUpstream, other: ScriptedUpstream, question: str
) -> None:
    async with (
        holdline(REDIS_URL=redis_url, **settings_with_both(upstream, other)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        turn = "t" + question[-32:]
        reading = asyncio.create_task(read(client, message=question, turn=turn))
        exchange = await upstream.exchange(question)
        first = f"some of {question}, "
        await exchange.send_text(first)
        await wait_for_first_delta(client, turn)
        exchange.drop()
        again = await other.continued(first)
        assert again.body["model"] == "n"
        assert again.headers["Authorization"] == "Bearer other-key"
        await again.answer("the rest")
        events = await reading
        assert events[-1].data == first + "the rest"
        usage = usage_of(events)
        assert usage["continued"] == [{"at": len(first), "why": "connection_lost", "model": "n"}]
        assert usage["model"] == "n"
        # The upstream that failed is in cooldown.
        reading = asyncio.create_task(read(client, message=f"{question} next"))
        await (await other.exchange(f"{question} next")).answer("directly")
        assert (await reading)[-1].data == "directly"
        assert not upstream.find_requests(f"{question} next")


@pytest.mark.parametrize("status", [401, 404, 429, 500])
async def test_the_next_upstream_answers_after_an_error_response(
    redis_url: str, upstream: ScriptedUpstream, other: ScriptedUpstream, question: str, status: int
) -> None:
    async with (
        holdline(
            REDIS_URL=redis_url, CONTINUE_MAX="0", **settings_with_both(upstream, other)
        ) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        reading = asyncio.create_task(read(client, message=question))
        (await upstream.exchange(question)).reply(status, {"error": {"message": "no"}})
        await (await other.exchange(question)).answer("from the other")
        events = await reading
        assert (events[-1].event, events[-1].data) == ("end", "from the other")
        assert "continued" not in usage_of(events)
        assert len(upstream.find_requests(question)) == 1


async def test_a_turn_that_every_upstream_rejects_fails_after_one_request_to_each(
    redis_url: str, upstream: ScriptedUpstream, other: ScriptedUpstream, question: str
) -> None:
    async with (
        holdline(REDIS_URL=redis_url, **settings_with_both(upstream, other)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        reading = asyncio.create_task(read(client, message=question))
        (await upstream.exchange(question)).reply(401, {"error": {"message": "no"}})
        (await other.exchange(question)).reply(400, {"error": {"message": "not this"}})
        events = await reading
        assert events[-1].event == "failed"
        assert json.loads(events[-1].data)["type"] == "refused"
        assert (len(upstream.find_requests(question)), len(other.find_requests(question))) == (1, 1)
        assert "other-key" not in server.read_log()
