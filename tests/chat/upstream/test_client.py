"""Whatever an upstream sends, the answer is complete or the turn fails with a clear error."""

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent

from tests.conftest import KEY
from tests.fake_upstream import Exchange, ScriptedUpstream
from tests.processes import Server, holdline
from tests.streams import ask, asking, read, text_of


@pytest.fixture
async def streamed_request(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> AsyncIterator[tuple[Exchange, asyncio.Task[list[ServerSentEvent]]]]:
    """Yield the upstream's exchange for a question, and the task that reads its stream."""
    reading = asyncio.create_task(read(client, message=question))
    yield await upstream.exchange(question), reading
    await reading


Request = tuple[Exchange, asyncio.Task[list[ServerSentEvent]]]


def failure_of(events: list[ServerSentEvent]) -> dict[str, Any]:
    """Return the data of the `failed` frame, which must be the last one."""
    assert events[-1].event == "failed"
    failure: dict[str, Any] = json.loads(events[-1].data)
    assert set(failure) == {"type", "message", "retryable"}
    return failure


def sse(*bodies: dict[str, Any], end: str = "\n") -> bytes:
    """Return bodies as server-sent events, with this line ending."""
    return "".join(f"data: {json.dumps(b, ensure_ascii=False)}{end}{end}" for b in bodies).encode()


def delta(text: str, **more: Any) -> dict[str, Any]:
    """Return a chunk's body with a delta of text."""
    return {"choices": [{"index": 0, "delta": {"content": text}, **more}]}


STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_a_stream_split_at_any_byte_is_decoded(streamed_request: Request, size: int) -> None:
    exchange, reading = streamed_request
    body = sse(delta("你好 "), delta("🌍\n"), STOP) + b"data: [DONE]\n\n"
    for at in range(0, len(body), size):
        await exchange.raw(body[at : at + size])
    await exchange.end()
    assert text_of(await reading) == "你好 🌍\n"


@pytest.mark.parametrize("end", ["\r\n", "\n"])
async def test_comments_other_fields_and_crlf_line_endings_are_accepted(
    streamed_request: Request, end: str
) -> None:
    exchange, reading = streamed_request
    noise = f": keep-alive{end}{end}event: message{end}id: 7{end}retry: 10{end}{end}".encode()
    await exchange.raw(
        b"\xef\xbb\xbf" + noise + sse(delta("a"), end=end) + noise + sse(delta("b"), STOP, end=end)
    )
    await exchange.raw(f"data: [DONE]{end}{end}".encode())
    await exchange.end()
    assert text_of(await reading) == "ab"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
async def test_reasoning_is_sent_in_separate_frames_and_stored(
    streamed_request: Request, client: httpx.AsyncClient, name: str
) -> None:
    exchange, reading = streamed_request
    await exchange.chunk({name: "let me "})
    await exchange.chunk({name: "think", "content": None})
    await exchange.answer("42")
    events = await reading
    assert "".join(event.data for event in events if event.event == "reasoning") == "let me think"
    assert text_of(events) == events[-1].data == "42"
    conversation = json.loads(events[0].data)["conversation"]
    messages = (await client.get(f"/api/conversations/{conversation}")).json()["messages"]
    assert messages[-1]["reasoning"] == "let me think"


async def test_a_delta_without_text_produces_no_frame(streamed_request: Request) -> None:
    exchange, reading = streamed_request
    await exchange.chunk({"role": "assistant", "content": ""})
    await exchange.chunk({"content": None})
    await exchange.chunk({})
    await exchange.raw(b'data: {"choices": null}\n\ndata: {}\n\n')
    await exchange.answer("only this")
    assert [event.event for event in await reading] == ["turn", "message", "usage", "end"]


async def test_a_character_split_between_two_deltas_is_joined(streamed_request: Request) -> None:
    exchange, reading = streamed_request
    await exchange.raw(b'data: {"choices": [{"delta": {"content": "a\\ud83d"}}]}\n\n')
    await exchange.raw(b'data: {"choices": [{"delta": {"content": "\\ude00b\\r"}}]}\n\n')
    await exchange.answer("\nc")
    assert (await reading)[-1].data == "a😀b\nc"


async def test_a_response_that_is_not_streamed_is_accepted(streamed_request: Request) -> None:
    exchange, reading = streamed_request
    message = {"role": "assistant", "content": "not\nstreamed"}
    exchange.reply(
        200,
        {"choices": [{"message": message, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3}},
    )
    assert (await reading)[-1].data == "not\nstreamed"


async def test_a_stream_with_a_finish_reason_and_without_done_is_complete(
    streamed_request: Request,
) -> None:
    exchange, reading = streamed_request
    await exchange.raw(sse(delta("full"), STOP))
    await exchange.end()
    assert (await reading)[-1].event == "end"


async def test_a_stream_without_a_finish_reason_fails_and_keeps_the_partial_answer(
    streamed_request: Request, client: httpx.AsyncClient
) -> None:
    exchange, reading = streamed_request
    await exchange.send_text("partial")
    await exchange.end()
    events = await reading
    failure = failure_of(events)
    assert failure == {
        "type": "connection_lost",
        "message": "The model provider ended its response in the middle.",
        "retryable": True,
    }
    conversation = json.loads(events[0].data)["conversation"]
    messages = (await client.get(f"/api/conversations/{conversation}")).json()["messages"]
    assert (messages[-1]["content"], messages[-1]["finish_reason"]) == ("partial", "failed")
    assert messages[-1]["failure"] == failure


async def test_a_dropped_upstream_connection_fails_the_turn(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    async with asking(client, message=question) as source:
        events = source.aiter_sse()
        await anext(events)
        exchange = await upstream.exchange(question)
        await exchange.send_text("partial")
        assert (await anext(events)).data == "partial"
        exchange.drop()
        rest = [event async for event in events]
    assert failure_of(rest)["type"] == "connection_lost"


@pytest.mark.parametrize(
    "raw",
    [
        b'data: {"error": {"message": "the GPU is on fire", "code": 500}}\n\n',
        b'event: error\ndata: {"error": {"message": "the GPU is on fire"}}\n\n',
        b"event: error\ndata: the GPU is on fire\n\n",
        b'data: {"error": "the GPU is on fire"}\n\n',
    ],
)
async def test_an_error_inside_the_stream_is_reported_to_the_viewer(
    streamed_request: Request, raw: bytes
) -> None:
    exchange, reading = streamed_request
    await exchange.raw(raw)
    failure = failure_of(await reading)
    assert failure["type"] == "upstream"
    assert "the GPU is on fire" in failure["message"]
    assert failure["retryable"]


DEEP = b'data: {"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n\n"


@pytest.mark.parametrize("raw", [b"data: {malformed}\n\n", DEEP])
@pytest.mark.parametrize("begun", [False, True])
async def test_an_invalid_response_fails_without_a_retry(
    streamed_request: Request,
    upstream: ScriptedUpstream,
    question: str,
    server: Server,
    raw: bytes,
    begun: bool,
) -> None:
    exchange, reading = streamed_request
    if begun:
        await exchange.send_text("partial")
    await exchange.raw(raw)
    await exchange.end()
    events = await reading
    assert failure_of(events)["type"] == "invalid_response"
    assert text_of(events) == ("partial" if begun else "")
    assert upstream.find_requests(question) == upstream.exchanges[-1:] == [exchange]
    assert "Traceback" not in server.read_log()


async def test_a_body_that_cannot_be_decompressed_fails_the_turn(
    streamed_request: Request, server: Server
) -> None:
    exchange, reading = streamed_request
    await exchange.open(headers={"Content-Encoding": "gzip"})
    await exchange.raw(gzip.compress(sse(delta("packed"))) + b"rubbish")
    await exchange.raw(b"more of it" * 1000)
    await exchange.end()
    assert failure_of(await reading)["type"] in ("invalid_response", "connection_lost")
    assert "Traceback" not in server.read_log()


@pytest.mark.parametrize("ending", ["dropped", "ended", "error", "error event"])
async def test_an_answer_with_a_finish_reason_is_complete_however_the_response_ends(
    streamed_request: Request, client: httpx.AsyncClient, upstream: ScriptedUpstream, ending: str
) -> None:
    exchange, reading = streamed_request
    await exchange.send_text("all of it")
    await exchange.chunk({}, finish_reason="stop")
    if ending == "dropped":
        exchange.drop()
    elif ending == "error":
        await exchange.raw(b'data: {"error": {"message": "too late"}}\n\n')
    elif ending == "error event":
        await exchange.raw(b"event: error\ndata: too late\n\n")
    if ending != "dropped":
        await exchange.end()
    events = await reading
    assert (events[-1].event, events[-1].data) == ("end", "all of it")
    assert upstream.exchanges[-1] is exchange, "no second request is sent"


@pytest.mark.parametrize(
    "unexpected",
    [
        b'data: {"choices": [], "usage": {"completion_tokens": null, "prompt_tokens": "many"}}\n\n',
        b'data: {"choices": [], "usage": {"completion_tokens": 5.0}}\n\n',
        b"event: ping\ndata: alive\n\n",
        b"data:\n\n",
        b'data: {"choices": [{"delta": {"content": [{"type": "text", "text": ""}, 5]}}]}\n\n',
        b"data: [DONE] \n\n",
    ],
)
async def test_unexpected_chunks_do_not_affect_the_answer(
    streamed_request: Request, upstream: ScriptedUpstream, unexpected: bytes
) -> None:
    exchange, reading = streamed_request
    await exchange.raw(
        sse({"choices": [{"delta": {"content": [{"type": "text", "text": "in parts"}]}}]})
    )
    if b"DONE" not in unexpected:
        await exchange.raw(unexpected)
    await exchange.chunk({}, finish_reason="st\ud83dop")
    await exchange.raw(unexpected)
    await exchange.end()
    events = await reading
    assert (events[-1].event, events[-1].data) == ("end", "in parts")
    assert upstream.exchanges[-1] is exchange, "no second request is sent"


async def test_a_lone_surrogate_in_an_upstream_error_is_replaced(streamed_request: Request) -> None:
    exchange, reading = streamed_request
    await exchange.raw(b'data: {"error": {"message": "half \\ud83d of it"}}\n\n')
    await exchange.end()
    assert "half ? of it" in failure_of(await reading)["message"]


@pytest.mark.parametrize(
    ("status", "kind", "retryable", "hint"),
    [
        (401, "authentication", False, "OPENAI_API_KEY"),
        (403, "refused", False, "text of the upstream"),
        (404, "not_found", False, "CHAT_MODEL"),
        (400, "refused", False, "text of the upstream"),
        (422, "refused", False, "text of the upstream"),
    ],
)
async def test_a_rejected_request_names_the_setting_to_change_and_hides_the_key(
    streamed_request: Request, server: Server, status: int, kind: str, retryable: bool, hint: str
) -> None:
    exchange, reading = streamed_request
    exchange.reply(status, {"error": {"message": f"text of the upstream about {KEY}", "type": "x"}})
    failure = failure_of(await reading)
    assert (failure["type"], failure["retryable"]) == (kind, retryable)
    assert hint in failure["message"]
    assert KEY not in json.dumps(failure)
    assert exchange.headers["Authorization"] == f"Bearer {KEY}"
    assert KEY not in server.read_log()
    assert "Traceback" not in server.read_log()


async def test_a_request_to_a_busy_upstream_is_repeated_once_before_the_turn_fails(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    reading = asyncio.create_task(read(client, message=question))
    for number in (1, 2):
        exchange = await upstream.exchange(question, number)
        exchange.reply(429, {"error": {"message": "slow down"}}, {"retry-after-ms": "1"})
    failure = failure_of(await reading)
    assert (failure["type"], failure["retryable"]) == ("rate_limited", True)
    assert "slow down" in failure["message"]


async def test_a_request_that_failed_with_503_is_retried(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    reading = asyncio.create_task(read(client, message=question))
    (await upstream.exchange(question)).reply(503, {"error": "busy"}, {"retry-after-ms": "1"})
    await (await upstream.exchange(question, 2)).answer("now")
    assert (await reading)[-1].data == "now"


async def test_an_upstream_that_rejects_stream_options_is_retried_without_them(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    async with (
        holdline(REDIS_URL=redis_url, OPENAI_BASE_URL=upstream.base_url, CHAT_MODEL="m") as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        reading = asyncio.create_task(read(client, message=question))
        first = await upstream.exchange(question)
        first.reply(400, {"error": {"message": "unknown field stream_options"}})
        second = await upstream.exchange(question, 2)
        assert "stream_options" not in second.body
        await second.answer("fine")
        assert (await reading)[-1].data == "fine"
        await ask(client, upstream, question + "!", "directly")
        assert len(upstream.find_requests(question + "!")) == 1


async def test_a_refused_connection_and_a_timeout_are_reported_as_different_failures(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        closed_url = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
    for base_url, timeout_s, kind in (
        (closed_url, "60", "unreachable"),
        (upstream.base_url, "0.3", "timeout"),
    ):
        async with (
            holdline(
                REDIS_URL=redis_url,
                OPENAI_BASE_URL=base_url,
                CHAT_MODEL="m",
                UPSTREAM_TIMEOUT_S=timeout_s,
            ) as server,
            httpx.AsyncClient(base_url=server.url, timeout=60) as client,
        ):
            failure = failure_of(await read(client, message=question))
            assert (failure["type"], failure["retryable"]) == (kind, True)
            assert "Traceback" not in server.read_log()


async def test_a_stalled_upstream_times_out_and_the_partial_answer_is_kept(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    async with (
        holdline(
            REDIS_URL=redis_url,
            OPENAI_BASE_URL=upstream.base_url,
            CHAT_MODEL="m",
            UPSTREAM_TIMEOUT_S="1",
        ) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        reading = asyncio.create_task(read(client, message=question))
        await (await upstream.exchange(question)).send_text("and then")
        events = await reading
        assert failure_of(events)["type"] == "timeout"
        assert text_of(events) == "and then"


async def test_a_question_whose_turn_failed_can_be_repeated_and_is_stored_once(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    reading = asyncio.create_task(read(client, message=question))
    (await upstream.exchange(question)).reply(401, {"error": {"message": "no"}})
    events = await reading
    failure_of(events)
    conversation = json.loads(events[0].data)["conversation"]
    path = f"/api/conversations/{conversation}"
    assert [m["content"] for m in (await client.get(path)).json()["messages"]] == [question]
    again = await ask(client, upstream, question, "at last")
    assert json.loads(again[0].data)["message"] == json.loads(events[0].data)["message"]
    assert again[-1].data == "at last"
    messages = (await client.get(path)).json()["messages"]
    assert [m["content"] for m in messages] == [question, "at last"]


async def test_repeating_a_question_replaces_its_interrupted_answer(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    reading = asyncio.create_task(read(client, message=question))
    exchange = await upstream.exchange(question)
    await exchange.send_text("half")
    await exchange.end()
    events = await reading
    failure_of(events)
    await ask(client, upstream, question, "the full")
    assert len((await upstream.exchange(question, 2)).messages) == 1
    conversation = json.loads(events[0].data)["conversation"]
    messages = (await client.get(f"/api/conversations/{conversation}")).json()["messages"]
    assert [m["content"] for m in messages] == [question, "the full"]


async def test_the_model_of_the_query_is_sent_upstream(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    events = await ask(client, upstream, question, "x", model="other-model")
    assert json.loads(events[0].data)["model"] == "other-model"
    assert (await upstream.exchange(question)).body["model"] == "other-model"


async def test_the_proxy_of_the_environment_is_used(
    upstream: ScriptedUpstream, question: str
) -> None:
    proxy = upstream.base_url.removesuffix("/v1")
    settings = {
        "OPENAI_BASE_URL": "http://model.invalid/v1",
        "CHAT_MODEL": "m",
        "HTTP_PROXY": proxy,
    }
    async with (
        holdline(**settings) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        events = await ask(client, upstream, question, "through ", "the proxy")
        assert events[-1].data == "through the proxy"
        assert upstream.find_requests(question)[0].headers["Host"] == "model.invalid"
