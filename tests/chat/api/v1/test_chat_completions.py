"""Chat completions over HTTP, as OpenAI's own client and as raw requests send them."""

import asyncio
import json
import secrets
import signal
from typing import Any

import httpx
import openai
import pytest

from sessions.client.connection import Client, connect
from tests.fake_upstream import Exchange, ScriptedUpstream
from tests.processes import PATIENCE_S, Server, holdline
from tests.streams import read

PATH = "/v1/chat/completions"


def ask(question: str, **fields: Any) -> dict[str, Any]:
    """Return the body of a request with one message."""
    return {"messages": [{"role": "user", "content": question}], **fields}


def decode_chunks(body: str) -> list[dict[str, Any]]:
    """Return the chunks of a stream, which must end with `[DONE]`."""
    events = [part.removeprefix("data: ") for part in body.split("\n\n") if part]
    assert events.pop() == "[DONE]"
    return [json.loads(event) for event in events]


def text_of(chunks: list[dict[str, Any]]) -> str:
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


async def post(
    client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    question: str,
    *texts: str,
    query: str = "",
    **fields: Any,
) -> tuple[httpx.Response, Exchange]:
    """Send a request, which the upstream answers with `texts`."""
    sending = asyncio.create_task(client.post(PATH + query, json=ask(question, **fields)))
    exchange = await upstream.exchange(question)
    await exchange.answer(*texts)
    return await sending, exchange


async def test_openais_client_gets_a_complete_and_a_streamed_answer(
    server: Server, upstream: ScriptedUpstream, question: str
) -> None:
    client = openai.AsyncOpenAI(api_key="any", base_url=f"{server.url}/v1", max_retries=0)
    asking = asyncio.create_task(
        client.chat.completions.create(
            model="test-model", messages=[{"role": "user", "content": question}]
        )
    )
    await (await upstream.exchange(question)).answer("你", "好 ", "\u2028x")
    completion = await asking
    assert completion.object == "chat.completion"
    assert completion.id.startswith("chatcmpl-")
    assert completion.model == "test-model"
    assert completion.choices[0].message.content == "你好 \u2028x"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 3

    streaming = asyncio.create_task(
        client.chat.completions.create(
            model="test-model",
            messages=[{"role": "user", "content": f"again {question}"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    await (await upstream.exchange(f"again {question}")).answer("one ", "two")
    chunks = [chunk async for chunk in await streaming]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "one two"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 2
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    await client.close()


async def test_fields_go_upstream_unchanged(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    fields: dict[str, Any] = {
        "temperature": 0.25,
        "max_tokens": 77,
        "seed": 1,
        "stop": ["\n"],
        "logit_bias": {"50256": -100},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "tool_choice": "auto",
        "response_format": {"type": "json_object"},
        "user": "someone",
        "x_unknown": {"deep": [1, None, "é"]},
    }
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [
            {"type": "text", "text": "what is it?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        ]},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        ]},
        {"role": "tool", "tool_call_id": "a", "content": "42"},
        {"role": "user", "content": question, "name": "ann"},
    ]  # fmt: skip
    body = {"messages": messages, **fields}
    sending = asyncio.create_task(client.post(PATH, json=body))
    exchange = await upstream.exchange(question)
    sent = dict(exchange.body)
    await exchange.finish()
    assert (await sending).status_code == 200
    assert sent.pop("stream") is True
    assert sent.pop("stream_options") == {"include_usage": True}
    assert sent.pop("model") == "test-model"
    assert sent == body


async def test_tool_calls_come_back_complete_and_unchanged(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    def call(index: int, **function: str) -> dict[str, Any]:
        return {"index": index, "function": function}

    async def answer(number: int) -> None:
        exchange = await upstream.exchange(question, number)
        first = {**call(0, name="get", arguments=""), "id": "call_1", "type": "function"}
        await exchange.chunk({"role": "assistant", "tool_calls": [first]})
        await exchange.chunk({"tool_calls": [call(0, arguments='{"a":')]})
        await exchange.chunk({"tool_calls": [call(0, arguments=' "\u00e9"}')]})
        second = {**call(1, name="put", arguments="{}"), "id": "call_2", "type": "function"}
        await exchange.chunk({"tool_calls": [second]})
        await exchange.finish("tool_calls")

    expected = [
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "get", "arguments": '{"a": "é"}'},
        },
        {"id": "call_2", "type": "function", "function": {"name": "put", "arguments": "{}"}},
    ]
    sending = asyncio.create_task(client.post(PATH, json=ask(question, tools=[{}])))
    await answer(1)
    choice = (await sending).json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    assert choice["message"]["tool_calls"] == expected

    sending = asyncio.create_task(client.post(PATH, json=ask(question, tools=[{}], stream=True)))
    await answer(2)
    chunks = decode_chunks((await sending).text)
    found = [
        c["choices"][0]["delta"]["tool_calls"]
        for c in chunks
        if "tool_calls" in c["choices"][0]["delta"]
    ]
    assert found == [[{"index": 0, **expected[0]}], [{"index": 1, **expected[1]}]]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_tool_call_that_breaks_off_is_an_error_and_never_sent_in_part(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    sending = asyncio.create_task(client.post(PATH, json=ask(question, tools=[{}], stream=True)))
    exchange = await upstream.exchange(question)
    await exchange.chunk(
        {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": '{"a'}}]}
    )
    exchange.drop()
    response = await sending
    assert "tool_calls" not in response.text
    assert response.json()["error"]["code"] == "connection_lost"


async def test_refusals_logprobs_and_fingerprints_come_back_unchanged(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    def scored(token: str) -> dict[str, Any]:
        return {"content": [{"token": token, "logprob": -0.5, "bytes": None, "top_logprobs": []}]}

    async def answer(number: int) -> None:
        exchange = await upstream.exchange(question, number)
        for token in ("one ", "two"):
            body = {
                "choices": [{"index": 0, "delta": {"content": token}, "logprobs": scored(token)}],
                "system_fingerprint": "fp_1",
            }
            await exchange.raw(f"data: {json.dumps(body)}\n\n".encode())
        await exchange.finish()

    sending = asyncio.create_task(client.post(PATH, json=ask(question, logprobs=True, stream=True)))
    await answer(1)
    chunks = decode_chunks((await sending).text)
    scores = [
        c["choices"][0]["logprobs"] for c in chunks if c["choices"][0]["delta"].get("content")
    ]
    assert scores == [scored("one "), scored("two")]
    assert chunks[-1]["system_fingerprint"] == "fp_1"

    sending = asyncio.create_task(client.post(PATH, json=ask(question, logprobs=True)))
    await answer(2)
    body = (await sending).json()
    assert body["system_fingerprint"] == "fp_1"
    assert [one["token"] for one in body["choices"][0]["logprobs"]["content"]] == ["one ", "two"]

    sending = asyncio.create_task(client.post(PATH, json=ask(question)))
    exchange = await upstream.exchange(question, 3)
    await exchange.chunk({"refusal": "I can't "})
    await exchange.chunk({"refusal": "help."})
    await exchange.finish()
    choice = (await sending).json()["choices"][0]
    assert choice["message"]["refusal"] == "I can't help."
    assert choice["message"]["content"] is None
    assert choice["finish_reason"] == "stop"


async def test_reasoning_is_sent_apart_from_the_content(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    sending = asyncio.create_task(client.post(PATH, json=ask(question)))
    exchange = await upstream.exchange(question)
    await exchange.chunk({"reasoning_content": "hm"})
    await exchange.answer("yes")
    message = (await sending).json()["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("hm", "yes")


async def test_the_query_may_replace_fields_of_the_body(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    response, _ = await post(client, upstream, question, "a", "b", query="?stream=true")
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert text_of(decode_chunks(response.text)) == "ab"
    lines, _ = await post(
        client, upstream, f"lines {question}", "a\u2028", "b", query="?format=ndjson"
    )
    assert lines.headers["content-type"].startswith("application/x-ndjson")
    chunks = [json.loads(line) for line in lines.text.splitlines()]
    assert text_of(chunks) == "a\u2028b"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


async def test_a_truncated_answer_is_continued_only_if_the_query_says_so(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    first = f"half of {question} and "
    async with (
        holdline(REDIS_URL=redis_url, OPENAI_BASE_URL=upstream.base_url, CHAT_MODEL="m") as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        sending = asyncio.create_task(client.post(f"{PATH}?continue=true", json=ask(question)))
        exchange = await upstream.exchange(question)
        await exchange.send_text(first)
        await exchange.finish("length")
        await (await upstream.continued(first)).answer("the rest")
        choice = (await sending).json()["choices"][0]
        assert choice["message"]["content"] == first + "the rest"
        assert choice["finish_reason"] == "stop"

        sending = asyncio.create_task(client.post(PATH, json=ask(f"no {question}")))
        exchange = await upstream.exchange(f"no {question}")
        await exchange.send_text("cut")
        await exchange.finish("length")
        choice = (await sending).json()["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("cut", "length")


@pytest.mark.parametrize(
    ("status", "expected", "kind"),
    [
        (400, 400, "invalid_request_error"),
        (429, 429, "rate_limit_error"),
        (401, 502, "api_error"),
        (500, 502, "api_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_upstreams_error_has_openais_form_and_a_status(
    client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    question: str,
    status: int,
    expected: int,
    kind: str,
    stream: bool,
) -> None:
    sending = asyncio.create_task(client.post(PATH, json=ask(question, stream=stream)))
    exchange = await upstream.exchange(question)
    exchange.reply(status, {"error": {"message": "told you so"}}, {"Retry-After": "300"})
    response = await sending
    assert response.status_code == expected
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == kind


async def test_an_error_in_the_middle_of_a_stream_is_an_error_object_without_done(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    body = ask(question, stream=True, response_format={"type": "json_object"})
    sending = asyncio.create_task(client.post(PATH, json=body))
    exchange = await upstream.exchange(question)
    await exchange.send_text("half")
    exchange.drop()
    events = [part.removeprefix("data: ") for part in (await sending).text.split("\n\n") if part]
    assert "[DONE]" not in events
    assert json.loads(events[-1])["error"]["code"] == "connection_lost"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "messages"),
        ({"messages": []}, 400, "messages"),
        ({"messages": "hi"}, 400, "messages"),
        ({"messages": ["hi"]}, 400, "messages[0]"),
        ({"messages": [{"content": "hi"}]}, 400, "messages[0]"),
        (ask("x", n=2), 400, "n"),
        (ask("x", n="1"), 400, "n"),
        (ask("x", n=True), 400, "n"),
        (ask("x", model="unknown"), 404, None),
        (ask("x", model=1), 400, "model"),
        (ask("x", stream="yes"), 400, "stream"),
        (ask("x", stream_options=1), 400, "stream_options"),
        (ask("x", store="yes"), 400, "store"),
        (ask("x", metadata=[]), 400, "metadata"),
        (ask("x", metadata={"conversation": 1}), 400, "metadata"),
        (ask("x", metadata={"conversation": "a b"}), 404, None),
        (ask("x", metadata={"conversation": "-"}), 404, None),
        (ask("x", metadata={"conversation": "unknown"}), 404, None),
        (ask("x", store=True, messages=[{"role": "user", "content": "x" * 32_001}]), 413, None),
        ([], 400, None),
    ],
)
async def test_an_invalid_body_gets_openais_error_and_begins_nothing(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, body: Any, status: int, param: str | None
) -> None:
    before = len(upstream.find_requests("x"))
    response = await client.post(PATH, json=body)
    assert response.status_code == status
    error = response.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert error["message"]
    assert len(upstream.find_requests("x")) == before


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"{", "application/json"),
        (b"\xff", "application/json"),
        (b"", "application/json"),
        (b"[" * 100_000, "application/json"),
        *(
            (
                b'{"messages": [{"role": "user"}], "x": ' + b"[" * depth + b"]" * depth + b"}",
                "application/json",
            )
            for depth in (100, 500, 900, 940, 960, 980, 990, 1000)
        ),
        (json.dumps(ask("x")).encode(), "text/plain"),
        (json.dumps(ask("x")).encode(), "application/x-www-form-urlencoded"),
    ],
)
async def test_a_body_that_is_not_json_gets_400(
    client: httpx.AsyncClient, content: bytes, content_type: str
) -> None:
    response = await client.post(PATH, content=content, headers={"Content-Type": content_type})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("query", ["?stream=maybe", "?format=xml", "?continue=2"])
async def test_an_invalid_query_gets_400(client: httpx.AsyncClient, query: str) -> None:
    response = await client.post(PATH + query, json=ask("x"))
    assert response.status_code == 400
    assert response.json()["error"]["message"]


async def test_a_body_of_images_may_have_20_mib(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * (8 << 20)}}
    messages = [{"role": "user", "content": [image]}, {"role": "user", "content": question}]
    sending = asyncio.create_task(client.post(PATH, json={"messages": messages}))
    exchange = await upstream.exchange(question)
    assert exchange.messages == messages
    await exchange.send_text("a cat")
    await exchange.finish()
    assert (await sending).json()["choices"][0]["message"]["content"] == "a cat"
    body = {**ask("x"), "x": "A" * (21 << 20)}
    response = await client.post(PATH, json=body)
    assert response.status_code == 413
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_a_client_that_disconnects_closes_the_upstream_request(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, redis: Client
) -> None:
    for stream in (True, False):
        asked = f"{stream} {question}"
        sending = asyncio.create_task(client.post(PATH, json=ask(asked, stream=stream)))
        exchange = await upstream.exchange(asked)
        await exchange.send_text("begun")
        sending.cancel()
        await asyncio.wait_for(exchange.closed.wait(), 30)


async def test_a_request_without_a_key_leaves_only_its_log(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, redis: Client
) -> None:
    known = {key async for key in redis.scan_iter("holdline:{local}:*")}
    response, _ = await post(client, upstream, question, "gone")
    turn = response.json()["id"].removeprefix("chatcmpl-")
    found = {key async for key in redis.scan_iter("holdline:{local}:*")} - known
    names = {f"holdline:{{local}}:{name}:{turn}".encode() for name in ("turn", "records")}
    assert names <= found <= names | {b"holdline:{local}:rate"}
    assert all([0 < await redis.ttl(name) <= 3600 for name in names])


async def test_the_same_idempotency_key_never_asks_twice(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, redis: Client
) -> None:
    key = {
        "Idempotency-Key": f"é key {secrets.token_hex(100)}"[:255]
        .encode("latin-1", "replace")
        .decode("latin-1")
    }
    key = {"Idempotency-Key": secrets.token_hex(127) + "~"}
    body = ask(question, stream=True)
    first = asyncio.create_task(client.post(PATH, json=body, headers=key))
    exchange = await upstream.exchange(question)
    await exchange.send_text("one ")
    first.cancel()  # the client disconnects in the middle of the answer
    again = asyncio.create_task(client.post(PATH, json=body, headers=key))
    await exchange.answer("two")
    assert text_of(decode_chunks((await again).text)) == "one two"
    assert (
        text_of(decode_chunks((await client.post(PATH, json=body, headers=key)).text)) == "one two"
    )
    assert len(upstream.find_requests(question)) == 1
    other = await client.post(PATH, json=ask(question, stream=False), headers=key)
    assert other.status_code == 409
    assert other.json()["error"]["message"]
    assert not [key async for key in redis.scan_iter("holdline:{local}:request:*")]


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_an_idempotency_key_of_invalid_length_is_rejected(
    client: httpx.AsyncClient, key: str
) -> None:
    response = await client.post(PATH, json=ask("x"), headers={"Idempotency-Key": key})
    assert response.status_code == 400


async def test_an_exchange_is_kept_in_a_conversation(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, redis: Any
) -> None:
    response, _ = await post(client, upstream, question, "kept", store=True)
    conversation = response.json()["metadata"]["conversation"]
    again, _ = await post(
        client, upstream, f"more {question}", "too", metadata={"conversation": conversation}
    )
    assert again.json()["metadata"]["conversation"] == conversation
    stored = await redis.hgetall(f"holdline:{{local}}:messages:{conversation}")
    texts = [
        json.loads(value.partition(b"\n")[2])["content"]
        for name, value in stored.items()
        if not name.startswith(b">")
    ]
    assert sorted(texts) == sorted([question, "kept", f"more {question}", "too"])


async def test_a_conversation_that_is_being_answered_gets_409_and_its_answer_goes_on(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    response, _ = await post(client, upstream, question, "first", store=True)
    metadata = response.json()["metadata"]
    running = asyncio.create_task(
        client.post(PATH, json=ask(f"running {question}", metadata=metadata))
    )
    exchange = await upstream.exchange(f"running {question}")
    await exchange.send_text("whole ")
    refused = await client.post(PATH, json=ask(f"refused {question}", metadata=metadata))
    assert refused.status_code == 409
    assert "conversation" in refused.json()["error"]["message"]
    await exchange.answer("answer")
    choice = (await running).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("whole answer", "stop")
    assert upstream.find_requests(f"refused {question}") == []


async def test_a_function_call_of_the_older_api_comes_back(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    for number, stream in enumerate((False, True), 1):
        body = ask(question, functions=[{"name": "f"}], stream=stream)
        sending = asyncio.create_task(client.post(PATH, json=body))
        exchange = await upstream.exchange(question, number)
        await exchange.chunk({"function_call": {"name": "f", "arguments": ""}})
        await exchange.chunk({"function_call": {"arguments": '{"a": '}})
        await exchange.chunk({"function_call": {"arguments": '"x"}'}})
        await exchange.finish("function_call")
        response = await sending
        if stream:
            chunks = decode_chunks(response.text)
            found = [
                one["choices"][0]["delta"]["function_call"]
                for one in chunks
                if "function_call" in one["choices"][0]["delta"]
            ]
            reason = chunks[-1]["choices"][0]["finish_reason"]
        else:
            choice = response.json()["choices"][0]
            found, reason = [choice["message"]["function_call"]], choice["finish_reason"]
        assert found == [{"name": "f", "arguments": '{"a": "x"}'}]
        assert reason == "function_call"


async def test_a_kept_answer_survives_the_death_of_its_worker(
    redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    settings = {"REDIS_URL": redis_url, "OPENAI_BASE_URL": upstream.base_url, "CHAT_MODEL": "m"}
    key = {"Idempotency-Key": question}
    body = ask(question, stream=True, temperature=0.5)
    async with (
        holdline(**settings) as first,
        holdline(**settings) as second,
        httpx.AsyncClient(base_url=first.url, timeout=60) as client,
        httpx.AsyncClient(base_url=second.url, timeout=60) as other,
    ):
        async with client.stream("POST", PATH, json=body, headers=key) as response:
            lines = response.aiter_lines()
            exchange = await upstream.exchange(question)
            await exchange.send_text(f"before {question}, ")
            while question not in await anext(lines):
                pass
            again = asyncio.create_task(other.post(PATH, json=body, headers=key))
            await first.stop(signal.SIGKILL)
            with pytest.raises(httpx.HTTPError):
                [line async for line in lines]
        continued = await upstream.continued(f"before {question}, ")
        assert continued.body["temperature"] == 0.5
        await continued.answer("after")
        assert text_of(decode_chunks((await again).text)) == f"before {question}, after"


async def test_an_answer_without_a_key_ends_with_its_worker(
    lone_redis_url: str, upstream: ScriptedUpstream, question: str
) -> None:
    settings = {
        "REDIS_URL": lone_redis_url,
        "OPENAI_BASE_URL": upstream.base_url,
        "CHAT_MODEL": "m",
    }
    async with (
        holdline(**settings) as first,
        holdline(**settings),
        connect(lone_redis_url) as redis,
    ):
        async with httpx.AsyncClient(base_url=first.url, timeout=60) as client:
            sending = asyncio.create_task(client.post(PATH, json=ask(question, stream=True)))
            exchange = await upstream.exchange(question)
            await exchange.send_text("before")
            (turn,) = [key async for key in redis.scan_iter("holdline:{local}:turn:*")]
            await first.stop(signal.SIGKILL)
            with pytest.raises(httpx.HTTPError):
                await sending
            async with asyncio.timeout(PATIENCE_S):
                while await redis.hget(turn, "state") == b"running":
                    await asyncio.sleep(0.1)
        assert len(upstream.find_requests(question)) == 1


async def test_usage_that_the_upstream_did_not_report_is_null(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    """Our own frames carry an estimate."""
    sending = asyncio.create_task(client.post(PATH, json=ask(question)))
    exchange = await upstream.exchange(question)
    await exchange.send_text("uncounted")
    await exchange.finish()
    assert (await sending).json()["usage"] is None
    body = ask(f"again {question}", stream=True, stream_options={"include_usage": True})
    sending = asyncio.create_task(client.post(PATH, json=body))
    exchange = await upstream.exchange(f"again {question}")
    await exchange.send_text("uncounted")
    await exchange.finish()
    assert decode_chunks((await sending).text)[-1]["usage"] is None


async def test_models_are_listed(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [one["id"] for one in listed["data"]] == ["test-model", "other-model"]
    model = listed["data"][0]
    assert model["object"] == "model"
    assert (await client.get("/v1/models/test-model")).json() == model
    missing = await client.get("/v1/models/none")
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "invalid_request_error")


async def test_an_unknown_path_has_openais_error_object(client: httpx.AsyncClient) -> None:
    for response in (await client.get("/v1/nothing"), await client.get(PATH)):
        assert response.status_code in (404, 405)
        assert set(response.json()["error"]) == {"message", "type", "param", "code"}


async def test_the_page_and_v1_see_different_owners(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    response, _ = await post(client, upstream, question, "private", store=True)
    turn = response.json()["id"].removeprefix("chatcmpl-")
    with pytest.raises(httpx.HTTPStatusError):
        await read(client, turn=turn)
    assert (await client.get("/api/conversations/")).json()["conversations"] == []
