"""The formats of the stream other than SSE: text, NDJSON and JSON."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from tests.fake_upstream import Exchange, ScriptedUpstream
from tests.processes import Server
from tests.streams import STREAM, ask, cookie_of

TEXTS = ("你好，", "\n\n  data: ", "<b>&\u2028\x85x 🙂")
ANSWER = "".join(TEXTS)

TYPES = {
    "sse": "text/event-stream; charset=utf-8",
    "text": "text/plain; charset=utf-8",
    "ndjson": "application/x-ndjson; charset=utf-8",
    "json": "application/json",
}


async def fetch(client: httpx.AsyncClient, method: str, **fields: str) -> httpx.Response:
    """Send a question in the query of a GET or in the body of a POST."""
    names = ("format", "end")
    query: dict[str, str] = {name: fields.pop(name) for name in names if name in fields}
    if method == "GET":
        return await client.get(STREAM, params={**query, **fields})
    return await client.post(STREAM, params=query, json=fields)


async def answered(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, method: str, question: str, **fields: str
) -> httpx.Response:
    """Return the response to a question that the upstream answers with TEXTS."""
    fetching = asyncio.create_task(fetch(client, method, message=question, **fields))
    await (await upstream.exchange(question)).answer(*TEXTS)
    return await fetching


def decode_lines(body: bytes) -> list[dict[str, Any]]:
    """Return the events of a body of JSON lines, as a client that splits like Python reads them."""
    return [json.loads(line) for line in body.decode().splitlines()]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("name", list(TYPES))
async def test_each_format_has_its_content_type_and_the_whole_answer(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, method: str, name: str
) -> None:
    response = await answered(client, upstream, method, question, format=name)
    assert response.status_code == 200
    assert response.headers["content-type"] == TYPES[name]
    assert response.headers["cache-control"] == "no-cache, no-transform"
    assert response.headers["x-accel-buffering"] == "no"
    if name == "text":
        assert response.content.decode() == ANSWER
    elif name == "json":
        body = response.json()
        assert body["answer"] == ANSWER
        assert body["finish_reason"] == "stop"
        assert body["usage"]["completion_tokens"] == 3
        conversation = (await client.get(f"/api/conversations/{body['conversation']}")).json()
        ids = [message["id"] for message in conversation["messages"]]
        assert ids == [body["question_id"], body["answer_id"]]
    elif name == "ndjson":
        events = decode_lines(response.content)
        assert [event["event"] for event in events if event["event"] != "message"] == [
            "turn", "usage", "end",
        ]  # fmt: skip
        assert "".join(e["data"] for e in events if e["event"] == "message") == ANSWER
        assert events[-1]["data"] == ANSWER


@pytest.mark.parametrize("name", ["message", "input", "prompt"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_question_may_be_called_input_or_prompt(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, method: str, name: str
) -> None:
    fetching = asyncio.create_task(fetch(client, method, format="text", **{name: question}))
    await (await upstream.exchange(question)).answer("yes")
    assert (await fetching).text == "yes"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "sse"),
        ("*/*", "sse"),
        ("text/plain, */*", "sse"),
        ("application/json, text/plain, */*", "sse"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "sse"),
        ("text/event-stream", "sse"),
        ("text/plain", "text"),
        ("TEXT/Plain; charset=utf-8", "text"),
        ("application/x-ndjson", "ndjson"),
        ("application/jsonl", "ndjson"),
        ("application/json", "json"),
        ("application/json, text/event-stream", "json"),
        ("application/json;q=0.5, text/event-stream", "sse"),
        ("text/html, text/plain;q=0.1", "text"),
        ("text/*", "sse"),
        ("", "sse"),
    ],
)
async def test_accept_chooses_the_format(
    client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    question: str,
    accept: str | None,
    expected: str,
) -> None:
    client.headers["Accept"] = accept or ""
    if accept is None:
        del client.headers["Accept"]
    response = await answered(client, upstream, "GET", question)
    assert response.headers["content-type"] == TYPES[expected]


@pytest.mark.parametrize(
    ("query", "accept", "status"),
    [
        ("format=xml", "*/*", 400),
        ("format=SSE", "*/*", 400),
        ("format=text&end=never", "*/*", 400),
        ("", "text/html", 406),
        ("", "image/*, text/plain;q=0", 406),
        ("", "nonsense", 406),
    ],
)
async def test_an_unknown_format_is_rejected_and_begins_nothing(
    client: httpx.AsyncClient, question: str, query: str, accept: str, status: int
) -> None:
    headers = {"Accept": accept}
    for response in (
        await client.get(f"{STREAM}?message={question}&{query}", headers=headers),
        await client.post(f"{STREAM}?{query}", json={"message": question}, headers=headers),
    ):
        assert response.status_code == status
        assert response.json()["error"]["message"]
    assert (await client.get("/api/conversations/")).json()["conversations"] == []


async def test_the_query_outweighs_accept(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    client.headers["Accept"] = "text/html"
    response = await answered(client, upstream, "GET", question, format="ndjson")
    assert response.headers["content-type"] == TYPES["ndjson"]


@pytest.mark.parametrize("name", ["sse", "text", "ndjson"])
async def test_each_piece_is_sent_when_it_arrives(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, name: str
) -> None:
    """The upstream sends a piece only after the client has received the one before."""
    asking = asyncio.create_task(upstream.exchange(question))
    query = {"message": question, "format": name}
    if name != "text":  # its headers are sent with the first text
        async with client.stream("GET", STREAM, params=query) as response:
            exchange = await asking
            await _exchange_pieces(exchange, response.aiter_raw(), name)
        return
    opening = asyncio.create_task(
        client.send(client.build_request("GET", STREAM, params=query), stream=True)
    )
    exchange = await asking
    await exchange.send_text("第0,")
    response = await opening
    await _exchange_pieces(exchange, response.aiter_raw(), name, begin=1)
    await response.aclose()


async def _exchange_pieces(
    exchange: Exchange, pieces: AsyncIterator[bytes], name: str, begin: int = 0
) -> None:
    received = b""
    for number in range(begin, 6):
        await exchange.send_text(f"第{number},")
        expected = f"第{number},"
        wanted = json.dumps(expected)[1:-1] if name == "ndjson" else expected
        while wanted.encode() not in received:
            piece = await anext(pieces)
            piece.decode()  # it ends between characters
            assert name == "text" or piece.endswith(b"\n")
            received += piece
    await exchange.finish()
    assert [piece async for piece in pieces] or name == "text"


@pytest.mark.parametrize("name", ["sse", "ndjson"])
async def test_end_brief_omits_the_second_copy_of_the_answer(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, name: str
) -> None:
    asking = asyncio.create_task(
        fetch(client, "GET", message=question, format=name, end="brief", turn="t" * 22)
    )
    await (await upstream.exchange(question)).answer("x" * 100_000)
    brief = (await asking).content
    assert max(map(len, brief.splitlines())) < 64 << 10
    assert 100_000 <= brief.count(b"x") < 101_000
    full = (await client.get(STREAM, params={"turn": "t" * 22, "format": name})).content
    assert max(map(len, full.splitlines())) > 100_000


async def test_ndjson_resumes_after_any_line(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    reading = asyncio.create_task(
        fetch(client, "GET", message=question, format="ndjson", turn="n" * 22)
    )
    exchange = await upstream.exchange(question)
    await exchange.chunk({"reasoning_content": "think\n"})
    for text in TEXTS:
        await exchange.send_text(text)
    await exchange.finish()
    lines = (await reading).content.splitlines(keepends=True)
    for count, line in enumerate(lines, 1):
        last_event_id = json.loads(line)["id"]
        rest = await client.get(STREAM, params={"last_event_id": last_event_id, "format": "ndjson"})
        assert rest.status_code == (204 if count == len(lines) else 200)
        assert rest.content == b"".join(lines[count:])
    restarted = decode_lines(
        (
            await client.get(STREAM, params={"last_event_id": f"{'n' * 22}.7", "format": "ndjson"})
        ).content
    )
    assert restarted[0]["event"] == "restart"
    assert restarted[1:] == decode_lines(b"".join(lines))


@pytest.mark.parametrize("name", list(TYPES))
async def test_every_format_has_the_answer_after_its_log_expired(
    client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    question: str,
    redis: Redis,
    name: str,
) -> None:
    events = await ask(client, upstream, question, *TEXTS)
    turn = json.loads(events[0].data)["turn"]
    (log,) = [key async for key in redis.scan_iter(f"holdline:*:records:{turn}")]
    before = await client.get(STREAM, params={"turn": turn, "format": name})
    await redis.delete(log)
    after = await client.get(STREAM, params={"turn": turn, "format": name})
    assert after.headers["content-type"] == TYPES[name]
    if name == "text":
        assert after.text == before.text == ANSWER
    elif name == "json":
        volatile = ("upstream", "first_token_ms")
        kept = {key: value for key, value in before.json().items() if key not in volatile}
        assert after.json() == kept
    else:
        assert ANSWER.replace("\n", "\ndata: ") in after.text or name == "ndjson"


async def test_a_text_is_complete_only_if_the_answer_is(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    """A client tells them apart as HTTP does: a body that is cut off is not complete."""
    opening = asyncio.create_task(
        fetch(client, "GET", message=question, format="text", **{"continue": "0"})
    )
    exchange = await upstream.exchange(question)
    await exchange.send_text("only half")
    await exchange.raw(b'data: {"error": {"message": "the model has crashed"}}\n\n')
    await exchange.end()
    with pytest.raises(httpx.RemoteProtocolError):
        await opening


@pytest.mark.parametrize("name", ["text", "json"])
@pytest.mark.parametrize(
    ("upstream_status", "status", "kind"),
    [(401, 502, "authentication"), (400, 400, "refused"), (404, 502, "not_found")],
)
async def test_a_failure_before_the_first_text_has_an_error_status(
    client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    question: str,
    name: str,
    upstream_status: int,
    status: int,
    kind: str,
) -> None:
    asking = asyncio.create_task(fetch(client, "GET", message=question, format=name))
    exchange = await upstream.exchange(question)
    exchange.reply(upstream_status, {"error": {"message": "no, thank you"}})
    response = await asking
    assert response.status_code == status
    assert response.json()["error"]["type"] == kind
    assert response.json()["error"]["message"]


async def test_a_json_failure_keeps_the_partial_answer(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    asking = asyncio.create_task(
        fetch(client, "GET", message=question, format="json", **{"continue": "0"})
    )
    exchange = await upstream.exchange(question)
    await exchange.send_text("only half")
    await exchange.raw(b'data: {"error": {"message": "the model has crashed"}}\n\n')
    await exchange.end()
    body = (await asking).json()
    assert body["answer"] == "only half"
    assert body["error"]["type"] == "upstream"


async def test_late_viewers_get_chunks_of_whole_frames_and_characters(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, server: Server
) -> None:
    text = "字🙂\n" * 60_000
    asking = asyncio.create_task(
        fetch(client, "GET", message=question, format="text", turn="c" * 22)
    )
    await (await upstream.exchange(question)).answer(
        *(text[i : i + 999] for i in range(0, len(text), 999))
    )
    assert (await asking).text == text
    cookie = cookie_of(client)
    for name in ("sse", "text", "ndjson"):
        chunks = await _read_chunks(
            server, f"{STREAM}?turn={'c' * 22}&format={name}&end=brief", cookie
        )
        assert len(chunks) > 20
        for chunk in chunks:
            chunk.decode()
            assert name == "text" or chunk.endswith(b"\n\n" if name == "sse" else b"\n")


async def _read_chunks(server: Server, path: str, cookie: str) -> list[bytes]:
    """Return the chunks of a chunked body, one by one (RFC 9112 §7.1)."""
    host, port = server.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 24)
    head = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nCookie: {cookie}\r\n"
    writer.write(f"{head}User-Agent: raw\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    chunks = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        chunks.append((await reader.readexactly(size + 2))[:-2])
    writer.close()
    return chunks
