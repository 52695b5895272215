"""An answer is checked while it streams: text that has not passed is nowhere."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent

from sessions.client.connection import Client, connect
from tests.chat.turns.moderation.conftest import settings_of
from tests.fake_moderation import FAILING, FLAGGED, FakeModeration
from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S, Server, find_worker, holdline
from tests.streams import ask, asking, read, text_of

CONVERSATIONS = "/api/conversations/"
REST = "more words without an end, " * 15
"""A window of more than 400 characters."""


def failure_of(events: list[ServerSentEvent]) -> dict[str, Any]:
    """Return the data of the last frame, which is `failed`."""
    assert events[-1].event == "failed"
    failure: dict[str, Any] = json.loads(events[-1].data)
    return failure


async def read_until(events: AsyncIterator[ServerSentEvent], text: str) -> None:
    """Read deltas until they are this text."""
    shown = ""
    while shown != text:
        event = await anext(events)
        if event.event == "message":
            shown += event.data
            assert text.startswith(shown)


async def expect_nowhere(
    word: str, client: httpx.AsyncClient, redis: Client, server: Server, conversation: str
) -> None:
    """Expect a word in no key of Redis, no history, no export and no line of the server's log."""
    async for key in redis.scan_iter():
        kind = (await redis.type(key)).decode()
        if kind in ("string", "hash"):
            value = await (redis.get(key) if kind == "string" else redis.hgetall(key))
            assert word not in str(value)
    url = CONVERSATIONS + conversation
    assert word not in (await client.get(url)).text
    for form in ("markdown", "json", "html"):
        assert word not in (await client.get(f"{url}/export", params={"format": form})).text
    assert word not in server.read_log()


async def test_an_answer_that_passes_is_complete(
    client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    moderation: FakeModeration,
    question: str,
) -> None:
    texts = [f"{question}. ", *[f"word {number}, " for number in range(200)], "the end"]
    events = await ask(client, upstream, question, *texts)
    assert text_of(events) == events[-1].data == "".join(texts)
    assert all(len(checked) == 1 for checked in moderation.find_checks("word 19"))


async def test_a_window_is_shown_only_once_its_check_has_passed(
    client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    moderation: FakeModeration,
    question: str,
) -> None:
    first, second = f"First of {question}. ", f"second of {question}, {REST}"
    may_pass = moderation.hold(first)
    held_next = moderation.hold(second)
    async with asking(client, message=question) as source:
        events = source.aiter_sse()
        turn = json.loads((await anext(events)).data)
        exchange = await upstream.exchange(question)
        await exchange.send_text(first, second)
        await moderation.check(first)
        async with asking(client, turn=turn["turn"]) as late:  # a viewer that begins now
            replayed = [await anext(late.aiter_sse())]
        assert [event.event for event in replayed] == ["turn"]
        may_pass.set()
        await read_until(events, first)
        assert await moderation.check(second) == [first + second]  # with the text before it
        held_next.set()
        await read_until(events, second)
        await exchange.finish()
        assert [event.event async for event in events] == ["usage", "end"]


@pytest.mark.parametrize("kind", ["content", "reasoning_content"])
async def test_a_flagged_answer_fails_and_keeps_what_had_passed(
    client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    server: Server,
    redis: Client,
    question: str,
    kind: str,
) -> None:
    word = f"{FLAGGED}-{question[-8:]}"
    reading = asyncio.create_task(read(client, message=question))
    exchange = await upstream.exchange(question)
    before = "It passes. "
    await exchange.chunk({kind: before})
    for text in (REST, f"a {word} thing, ", REST):
        await exchange.chunk({kind: text})
    async with asyncio.timeout(PATIENCE_S):
        await exchange.closed.wait()  # at once, and not when the answer ends
    events = await reading
    failure = failure_of(events)
    assert (failure["type"], failure["retryable"]) == ("moderated", False)
    usage = json.loads(events[-2].data)
    assert (usage["finish_reason"], usage["estimated"]) == ("failed", True)
    name = "message" if kind == "content" else "reasoning"
    shown = "".join(event.data for event in events if event.event == name)
    assert shown.startswith(before)
    assert (before + REST).startswith(shown)
    assert len(upstream.find_requests(question)) == 1
    turn = json.loads(events[0].data)
    messages = (await client.get(CONVERSATIONS + turn["conversation"])).json()["messages"]
    assert [message["content"] for message in messages[1:]] == (
        [shown] if kind == "content" else []
    )
    assert text_of(await read(client, turn=turn["turn"])) == text_of(events)
    await expect_nowhere(word, client, redis, server, turn["conversation"])
    # Nor does the model see it with the next question.
    await ask(client, upstream, f"{question} next", "fine")
    assert word not in json.dumps(upstream.find_requests(f"{question} next")[0].messages)


async def test_a_phrase_across_two_windows_is_flagged(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    half = len(FLAGGED) // 2
    first = "A sentence first. "
    filler = REST[: 400 - half]
    reading = asyncio.create_task(read(client, message=question))
    exchange = await upstream.exchange(question)
    await exchange.send_text(first, f"{filler}{FLAGGED[:half]}")
    await exchange.send_text(f"{FLAGGED[half:]} {REST}")
    await exchange.finish()
    events = await reading
    assert failure_of(events)["type"] == "moderated"
    assert FLAGGED not in text_of(events)


async def test_the_rest_of_an_answer_is_checked_before_its_end(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    events = await ask(client, upstream, question, "It passes. ", f"short, but {FLAGGED}")
    assert failure_of(events)["type"] == "moderated"
    assert text_of(events) == "It passes. "


async def test_a_stop_during_a_check_drops_the_text_and_closes_the_upstream(
    client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    moderation: FakeModeration,
    server: Server,
    redis: Client,
    question: str,
) -> None:
    first, second = f"First of {question}. ", f"pending of {question}, {REST}"
    held = moderation.hold(second)
    async with asking(client, message=question) as source:
        events = source.aiter_sse()
        turn = json.loads((await anext(events)).data)
        exchange = await upstream.exchange(question)
        await exchange.send_text(first, second)
        await read_until(events, first)
        await moderation.check(second)
        response = await client.post(f"/api/turns/{turn['turn']}/stop")
        assert response.status_code == 204
        await exchange.closed.wait()
        rest = [event async for event in events]
    held.set()
    assert [event.event for event in rest] == ["usage", "end"]
    assert rest[-1].data == first
    await expect_nowhere(f"pending of {question}", client, redis, server, turn["conversation"])


@pytest.mark.parametrize("word", FAILING)
async def test_an_answer_that_cannot_be_checked_fails_and_may_be_requested_again(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, word: str
) -> None:
    first = f"First of {question}. "
    reading = asyncio.create_task(read(client, message=question))
    exchange = await upstream.exchange(question)
    await exchange.send_text(first, f"{word} {REST}")
    await exchange.closed.wait()
    events = await reading
    failure = failure_of(events)
    assert (failure["type"], failure["retryable"]) == ("moderation_unavailable", True)
    assert text_of(events) == first
    assert len(upstream.find_requests(question)) == 1


@pytest.mark.parametrize("word", FAILING)
async def test_an_answer_that_cannot_be_checked_passes_if_moderation_fails_open(
    open_client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, word: str
) -> None:
    events = await ask(open_client, upstream, question, "First. ", f"{word} {REST}")
    assert events[-1].data == f"First. {word} {REST}"


@pytest.mark.parametrize("how", ["length", "drop"])
async def test_a_continued_answer_is_checked_across_its_seam(
    client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    moderation: FakeModeration,
    question: str,
    how: str,
) -> None:
    half = len(FLAGGED) // 2
    first = f"First of {question}. {FLAGGED[:half]}"
    reading = asyncio.create_task(read(client, message=question))
    exchange = await upstream.exchange(question)
    await exchange.send_text(first)
    await moderation.check(f"First of {question}")
    if how == "length":
        await exchange.finish("length")
    else:
        exchange.drop()
    again = await upstream.continued(first)  # checks the received text before the next request
    await again.send_text(f"{FLAGGED[half:]} and more. ")
    await again.closed.wait()
    events = await reading
    assert failure_of(events)["type"] == "moderated"
    assert text_of(events) == first


async def test_another_worker_continues_after_the_last_text_that_had_passed(
    lone_redis_url: str,
    upstream: ScriptedUpstream,
    moderation: FakeModeration,
    question: str,
) -> None:
    settings = settings_of(upstream, moderation) | {"WORKERS": "2"}
    first, lost = f"First of {question}. ", f"lost of {question}, {REST}"
    moderation.hold(lost)
    turn = "t" + question[-32:]
    async with (
        holdline(REDIS_URL=lone_redis_url, **settings) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        async with asking(client, message=question, turn=turn) as source:
            events = source.aiter_sse()
            exchange = await upstream.exchange(question)
            await exchange.send_text(first, lost)
            started = json.loads((await anext(events)).data)
            await read_until(events, first)
            await moderation.check(lost)
            os.kill(find_worker(exchange.connection), signal.SIGKILL)
            again = await upstream.continued(first)
        reading = asyncio.create_task(read(client, turn=turn))
        await again.send_text("and the second. ", REST, f"a {FLAGGED} thing, {REST}")
        await again.closed.wait()
        events_after = await reading
        assert failure_of(events_after)["type"] == "moderated"
        shown = text_of(events_after)
        assert shown.startswith(f"{first}and the second. ")
        assert FLAGGED not in shown
        usage = json.loads(events_after[-2].data)
        assert usage["estimated"] is True
        assert usage["completion_tokens"] > len(first) / 4
        async with connect(lone_redis_url) as redis:
            conversation = started["conversation"]
            await expect_nowhere(f"lost of {question}", client, redis, server, conversation)


async def test_a_flagged_answer_goes_to_no_other_upstream(
    redis_url: str, upstream: ScriptedUpstream, moderation: FakeModeration, question: str
) -> None:
    more = [{"base_url": upstream.base_url, "model": "n"}]
    settings = settings_of(upstream, moderation) | {"UPSTREAMS": json.dumps(more)}
    async with (
        holdline(REDIS_URL=redis_url, **settings) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        reading = asyncio.create_task(read(client, message=question))
        await (await upstream.exchange(question)).send_text(f"{FLAGGED}. {REST}")
        assert failure_of(await reading)["type"] == "moderated"
        assert len(upstream.find_requests(question)) == 1


async def test_an_answer_that_arrives_faster_than_it_is_checked_is_complete(
    client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    moderation: FakeModeration,
    question: str,
) -> None:
    first = f"First of {question}. "
    held = moderation.hold(first)
    rest = [f"part {number} {'x' * 500}" for number in range(400)]
    reading = asyncio.create_task(read(client, message=question))
    exchange = await upstream.exchange(question)
    await exchange.send_text(first)
    await moderation.check(first)
    sending = asyncio.create_task(exchange.answer(*rest))
    await asyncio.wait([sending], timeout=0.5)  # more than may wait for a check
    held.set()
    await sending
    assert (await reading)[-1].data == first + "".join(rest)


async def test_without_output_no_answer_is_checked(
    redis_url: str, upstream: ScriptedUpstream, moderation: FakeModeration, question: str
) -> None:
    settings = settings_of(upstream, moderation) | {"MODERATION": "input"}
    async with (
        holdline(REDIS_URL=redis_url, **settings) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        events = await ask(client, upstream, question, f"{question} {FLAGGED}. ")
        assert events[-1].data == f"{question} {FLAGGED}. "
        assert moderation.find_checks(question) == [[question]]
