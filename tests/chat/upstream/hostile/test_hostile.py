"""A hostile upstream costs a bounded number of requests, and bounded memory and time.

Other users' answers continue meanwhile, and no client learns the upstream's address.
"""

import asyncio
import contextlib
import gzip
import json
import re
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import pytest_asyncio

from chat.errors import UpstreamError
from chat.upstream import client as upstream_client
from chat.upstream import moderations
from chat.upstream.client import Upstream
from chat.upstream.response.completion import Timeouts
from tests.chat.upstream.hostile.behaviours import (
    CHUNKED,
    COMPLETE,
    CONTINUE_MAX,
    EMPTY_BLOCK,
    HELLO,
    LONG_CALL,
    NESTED,
    OPEN,
    ROWS,
    SPACES,
    SSE,
    Row,
    begin_gzip,
    chunk,
    drip,
    fail,
    flood,
    hold,
    packed,
    say,
)
from tests.conftest import KEY
from tests.processes import PATIENCE_S, holdline
from tests.processes import Server as Holdline
from tests.raw_server import END, Serve, Server, raw_server
from tests.raw_upstream import DONE, STOP, delta, event
from tests.streams import asking, read, text_of

MAX_BYTES = 128 << 20
"""Memory that one behaviour may cost a worker."""

CALM = ["one ", "two ", "three ", "four"]


class HostileUpstream:
    """Answers each question by the behaviour of its first word; `calm` is a well-behaved one."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.behaviours: dict[str, Serve] = {}
        self.requests: dict[str, int] = {}
        self.has_begun = asyncio.Event()
        self.may_continue = asyncio.Semaphore(0)
        server.serve = self._serve

    @property
    def port(self) -> int:
        return self._server.port

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.port}/tenant-4711/v1"

    def add(self, case: str, serve: Serve) -> None:
        self.behaviours[case] = serve
        self.requests[case] = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server.heads[-1].startswith(b"GET"):
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return
        messages = json.loads(self._server.bodies[-1])["messages"]
        asked = [one["content"] for one in messages if one["role"] == "user"]
        case = next(text.split()[0] for text in asked if text.split()[0] in self.behaviours)
        self.requests[case] += 1
        await self.behaviours[case](reader, writer)

    async def answer_calmly(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Send each delta when the test has received the previous one."""
        writer.write(CHUNKED)
        for text in CALM:
            await self.may_continue.acquire()
            writer.write(chunk(event(delta(text))))
        writer.write(chunk(event(STOP) + DONE) + END)
        writer.close()

    def hides(self, text: str) -> bool:
        """Return whether a text contains no part of the upstream's address and key."""
        parts = ("127.0.0.1", "tenant-4711", KEY, KEY[-10:])
        port = re.search(rf"(?<![\w.-]){self._server.port}(?![\w.-])", text)
        return not (port or any(part in text for part in parts))


@pytest_asyncio.fixture(scope="module")
async def hostile() -> AsyncIterator[HostileUpstream]:
    async with raw_server() as server:
        yield HostileUpstream(server)


@pytest_asyncio.fixture(scope="module")
async def attacked(hostile: HostileUpstream) -> AsyncIterator[Holdline]:
    """Yield a server whose upstream is hostile."""
    async with holdline(
        OPENAI_BASE_URL=hostile.base_url,
        OPENAI_API_KEY=KEY,
        CHAT_MODEL="m",
        RATE_LIMIT="off",
        CONTINUE_MAX=str(CONTINUE_MAX),
        UPSTREAM_TIMEOUT_S="3",
        FIRST_TOKEN_TIMEOUT_S="6",  # more than the 5 s in which the body of an error is read
        TURN_MAX_S="10",
    ) as server:
        yield server


def find_workers(server: Holdline) -> list[psutil.Process]:
    return [
        process
        for process in psutil.Process(server.process.pid).children(recursive=True)
        if "python" in process.name()
    ]


def reset_peak(process: psutil.Process) -> int:
    """Forget the peak of a process's memory, and return the memory that it uses now, in bytes."""
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")
    return int(process.memory_info().rss)


def read_peak(process: psutil.Process) -> int:
    """Return the peak of a process's memory in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert found
    return int(found[1]) << 10


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_a_hostile_upstream_is_bounded_and_delays_no_other_answer(
    attacked: Holdline, hostile: HostileUpstream, row: Row
) -> None:
    case = f"case{ROWS.index(row)}"
    has_begun = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        has_begun.set()
        await row.serve(reader, writer)

    hostile.add(case, serve)
    hostile.add(f"calm-{case}", hostile.answer_calmly)
    before = {worker: reset_peak(worker) for worker in find_workers(attacked)}
    async with (
        asyncio.timeout(PATIENCE_S),
        httpx.AsyncClient(base_url=attacked.url, timeout=60) as client,
        httpx.AsyncClient(base_url=attacked.url, timeout=60) as other,
    ):
        reading = asyncio.create_task(read(client, message=f"{case} {row.name}"))
        await has_begun.wait()
        async with asking(other, message=f"calm-{case}") as source:
            received = []
            async for one in source.aiter_sse():
                received.append(one)
                hostile.may_continue.release()
        assert received[-1].data == "".join(CALM)
        events = await reading
    last, usage = events[-1], next(one.data for one in events if one.event == "usage")
    if last.event == "failed":
        failure = json.loads(last.data)
        assert (failure["type"], row.message in failure["message"]) == (row.ending, True)
    else:
        assert (last.event, json.loads(usage)["finish_reason"]) == ("end", row.ending)
        assert last.data == text_of(events)
    assert row.text is None or text_of(events) == row.text
    assert hostile.requests[case] == row.requests
    assert all(hostile.hides(one.data) for one in events)
    assert hostile.hides(attacked.read_log())
    assert "Traceback" not in attacked.read_log()
    grown = {worker.pid: read_peak(worker) - used for worker, used in before.items()}
    assert all(worker.is_running() for worker in before)
    assert max(grown.values()) < MAX_BYTES


async def test_an_answer_that_is_cut_at_any_byte_costs_at_most_two_requests(
    attacked: Holdline, hostile: HostileUpstream
) -> None:
    choices = [{"delta": {"content": "Hello"}}], [{"delta": {"content": " world"}}]
    stop = event({"choices": [{"finish_reason": "stop"}]})
    parts = [*(event({"choices": one}) for one in choices), stop, DONE]
    whole = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    whole += b"".join(map(chunk, parts)) + END
    begun = [COMPLETE[:size] for size in range(len(COMPLETE) + 1)]
    prefixes = {first + again for first in begun for again in begun}  # each request sends the same
    several = asyncio.Semaphore(16)

    async def cut(at: int) -> None:
        hostile.add(f"cut{at}", say(whole[:at]))
        async with several, httpx.AsyncClient(base_url=attacked.url, timeout=60) as client:
            events = await read(client, message=f"cut{at}")
        assert text_of(events) in prefixes
        assert events[-1].event == "failed" or events[-1].data == text_of(events) != ""
        assert 1 <= hostile.requests[f"cut{at}"] <= 1 + CONTINUE_MAX

    await asyncio.gather(*map(cut, range(len(whole))))


SLOW = {
    "silence": hold(),
    "headers": drip(SSE, b"X-A: b\r\n"),
    "interim responses": drip(b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "an error": drip(b"HTTP/1.1 400 X\r\n\r\n", b"x"),
    "an error in gzip": drip(
        b"HTTP/1.1 500 X\r\nContent-Encoding: gzip\r\n\r\n" + begin_gzip(b"x"), EMPTY_BLOCK
    ),
    "a quota": say(fail(429, b"", b"Retry-After: 60")),
    "an event": drip(OPEN + b"data: ", b"x"),
    "comments": drip(OPEN, b": wait\n\n"),
    "an answer": drip(OPEN + HELLO, event(delta("."))),
    "an answer in gzip": drip(
        OPEN[:-2] + b"Content-Encoding: gzip\r\n\r\n" + begin_gzip(HELLO), EMPTY_BLOCK
    ),
    "an answer that has ended": drip(OPEN + HELLO + event(STOP), event(delta("."))),
}


async def test_turn_max_s_ends_every_response_that_drips(hostile: HostileUpstream) -> None:
    async with holdline(
        OPENAI_BASE_URL=hostile.base_url,
        CHAT_MODEL="m",
        RATE_LIMIT="off",
        TURN_MAX_S="3",
    ) as server:

        async def ask(number: int) -> tuple[str, int]:
            async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
                last = (await read(client, message=f"slow{number}"))[-1]
            return json.loads(last.data)["type"], hostile.requests[f"slow{number}"]

        for number, serve in enumerate(SLOW.values()):
            hostile.add(f"slow{number}", serve)
        async with asyncio.timeout(PATIENCE_S):
            found = await asyncio.gather(*map(ask, range(len(SLOW))))
    assert dict(zip(SLOW, found, strict=True)) == dict.fromkeys(SLOW, ("too_slow", 1))


NESTED_LISTS = b"[" * 700 + b"]" * 700

V1 = {
    "a tool call without an end": (
        flood(OPEN, event(delta(tool_calls=[LONG_CALL]))), "too_long"
    ),
    "a tool call of many fields": (
        flood(OPEN, event(delta(tool_calls=[{"index": 0, **{str(n): n for n in range(9999)}}]))),
        "timeout",
    ),
    "log probabilities without an end": (
        flood(OPEN, event({"choices": [{"index": 0, "logprobs": {"content": ["x" * 9999]}}]})),
        "too_long",
    ),
    "nested log probabilities": (
        say(OPEN + b'data: {"choices": [{"logprobs": %b}]}\n\n' % NESTED_LISTS),
        "invalid_response",
    ),
    "a nested tool call": (
        say(OPEN + b'data: {"choices": [{"delta": {"tool_calls": %b}}]}\n\n' % NESTED_LISTS),
        "tool_calls",
    ),
    "nested arguments": (
        say(
            OPEN + b'data: {"choices": [{"delta": {"function_call": {"arguments": 1, "x": %b}}}]}'
            b"\n\n" % NESTED_LISTS
        ),
        "invalid_response",
    ),
}  # fmt: skip


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("behaviour", V1.keys())
async def test_a_client_of_v1_gets_a_clear_error_from_a_hostile_upstream(
    attacked: Holdline, hostile: HostileUpstream, behaviour: str, streams: bool
) -> None:
    serve, ending = V1[behaviour]
    case = f"v1-{list(V1).index(behaviour)}-{streams}"
    hostile.add(case, serve)
    before = {worker: reset_peak(worker) for worker in find_workers(attacked)}
    body = {"model": "m", "messages": [{"role": "user", "content": case}], "stream": streams}
    async with (
        asyncio.timeout(PATIENCE_S),
        httpx.AsyncClient(base_url=attacked.url, timeout=60) as client,
    ):
        response = await client.post("/v1/chat/completions", json=body)
    assert ending in response.text[-1000:]
    assert hostile.hides(response.text)
    assert hostile.requests[case] == 1
    assert "Traceback" not in attacked.read_log()
    assert all(read_peak(worker) - used < MAX_BYTES for worker, used in before.items())


LEAKY_WORDS = "Cannot connect to {url} (host 127.0.0.1, port {port}) as tenant-4711 with {key}"

LEAKS: dict[str, Callable[[bytes], bytes]] = {
    "an error": lambda words: fail(500, json.dumps({"error": words.decode()}).encode()),
    "a rejected key": lambda words: fail(401, words),
    "a page": lambda words: fail(502, b"<html><title>%b</title>" % words),
    "a redirect": lambda words: fail(307, words, b"Location: http://127.0.0.1/tenant-4711"),
    "an unknown model": lambda words: fail(404, words),
    "a full context": lambda words: fail(400, b"maximum context length is 10 tokens. " + words),
    "a loading model": lambda words: fail(529, b"Loading model. " + words),
    "an error in the stream": lambda words: OPEN + event({"error": {"message": words.decode()}}),
    "an early end": lambda words: OPEN + event(delta(finish=f"error: {words.decode()}")),
    "an answer that is a page": lambda words: OPEN + b"<html><title>%b</title>" % words,
    "an answer that is words": lambda words: OPEN + words,
}


@pytest.mark.parametrize("leak", LEAKS.keys())
async def test_no_format_and_no_log_reveals_the_address_of_the_upstream(
    attacked: Holdline, hostile: HostileUpstream, leak: str
) -> None:
    words = LEAKY_WORDS.format(url=hostile.base_url, port=hostile.port, key=KEY)
    case = f"leak{list(LEAKS).index(leak)}"
    hostile.add(case, say(LEAKS[leak](words.encode())))
    chat = {"model": "m", "messages": [{"role": "user", "content": case}]}

    async def ask(method: str, url: str, **query: Any) -> str:
        async with httpx.AsyncClient(base_url=attacked.url, timeout=60) as client:
            with contextlib.suppress(httpx.RemoteProtocolError):  # a failed text has no end
                response = await client.request(method, url, **query)
                listed = await client.get("/api/conversations/")
                return f"{response.headers}{response.text}{listed.text}"
        return ""

    formats = "sse", "ndjson", "json", "text"
    bodies = [{**chat, "stream": streams} for streams in (False, True)]
    async with asyncio.timeout(PATIENCE_S):
        received = await asyncio.gather(
            *(
                ask("GET", "/api/chat_stream/", params={"message": case, "format": name})
                for name in formats
            ),
            *(ask("POST", "/v1/chat/completions", json=body) for body in bodies),
        )
    assert all(map(hostile.hides, received))
    assert hostile.hides(attacked.read_log())


PROBED = {
    "silence": hold(),
    "a closed connection": say(),
    "a redirect": say(fail(307, b"", b"Location: /")),
    "an error that drips": drip(b"HTTP/1.1 500 X\r\n\r\n", b"x"),
    "an endless error": flood(b"HTTP/1.1 500 X\r\n\r\n", b"x"),
    "endless headers": flood(SSE, b"X-A: b\r\n"),
    "an endless body": flood(OPEN + b'{"data": ["', b"x"),
    "a body that drips": drip(OPEN + b'{"data": ["', b"x"),
    "a bomb": say(packed(body=SPACES)),
    "a bomb in a bomb": say(packed(body=gzip.compress(SPACES), coding=b"gzip, gzip")),
    "nested JSON": say(OPEN + NESTED),
    "bytes": say(OPEN + bytes(range(256))),
}


@pytest.mark.parametrize("behaviour", PROBED.keys())
async def test_a_hostile_moderation_endpoint_gives_no_verdict_and_gets_two_requests(
    behaviour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moderations, "TIMEOUT_S", 3.0)
    async with raw_server() as server, asyncio.timeout(PATIENCE_S):
        server.serve = PROBED[behaviour]
        base_url = f"http://127.0.0.1:{server.port}/v1"
        endpoint = moderations.ModerationEndpoint(base_url=base_url, api_key=KEY, model="")
        tracemalloc.start()
        with pytest.raises(moderations.CheckFailed) as raised:
            await endpoint.is_flagged(["text"])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        await endpoint.close()
        assert peak < 32 << 20
        assert "127.0.0.1" not in str(raised.value)
        assert 1 <= len(server.bodies) <= 2


@pytest.mark.parametrize("behaviour", PROBED.keys())
async def test_a_hostile_list_of_models_is_ignored_and_requested_once(
    behaviour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_client, "_MODELS_TIMEOUT_S", 2.0)
    waiting = asyncio.Event()
    sleep = asyncio.sleep

    async def sleep_long(delay: float) -> None:
        if delay >= 30:  # the pause before the next request
            waiting.set()
            await asyncio.Event().wait()
        await sleep(delay)

    async with raw_server() as server, asyncio.timeout(PATIENCE_S):
        server.serve = PROBED[behaviour]
        upstream = Upstream(
            base_url=f"http://127.0.0.1:{server.port}/v1",
            api_key=KEY,
            timeouts=Timeouts(20, 20),
            name="u",
        )
        monkeypatch.setattr(asyncio, "sleep", sleep_long)
        tracemalloc.start()
        watching = asyncio.create_task(upstream.watch_models())
        await waiting.wait()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        watching.cancel()
        await asyncio.wait([watching])
        await upstream.close()
        assert peak < 32 << 20
        assert upstream.find_window("m") is None
        assert len(server.heads) == 1


@pytest.mark.parametrize("begin", [b"", b"\x16\x03\x03", b"HTTP/1.1 200 OK\r\n\r\n"])
async def test_a_tls_handshake_that_never_completes_fails_in_time(
    begin: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_client, "_CONNECT_TIMEOUT_S", 1.0)
    connections = 0

    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.write(begin)
        await reader.read()
        writer.close()

    server = await asyncio.start_server(stall, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    upstream = Upstream(
        base_url=f"https://127.0.0.1:{port}/v1",
        api_key=KEY,
        timeouts=Timeouts(20, 20),
        name="u",
    )
    async with asyncio.timeout(PATIENCE_S), server:
        with pytest.raises(UpstreamError) as raised:
            async with upstream.request([{"role": "user", "content": "question"}], "m"):
                pass
        await upstream.close()
    assert raised.value.kind == "unreachable"
    assert str(port) not in raised.value.message
    assert connections == 1
