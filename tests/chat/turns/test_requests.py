"""Which requests a turn sends: as the server accepts them, within its window, never in vain."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent

from tests.processes import Server, holdline
from tests.raw_upstream import (
    STOP,
    USAGE,
    RawUpstream,
    delta,
    error,
    http,
    raw_upstream,
    stream,
    text,
)
from tests.streams import names_of, read, text_of


@asynccontextmanager
async def server_for(*upstreams: RawUpstream, **settings: str) -> AsyncIterator[Server]:
    """Run a server in front of some upstreams; the first is the primary one."""
    others = [{"base_url": one.base_url, "model": "m2"} for one in upstreams[1:]]
    defaults = {"CHAT_MODEL": "m", "RATE_LIMIT": "off", "UPSTREAMS": json.dumps(others)}
    async with holdline(
        OPENAI_BASE_URL=upstreams[0].base_url, **{**defaults, **settings}
    ) as server:
        yield server


@asynccontextmanager
async def asking_server(
    **settings: str,
) -> AsyncIterator[tuple[RawUpstream, httpx.AsyncClient, Server]]:
    """Yield an upstream, and a client of a server in front of it."""
    async with (
        raw_upstream() as upstream,
        server_for(upstream, **settings) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        yield upstream, client, server


def model_list(**fields: Any) -> bytes:
    """Return a `GET /models` response for the model "m" with these fields."""
    body = {"object": "list", "data": [{"id": "m", **fields}]}
    return http(json.dumps(body).encode(), content_type="application/json")


async def until_asked_for_models(upstream: RawUpstream) -> None:
    """Wait until the server has received the list of models, and has had time to read it."""
    async with asyncio.timeout(20):
        while not any(head.startswith("GET") for head in upstream.heads):
            await asyncio.sleep(0.01)


def failure_of(events: list[ServerSentEvent]) -> dict[str, Any]:
    assert events[-1].event == "failed"
    failure: dict[str, Any] = json.loads(events[-1].data)
    return failure


def size_of(body: dict[str, Any]) -> int:
    """Return the tokens of a request, at four characters each."""
    return sum(len(message["content"]) for message in body["messages"]) // 4


# Form


async def test_a_request_has_no_headers_of_the_sdk_and_no_key_that_is_not_set() -> None:
    async with asking_server() as (upstream, client, _):
        upstream.add("plain", text("Hi."))
        await read(client, message="plain question")
        head = next(one for one in upstream.heads if one.startswith("POST")).lower()
        assert "x-stainless" not in head
        assert "authorization" not in head
        assert "user-agent: holdline/" in head
        body = upstream.requests["plain"][0]
        assert set(body) == {"model", "messages", "stream", "stream_options"}


async def test_an_empty_answer_is_not_sent_upstream_again() -> None:
    async with asking_server() as (upstream, client, _):
        upstream.add("empty", stream(delta(""), STOP))
        upstream.add("space", text(" \n"))
        upstream.add("next", text("Hi."))
        for question in ("empty one", "space two", "next three"):
            await read(client, message=question)
        messages = upstream.requests["empty"][-1]["messages"]  # one message, of three questions
        assert [one["role"] for one in messages] == ["user"]
        assert all(word in messages[0]["content"] for word in ("one", "two", "three"))


async def test_inline_reasoning_is_not_sent_upstream_again() -> None:
    async with asking_server() as (upstream, client, _):
        upstream.add("think", text("<think>secret</think>\n\n", "Hello"))
        upstream.add("next", text("Hi."))
        await read(client, message="think")
        await read(client, message="next")
        assert "secret" not in json.dumps(upstream.requests["next"][0])


@pytest.mark.parametrize("field", ["max_completion_tokens", "max_tokens"])
async def test_the_maximum_output_is_sent_under_the_name_that_the_server_takes(field: str) -> None:
    def answer(body: dict[str, Any]) -> bytes:
        if field not in body:
            wrong = "max_tokens" if "max_tokens" in body else "max_completion_tokens"
            return error(400, {"error": {"message": f"Unsupported parameter: '{wrong}'"}})
        return text("Hi.")

    async with asking_server(MAX_OUTPUT_TOKENS="77") as (upstream, client, _):
        upstream.add("limit", answer)
        for _ in range(2):
            assert text_of(await read(client, message="limit")) == "Hi."
        last = upstream.requests["limit"][-1]
        assert last[field] == 77
        assert ("max_tokens" in last) != ("max_completion_tokens" in last)
        assert len(upstream.requests["limit"]) == (2 if field == "max_completion_tokens" else 3)


@pytest.mark.parametrize(
    ("status", "requests"), [(400, [2, 1, 1]), (422, [2, 1, 1]), (500, [2, 2, 1])]
)
async def test_rejected_stream_options_are_omitted_and_the_rejection_is_remembered(
    status: int, requests: list[int]
) -> None:
    def answer(body: dict[str, Any]) -> bytes:
        if "stream_options" in body:
            return error(status, {"detail": "Extra inputs are not permitted"})
        return text("Hi.")

    async with asking_server() as (upstream, client, _):
        for number, expected in enumerate(requests):
            upstream.add(f"q{number}", answer)
            assert text_of(await read(client, message=f"q{number}")) == "Hi."
            assert len(upstream.requests[f"q{number}"]) == expected


# Window


async def test_a_rejected_question_is_sent_again_within_the_window_that_the_error_states() -> None:
    def answer(body: dict[str, Any]) -> bytes:
        size = size_of(body)
        if size <= 2048:
            return text("Word. " * 300)
        message = f"request ({size} tokens) exceeds the available context size (2048 tokens)"
        return error(400, {"error": {"message": message, "type": "exceed_context_size_error"}})

    async with asking_server() as (upstream, client, _):
        for number in range(12):
            upstream.add(f"q{number}", answer)
            events = await read(client, message=f"q{number} " + "word " * 150)
            assert events[-1].event == "end"
        counts = [len(upstream.requests[f"q{number}"]) for number in range(12)]
        assert sorted(counts) == [1] * 11 + [2], "only the first rejection costs a request"


async def test_a_question_that_cannot_fit_fails_with_the_servers_numbers() -> None:
    message = (
        "This model's maximum context length is 512 tokens. However, you requested 900 tokens."
    )
    async with asking_server() as (upstream, client, _):
        upstream.add("long", error(400, {"error": {"message": message}}))
        failure = failure_of(await read(client, message="long question"))
        assert failure["type"] == "context_length"
        assert "CONTEXT_TOKENS" in failure["message"]
        assert "512" in failure["message"]
        assert len(upstream.requests["long"]) == 1


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({"meta": {"n_ctx": 1024}, "owned_by": "llamacpp"}, 768),
        ({"id": "model.gguf", "meta": {"n_ctx": 1024}, "owned_by": "llamacpp"}, 768),
        ({"max_model_len": 2000}, 1500),
        ({"max_model_len": "many"}, 12_000),
        ({"max_model_len": 900_000}, 32_000),
        ({}, 12_000),
    ],
)
async def test_the_history_takes_a_part_of_the_window_that_the_server_states(
    fields: dict[str, Any], most: int
) -> None:
    async with raw_upstream() as upstream:
        upstream.models = model_list(**fields)
        async with (
            server_for(upstream, MESSAGE_MAX="1000000") as server,
            httpx.AsyncClient(base_url=server.url, timeout=60) as client,
        ):
            await until_asked_for_models(upstream)
            piece = "word " * (most // 10)  # an eighth of the budget
            for number in range(12):
                upstream.add(f"q{number}", text("Hi."))
                events = await client.post(
                    "/api/chat_stream/", json={"message": f"q{number} {piece}"}
                )
                assert "event: end" in events.text
            size = size_of(upstream.requests["q11"][0])
            assert 0.6 * most < size <= most


async def test_each_request_has_one_line_in_the_log_without_its_text() -> None:
    async with asking_server() as (upstream, client, server):
        first = stream(delta("saffron "), delta(finish="length"), {"usage": USAGE})
        upstream.add("logged", first, text("crimson"))
        await read(client, message="logged question")
        lines = [line for line in server.read_log().splitlines() if ", request " in line]
        assert len(lines) == 2
        assert lines[0].endswith("new, length, 5 tokens")
        assert lines[1].endswith("prompt after length, stop, unknown tokens")
        assert not any(word in server.read_log() for word in ("saffron", "crimson", "question"))


# Waiting and failing over


async def test_a_request_to_a_busy_upstream_is_repeated_after_the_time_that_it_names() -> None:
    async with asking_server() as (upstream, client, _):
        upstream.add("busy", error(429, {"error": "slow"}, Retry_After="1"), text("Hi."))
        began = time.monotonic()
        events = await read(client, message="busy")
        assert time.monotonic() - began >= 1
        waits = [json.loads(one.data) for one in events if one.event == "waiting"]
        assert waits[0] == {"why": "rate_limited", "seconds": 1}
        assert names_of(events) == ["turn", "waiting", "message", "usage", "end"]
        assert all(not one.id or one.event != "waiting" for one in events[:1])


async def test_the_next_upstream_gets_the_question_of_a_busy_one_immediately() -> None:
    async with (
        raw_upstream() as busy,
        raw_upstream() as other,
        server_for(busy, other) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        busy.add("busy", error(429, {"error": "slow"}, Retry_After="60"))
        other.add("busy", text("Hi."))
        assert text_of(await read(client, message="busy")) == "Hi."
        assert (len(busy.requests["busy"]), len(other.requests["busy"])) == (1, 1)


async def test_a_failure_of_a_request_that_may_have_begun_is_not_repeated() -> None:
    async with asking_server(UPSTREAM_TIMEOUT_S="1") as (upstream, client, _):
        upstream.add("broken", error(500, {"error": "boom"}))
        assert failure_of(await read(client, message="broken"))["type"] == "upstream"
        assert len(upstream.requests["broken"]) == 1


# Silence


class SlowUpstream:
    """Answers each request by a script: bytes are sent, a number is a pause in seconds."""

    def __init__(self) -> None:
        self.script: list[bytes | float] = []
        self.requests = 0
        self.running = 0
        self.most_running = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET"):
            writer.close()
            return
        self.requests += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            for step in self.script:
                if isinstance(step, bytes):
                    writer.write(step)
                    await writer.drain()
                else:
                    await asyncio.sleep(step)
        except ConnectionError:
            pass
        finally:
            self.running -= 1
            writer.close()


@asynccontextmanager
async def slow_upstream(
    *script: bytes | float, **settings: str
) -> AsyncIterator[tuple[SlowUpstream, httpx.AsyncClient]]:
    slow = SlowUpstream()
    slow.script = list(script)
    listener = await asyncio.start_server(slow.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    entry = {"base_url": url, "model": "m", "name": "slow", "concurrency": 1}
    async with (
        listener,
        holdline(UPSTREAMS=json.dumps([entry]), RATE_LIMIT="off", **settings) as server,
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
    ):
        yield slow, client


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
HELLO = b'data: {"choices":[{"delta":{"content":"Hello"}}]}\n\n'
COMMENTS: list[bytes | float] = [b": wait\n\n", 0.3] * 60
COMMENTS_IN_EACH_TICK: list[bytes | float] = [b": hi\n\n", 0.01] * 1500
INTERIM: list[bytes | float] = [b"HTTP/1.1 100 Continue\r\n\r\n", 0.3] * 60
END = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'


@pytest.mark.parametrize(
    ("script", "kind", "answer"),
    [
        pytest.param([3.0], "timeout", "", id="not a byte"),
        pytest.param([HEAD, 3.0], "timeout", "", id="only the head"),
        pytest.param([HEAD, *COMMENTS[:16], HELLO, END], "end", "Hello", id="comments first"),
        pytest.param([HEAD, *COMMENTS], "timeout", "", id="only comments"),
        pytest.param([HEAD, *COMMENTS_IN_EACH_TICK], "timeout", "", id="comments in each tick"),
        pytest.param(
            [HEAD, HELLO, *COMMENTS_IN_EACH_TICK], "timeout", "Hello", id="the same after text"
        ),
        pytest.param(
            [HEAD, HELLO, END, *COMMENTS_IN_EACH_TICK], "end", "Hello", id="the same after the end"
        ),
        pytest.param([*INTERIM], "timeout", "", id="interim responses for ever"),
        pytest.param([HEAD, HELLO, *COMMENTS], "timeout", "Hello", id="comments after text"),
        pytest.param([HEAD, HELLO, END, 30.0], "end", "Hello", id="open after the finish reason"),
        pytest.param(
            [HEAD, HELLO, END, *COMMENTS],
            "end",
            "Hello",
            id="comments after the finish reason",
        ),
    ],
)
async def test_a_silent_upstream_receives_one_request_and_fails_in_time(
    script: list[bytes | float], kind: str, answer: str
) -> None:
    first_token_s = "4" if kind == "timeout" and not answer else "100"
    async with slow_upstream(
        *script, UPSTREAM_TIMEOUT_S="1", FIRST_TOKEN_TIMEOUT_S=first_token_s, CONTINUE_MAX="0"
    ) as (slow, client):
        events = await read(client, message="question")
        assert text_of(events) == answer
        ending = events[-1].event
        assert (failure_of(events)["type"] if ending == "failed" else ending) == kind
        assert slow.requests == 1


async def test_questions_wait_for_a_slot_of_the_server_and_see_their_position() -> None:
    async with slow_upstream(HEAD, HELLO, 0.5, END) as (slow, client):
        async with (
            httpx.AsyncClient(base_url=client.base_url, timeout=60) as second,
            httpx.AsyncClient(base_url=client.base_url, timeout=60) as third,
        ):
            asking = [read(one, message="question") for one in (client, second, third)]
            found = await asyncio.gather(*asking)
        assert [text_of(events) for events in found] == ["Hello"] * 3
        assert slow.most_running == 1
        positions = sorted(
            json.loads(one.data)["position"]
            for events in found
            for one in events
            if one.event == "waiting"
        )
        assert positions == [1, 1, 2]
