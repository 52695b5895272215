"""The stream of a turn over HTTP: frames, headers, errors and reconnects."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from httpx_sse import ServerSentEvent, aconnect_sse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import RedisError

from chat.turns.registry import MAX_VIEWERS
from sessions import keys
from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S, Server, holdline, redis_server
from tests.streams import (
    STREAM,
    ask,
    asking,
    names_of,
    read,
    read_into,
    text_of,
    wait_for_text,
)


async def test_an_answer_is_sent_as_turn_delta_usage_and_end_frames(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    events = await ask(client, upstream, question, "你好，", "\n\n  data: ", "<b>&\u2028x")
    assert names_of(events) == ["turn", "message", "usage", "end"]
    begun = json.loads(events[0].data)
    assert set(begun) == {"turn", "conversation", "message", "answer", "model"}
    assert events[0].retry == 1000
    assert text_of(events) == events[-1].data == "你好，\n\n  data: <b>&\u2028x"
    usage = json.loads(events[-2].data)
    assert (usage["completion_tokens"], usage["finish_reason"]) == (3, "stop")
    assert usage["prompt_tokens"] > 0
    assert usage["first_token_ms"] >= 0
    offsets = [int(event.id.split(".")[1]) for event in events]
    assert offsets == sorted(set(offsets))
    assert all(event.id.startswith(begun["turn"] + ".") for event in events)


async def test_the_stream_has_headers_that_disable_proxy_caching_and_buffering(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    async with asking(client, message=question) as source:
        headers = source.response.headers
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert headers["cache-control"] == "no-cache, no-transform"
        assert headers["x-accel-buffering"] == "no"
        await (await upstream.exchange(question)).answer("x")


async def test_the_first_frame_is_sent_before_the_upstream_responds(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    async with asking(client, message=question) as source:
        events = source.aiter_sse()
        assert (await anext(events)).event == "turn"
        exchange = await upstream.exchange(question)
        await exchange.send_text("one")
        # Each delta is sent without waiting for the next one.
        assert (await anext(events)).data == "one"
        await exchange.send_text("two")
        assert (await anext(events)).data == "two"
        await exchange.finish()


async def test_the_next_question_is_sent_with_the_history(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    await ask(client, upstream, question, "an answer")
    second = question + " again"
    await ask(client, upstream, second, "another")
    exchange = await upstream.exchange(second)
    assert exchange.messages == [
        {"role": "user", "content": question},
        {"role": "assistant", "content": "an answer"},
        {"role": "user", "content": second},
    ]
    assert exchange.body["stream_options"] == {"include_usage": True}
    listed = (await client.get("/api/conversations/")).json()["conversations"]
    assert [one["title"] for one in listed] == [question]
    shown = (await client.get(f"/api/conversations/{listed[0]['id']}")).json()
    assert [m["content"] for m in shown["messages"]] == [question, "an answer", second, "another"]
    assert shown["messages"][1]["usage"]["completion_tokens"] == 1
    assert shown["running"] is None


async def test_a_first_question_begins_its_conversation_or_leaves_none(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    await ask(client, upstream, question, "in the current conversation")
    turns = [uuid.uuid4().hex for _ in range(2)]
    parameters = {"message": question, "conversation": "new"}
    again = {"conversation": "new", "regenerate": "m" * 16}
    for fields in ({"model": "unknown"}, {"parent": "m" * 16}, {"message": " "}):
        assert (await client.post(STREAM, json=parameters | fields)).status_code == 400
    assert (await client.post(STREAM, json=again)).status_code == 400
    listed = (await client.get("/api/conversations/")).json()["conversations"]
    assert len(listed) == 1

    found = []
    for number, turn in enumerate(turns, 2):
        async with asking(client, message=question, conversation="new", turn=turn) as source:
            begun = json.loads((await anext(source.aiter_sse())).data)
            exchange = await upstream.exchange(question, number)
        assert exchange.messages == [{"role": "user", "content": question}]
        async with asking(client, message=question, conversation="new", turn=turn) as source:
            assert json.loads((await anext(source.aiter_sse())).data) == begun
        found.append(begun["conversation"])
        await exchange.answer("in a new one")
    listed = (await client.get("/api/conversations/")).json()["conversations"]
    assert [one["id"] for one in listed[:2]] == found[::-1]
    assert [one["title"] for one in listed] == [question] * 3
    assert len(upstream.find_requests(question)) == 3


async def test_a_post_accepts_a_question_too_long_for_a_url(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    long = "长" * 20_000 + question
    for name in ("message", "input", "prompt"):
        number = len(upstream.find_requests(question)) + 1
        body = {name: long}

        async def post(body: dict[str, str] = body) -> list[ServerSentEvent]:
            async with aconnect_sse(client, "POST", STREAM, json=body) as source:
                return [event async for event in source.aiter_sse()]

        reading = asyncio.create_task(post())
        await (await upstream.exchange(question, number)).answer(name)
        assert (await reading)[-1].data == name


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(texts=st.lists(st.text(min_size=1), min_size=1, max_size=8))
async def test_any_unicode_text_is_delivered_with_only_its_line_endings_normalised(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, texts: list[str]
) -> None:
    events = await ask(client, upstream, f"q {uuid.uuid4().hex}", *texts)
    expected = "".join(texts).replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")
    expected = expected.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert events[-1].event == "end"
    assert events[-1].data == expected
    assert text_of(events) == expected


# Reconnecting


async def test_a_viewer_resumes_after_any_frame_it_has_received(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    events = await ask(client, upstream, question, "a", "b\n", "\nc", "d")
    for i, event in enumerate(events[:-1]):
        again = await read(client, {"Last-Event-ID": event.id}, message=question)
        assert [(e.event, e.data, e.id) for e in again] == [
            (e.event, e.data, e.id) for e in events[i + 1 :]
        ]
        in_query = await read(client, lastEventId=event.id)
        assert [e.id for e in in_query] == [e.id for e in again]
    assert len(upstream.find_requests(question)) == 1


async def test_a_viewer_that_has_every_frame_of_a_running_turn_receives_the_next_ones(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    reading = asyncio.create_task(read(client, message=question, turn="t" + question[-32:]))
    exchange = await upstream.exchange(question)
    await exchange.send_text("seen ")
    async with asking(client, turn="t" + question[-32:]) as source:
        events = source.aiter_sse()
        await anext(events)
        last = await anext(events)
    assert last.data == "seen "
    # The response headers are sent before the next frame exists.
    async with asking(client, {"Last-Event-ID": last.id}) as source:
        await exchange.answer("and the rest")
        rest = [event async for event in source.aiter_sse()]
    assert text_of(rest) == "and the rest"
    assert (await reading)[-1].data == rest[-1].data == "seen and the rest"


async def test_a_viewer_that_already_has_the_last_frame_receives_204(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    events = await ask(client, upstream, question, "a")
    response = await client.get(
        STREAM, params={"message": question}, headers={"Last-Event-ID": events[-1].id}
    )
    assert response.status_code == 204
    assert not response.content


@pytest.mark.parametrize("offset", ["1", "999999999999", "177"])
async def test_an_invalid_offset_restarts_the_stream(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, offset: str
) -> None:
    events = await ask(client, upstream, question, "a", "b")
    turn = json.loads(events[0].data)["turn"]
    again = await read(client, {"Last-Event-ID": f"{turn}.{offset}"})
    assert again[0].event == "restart"
    assert again[0].id == f"{turn}.0"
    assert [event.id for event in again[1:]] == [event.id for event in events]


async def test_a_repeated_turn_attaches_without_a_second_upstream_request(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    turn = "turn-" + question[-32:]
    await client.get("/")  # all connections of one browser send the same cookie
    readings = [asyncio.create_task(read(client, message=question, turn=turn)) for _ in range(20)]
    exchange = await upstream.exchange(question)
    await exchange.answer("once", " only")
    for events in await asyncio.gather(*readings):
        assert text_of(events) == "once only"
    assert [event.event for event in await read(client, turn=turn)][-1] == "end"
    assert len(upstream.find_requests(question)) == 1
    other = await client.get(STREAM, params={"message": "another", "turn": turn})
    assert (other.status_code, other.json()["error"]["type"]) == (409, "conflict")


async def test_a_second_tab_with_the_same_question_attaches_to_the_running_turn(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    await client.get("/")  # the cookie must exist before a second connection is opened
    first = asyncio.create_task(read(client, message=question))
    exchange = await upstream.exchange(question)
    await exchange.send_text("seen by both")
    async with asking(client, message=question) as source:
        events = source.aiter_sse()
        assert [(await anext(events)).event, (await anext(events)).data] == ["turn", "seen by both"]
        await exchange.finish()
    await first
    assert len(upstream.find_requests(question)) == 1


async def test_a_turn_continues_after_its_viewer_disconnects(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    async with asking(client, message=question) as source:
        turn = json.loads((await anext(source.aiter_sse())).data)["turn"]
    exchange = await upstream.exchange(question)
    await exchange.answer("sent", " to no viewer")
    assert text_of(await read(client, turn=turn)) == "sent to no viewer"


async def test_an_answer_is_replayed_from_the_history_after_its_log_expires(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, redis: Any
) -> None:
    events = await ask(client, upstream, question, "stored\n", "permanently")
    turn = json.loads(events[0].data)["turn"]
    (log,) = [key async for key in redis.scan_iter(f"holdline:*:records:{turn}")]
    assert 0 < await redis.ttl(log) <= 3600
    await redis.delete(log)
    again = await read(client, {"Last-Event-ID": events[1].id})
    assert [event.event for event in again] == ["restart", "turn", "message", "usage", "end"]
    assert json.loads(again[1].data) == json.loads(events[0].data)
    assert again[2].data == again[4].data == "stored\npermanently"
    assert json.loads(again[3].data)["finish_reason"] == "stop"
    response = await client.get(STREAM, headers={"Last-Event-ID": events[-1].id})
    assert response.status_code == 204
    assert (await client.get(STREAM, headers={"Last-Event-ID": again[-1].id})).status_code == 204


@pytest.mark.parametrize("conversation", ["a b", " ", "a:b", "{a}", "a\nb", "é", "x" * 65, "a\x00"])
async def test_a_malformed_conversation_id_is_not_found_and_registers_no_turn(
    client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    question: str,
    redis: Any,
    conversation: str,
) -> None:
    query = {"message": question, "conversation": conversation}
    for reply in (await client.get(STREAM, params=query), await client.post(STREAM, json=query)):
        assert (reply.status_code, reply.json()["error"]["type"]) == (404, "not_found")
    members = await redis.zrange(keys.running(), 0, -1)
    parts = [member.split() for member in members]
    assert [one for one in parts if len(one) != 3 or conversation.encode() in one] == []
    assert text_of(await ask(client, upstream, question, "still answers")) == "still answers"


@pytest.mark.parametrize("turn", ["a b", "a:b", "short", "é" * 16, "x" * 65])
async def test_a_stop_request_with_a_malformed_turn_id_is_not_found(
    client: httpx.AsyncClient, turn: str
) -> None:
    reply = await client.post(f"/api/turns/{quote(turn)}/stop")
    assert (reply.status_code, reply.json()["error"]["type"]) == (404, "not_found")


# One turn at a time


async def test_a_different_question_stops_the_running_turn_and_keeps_its_partial_answer(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    await client.get("/")  # the cookie must exist before a second connection is opened
    first = asyncio.create_task(read(client, message=question))
    stopped = await upstream.exchange(question)
    await stopped.send_text("half an ")
    async with asking(client, message=question) as source:
        events = source.aiter_sse()
        conversation = json.loads((await anext(events)).data)["conversation"]
        assert (await anext(events)).data == "half an "
    second = asyncio.create_task(read(client, message=question + "?", conversation=conversation))
    after = await upstream.exchange(question + "?")
    assert (await first)[-1].data == "half an "
    await stopped.closed.wait()
    assert [m["content"] for m in after.messages] == [question, "half an ", question + "?"]
    await after.answer("full")
    await second
    messages = (await client.get(f"/api/conversations/{conversation}")).json()["messages"]
    assert [m.get("finish_reason") for m in messages] == [None, "stopped", None, "stop"]


async def test_stopping_a_turn_closes_the_upstream_connection_and_keeps_the_partial_answer(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    async with asking(client, message=question) as source:
        events = source.aiter_sse()
        turn = json.loads((await anext(events)).data)["turn"]
        exchange = await upstream.exchange(question)
        await exchange.send_text("so far")
        assert (await anext(events)).data == "so far"
        assert (await client.post(f"/api/turns/{turn}/stop")).status_code == 204
        await exchange.closed.wait()
        rest = [event async for event in events]
    assert [event.event for event in rest] == ["usage", "end"]
    assert rest[-1].data == "so far"
    assert json.loads(rest[0].data)["finish_reason"] == "stopped"
    assert (await client.post(f"/api/turns/{turn}/stop")).status_code == 204
    assert (await client.post("/api/turns/no-such-turn-at-all/stop")).status_code == 404


async def test_questions_that_name_no_conversation_do_not_stop_each_other(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    await ask(client, upstream, f"first {question}", "a")
    names = [f"{number} {question}" for number in range(6)]
    viewers: list[list[ServerSentEvent]] = [[] for _ in range(12)]
    # Half of them ask. Later, the others send the same questions again, and attach.
    reading = [
        asyncio.create_task(read_into(events, client, message=one))
        for one, events in zip(names, viewers[:6], strict=True)
    ]
    exchanges = [await upstream.exchange(one) for one in names]
    for exchange in exchanges:
        await exchange.send_text("half")
    await wait_for_text(viewers[:6])
    reading += [
        asyncio.create_task(read_into(events, client, message=one))
        for one, events in zip(names, viewers[6:], strict=True)
    ]
    await wait_for_text(viewers)
    for exchange in exchanges:
        await exchange.answer(" and half")
    await asyncio.gather(*reading)
    assert [events[-1].data for events in viewers] == ["half and half"] * 12
    assert all(len(upstream.find_requests(one)) == 1 for one in names)
    begun = [json.loads(events[0].data) for events in viewers]
    assert len({one["conversation"] for one in begun}) == len(names)
    # The conversation that began last is current; once it is free, it gets the next question.
    last = json.loads((await ask(client, upstream, f"next {question}", "b"))[0].data)
    assert last["conversation"] in {one["conversation"] for one in begun}


async def test_a_question_with_a_parent_stops_the_answer_of_the_current_conversation(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    first = json.loads((await ask(client, upstream, question, "a"))[0].data)
    for number, place in enumerate(({"parent": ""}, {"parent": first["answer"]}), 1):
        running = asyncio.create_task(read(client, message=f"{number} running {question}"))
        exchange = await upstream.exchange(f"{number} running {question}")
        await exchange.send_text("partial")
        edited = await ask(client, upstream, f"{number} edited {question}", "b", **place)
        assert json.loads(edited[0].data)["conversation"] == first["conversation"]
        assert json.loads((await running)[-2].data)["finish_reason"] == "stopped"


# Rejected requests


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 400),
        ("message=", 400),
        ("message=%20%0A", 400),
        ("message=%00%20", 400),
        ("message=hi&turn=short", 400),
        ("message=hi&turn=" + "x" * 65, 400),
        ("message=hi&turn=has.a.dot.in.its.name", 400),
        ("message=hi&conversation=unknown", 404),
        ("message=hi&model=no-such-model", 400),
        ("message=hi&continue=no", 400),
        ("turn=unknown-turn-unknown", 404),
        ("lastEventId=unknown-turn-unknown.5", 404),
        ("lastEventId=rubbish", 400),
        ("message=hi&lastEventId=unknown-turn-unknown.5", 404),
        ("message=" + "x" * 20_000, 413),
    ],
)
async def test_an_invalid_query_is_rejected_and_creates_no_conversation(
    client: httpx.AsyncClient, query: str, status: int
) -> None:
    response = await client.get(f"{STREAM}?{query}")
    assert response.status_code == status
    assert response.json()["error"]["message"]
    assert (await client.get("/api/conversations/")).json()["conversations"] == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b'{"message": 5}',
        b'{"message": "\\ud80"}',
        b"\xff\xfe{\0}\0",
        b'{"message": ""}',
        b'{"message": "a", "x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    ],
)
async def test_an_invalid_body_is_rejected_with_a_json_error(
    client: httpx.AsyncClient, content: bytes
) -> None:
    response = await client.post(
        STREAM, content=content, headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 400
    assert set(response.json()["error"]) == {"type", "message"}


async def test_a_message_over_the_limit_is_rejected(client: httpx.AsyncClient) -> None:
    assert (await client.post(STREAM, json={"message": "x" * 32_001})).status_code == 413
    assert (await client.post(STREAM, json={"message": "x" * 2_000_000})).status_code == 413
    assert (await client.post(STREAM, content=b"message=hi")).status_code == 400


async def test_another_sessions_turn_is_not_found(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, server: Server, question: str
) -> None:
    events = await ask(client, upstream, question, "private")
    begun = json.loads(events[0].data)
    async with httpx.AsyncClient(base_url=server.url) as stranger:
        for query in ({"turn": begun["turn"]}, {"lastEventId": events[1].id}):
            assert (await stranger.get(STREAM, params=query)).status_code == 404
        query = {"message": "hi", "conversation": begun["conversation"]}
        assert (await stranger.get(STREAM, params=query)).status_code == 404
        assert (await stranger.post(f"/api/turns/{begun['turn']}/stop")).status_code == 404


async def test_a_head_request_is_rejected_and_begins_no_turn(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    response = await client.head(STREAM, params={"message": question})
    assert response.status_code == 405
    assert (await client.get("/api/conversations/")).json()["conversations"] == []
    assert upstream.find_requests(question) == []


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Mode": "navigate"},
        {"Sec-Purpose": "prefetch;prerender"},
        {"Purpose": "Prefetch"},
        {"Origin": "http://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "http://[bad"},
    ],
)
async def test_cross_site_navigation_and_prefetch_requests_are_rejected(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, headers: dict[str, str]
) -> None:
    for response in (
        await client.get(STREAM, params={"message": question}, headers=headers),
        await client.post(STREAM, json={"message": question}, headers=headers),
    ):
        assert (response.status_code, response.json()["error"]["type"]) == (403, "forbidden")
    assert upstream.find_requests(question) == []


async def test_a_same_origin_request_is_accepted(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, server: Server, question: str
) -> None:
    client.headers.update(
        {"Origin": server.url, "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
    )
    assert (await ask(client, upstream, question, "yes"))[-1].data == "yes"


async def test_the_rate_limit_rejects_new_turns_and_never_known_turns(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    async with (
        holdline(
            REDIS_URL=redis_url,
            OPENAI_BASE_URL=upstream.base_url,
            CHAT_MODEL="m",
            RATE_LIMIT="2/hour",
        ) as server,
        httpx.AsyncClient(base_url=server.url) as client,
    ):
        events = await ask(client, upstream, question, "1")
        await ask(client, upstream, question + "2", "2")
        rejected = await client.get(STREAM, params={"message": question + "3"})
        assert (rejected.status_code, rejected.json()["error"]["type"]) == (429, "rate_limited")
        assert 0 < int(rejected.headers["retry-after"]) <= 3600
        turn = json.loads(events[0].data)["turn"]
        again = await read(client, message=question, turn=turn)
        assert again[-1].data == "1"


# Redis unavailable and many connections


async def test_an_eventsource_is_asked_to_retry_while_redis_is_unavailable(
    upstream: ScriptedUpstream,
) -> None:
    async with (
        redis_server() as url,
        holdline(REDIS_URL=url, OPENAI_BASE_URL=upstream.base_url, CHAT_MODEL="m") as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        assert (await client.get("/readyz")).status_code == 200
        async with Redis.from_url(url) as admin:
            with contextlib.suppress(RedisError):
                await admin.shutdown(nosave=True)
        response = await client.get(STREAM, params={"message": "hi"})
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.text.startswith("retry: 5000\n:")
        rejected = await client.get("/api/conversations/")
        assert (rejected.status_code, rejected.headers["retry-after"]) == (503, "5")
        assert (await client.get("/healthz")).status_code == 200
        async with asyncio.timeout(PATIENCE_S):
            while (await client.get("/readyz")).status_code != 503:
                await asyncio.sleep(0.05)
        assert (await client.get("/")).status_code == 200


async def test_many_answers_stream_concurrently(
    server: Server, upstream: ScriptedUpstream, question: str
) -> None:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, limits=limits, timeout=60) as client:
        ids = [(await client.post("/api/conversations/", json={})).json()["id"] for _ in range(150)]
        readings = [
            asyncio.create_task(
                read(client, None, message=f"<{number}> {question}", conversation=conversation)
            )
            for number, conversation in enumerate(ids)
        ]
        exchanges = [await upstream.exchange(f"<{number}> {question}") for number in range(150)]
        for word in ("all ", "at ", "once"):
            for exchange in exchanges:
                await exchange.send_text(word)
        for exchange in exchanges:
            await exchange.finish()
        for events in await asyncio.gather(*readings):
            assert text_of(events) == events[-1].data == "all at once"


async def test_viewers_over_the_limit_of_a_turn_are_rejected_until_others_disconnect(
    client: httpx.AsyncClient, server: Server, upstream: ScriptedUpstream, question: str
) -> None:
    turn = "t" + question[-32:]
    await client.get("/")
    viewers: list[AsyncIterator[ServerSentEvent]] = []
    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(
            base_url=server.url, cookies=client.cookies, limits=limits, timeout=60
        ) as many,
        contextlib.AsyncExitStack() as stack,
    ):
        for _ in range(MAX_VIEWERS):
            source = await stack.enter_async_context(asking(many, message=question, turn=turn))
            viewers.append(source.aiter_sse())
            await anext(viewers[-1])
        rejected = await many.get(STREAM, params={"turn": turn})
        assert (rejected.status_code, rejected.json()["error"]["type"]) == (429, "rate_limited")
        await stack.aclose()
        reading = asyncio.create_task(read_when_admitted(many, turn))
        await (await upstream.exchange(question)).answer("for all")
        assert text_of(await reading) == "for all"


async def read_when_admitted(client: httpx.AsyncClient, turn: str) -> list[ServerSentEvent]:
    """Return the turn's events; retry until the server has noticed that other viewers are gone."""
    while True:
        with contextlib.suppress(httpx.HTTPStatusError):
            return await read(client, turn=turn)
        await asyncio.sleep(0.01)
