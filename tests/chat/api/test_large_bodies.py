"""Clients that do not read a large body cost a bounded memory, and nobody else waits."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio

from sessions import keys
from sessions.client.connection import Client
from tests.chat.api.test_conversations import LIST
from tests.chat.turns.test_prompt_cost import owner_of
from tests.chat.upstream.hostile.test_hostile import find_workers, read_peak, reset_peak
from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S, Server, holdline
from tests.streams import ask, cookie_of

CONNECTIONS = 24
AT_ONCE = 4
LARGE = 500_000
EXPORT_MESSAGES = 40
"""Together more than the buffers of the kernel hold."""

COSTLY = "//a.b/" * 10_000
"""A text whose rendering is stopped after its time limit."""


@pytest_asyncio.fixture(scope="module")
async def own(redis_url: str, upstream: ScriptedUpstream) -> AsyncIterator[Server]:
    """Yield a server whose memory is that of this module's requests."""
    async with holdline(
        REDIS_URL=redis_url, OPENAI_BASE_URL=upstream.base_url, CHAT_MODEL="m", RATE_LIMIT="off"
    ) as started:
        yield started


@pytest_asyncio.fixture
async def reader(own: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=own.url, timeout=PATIENCE_S) as client:
        yield client


async def store_messages(
    client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    redis: Client,
    question: str,
    count: int,
) -> str:
    """Ask a question, append large messages, and return the path of the conversation."""
    events = await ask(client, upstream, question, "first")
    conversation = json.loads(events[0].data)["conversation"]
    owner = await owner_of(redis, conversation)
    name = f"holdline:{{{owner}}}:conversation:{conversation}"
    head = (await redis.hget(name, "head")).decode()
    for number in range(count):
        body = {"role": "user", "content": "x" * LARGE, "created": 1, "turn": "t" * 16}
        key = f"holdline:{{{owner}}}:messages:{conversation}"
        await redis.hset(key, f"large-{number:010}", f"{head}\n{json.dumps(body)}")
        head = f"large-{number:010}"
    await redis.hset(name, "head", head)
    return f"{LIST}{conversation}"


async def send_request(
    stack: ExitStack, client: httpx.AsyncClient, path: str
) -> tuple[socket.socket, asyncio.Task[bytes]]:
    """Send a GET, and return its connection, and the task that receives the first byte only."""
    loop, url = asyncio.get_running_loop(), urlsplit(str(client.base_url))
    connection = stack.enter_context(socket.socket())
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    await loop.sock_connect(connection, (url.hostname, url.port))
    lines = [f"GET {path} HTTP/1.1", f"Host: {url.netloc}", "User-Agent: raw"]
    lines += [f"Cookie: {cookie_of(client)}", "", ""]
    await loop.sock_sendall(connection, "\r\n".join(lines).encode())
    return connection, asyncio.create_task(loop.sock_recv(connection, 1))


@pytest.mark.parametrize("query", ["", "?limit=10"])
async def test_conversations_that_a_session_does_not_read_cost_a_bounded_memory(
    own: Server, reader: httpx.AsyncClient, upstream: ScriptedUpstream, redis: Client,
    question: str, query: str,
) -> None:  # fmt: skip
    path = await store_messages(reader, upstream, redis, question, 9)
    assert len((await reader.get(path + query)).content) > 9 * LARGE
    (worker,) = find_workers(own)
    before = reset_peak(worker)
    with ExitStack() as stack:
        begun = [await send_request(stack, reader, path + query) for _ in range(CONNECTIONS)]
        waiting = {receiving: connection for connection, receiving in begun}
        unread: list[socket.socket] = []
        while waiting:
            done, _ = await asyncio.wait(
                waiting, timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED
            )
            assert done
            unread += [waiting.pop(receiving) for receiving in done]
            assert len(unread) <= AT_ONCE
            assert (await reader.get(LIST)).status_code == 200
            async with httpx.AsyncClient(base_url=own.url, timeout=PATIENCE_S) as other:
                assert (await other.post(LIST, json={})).status_code == 201
                (listed,) = (await other.get(LIST)).json()["conversations"]
                assert (await other.get(LIST + listed["id"])).status_code == 200
            if len(unread) == AT_ONCE:
                unread.pop(0).close()
    grown = read_peak(worker) - before
    assert grown < CONNECTIONS * 9 * LARGE / 2


@pytest.mark.parametrize("kind", ["json", "markdown", "html"])
async def test_an_export_runs_until_its_file_has_been_read(
    reader: httpx.AsyncClient, upstream: ScriptedUpstream, redis: Client, question: str, kind: str
) -> None:
    path = await store_messages(reader, upstream, redis, question, EXPORT_MESSAGES)
    path = f"{path}/export?format={kind}"
    with ExitStack() as stack:
        _, receiving = await send_request(stack, reader, path)
        async with asyncio.timeout(PATIENCE_S):
            await receiving
        assert (await reader.get(path)).status_code == 429
    async with asyncio.timeout(PATIENCE_S):
        while (exported := await reader.get(path)).status_code == 429:
            await asyncio.sleep(0.05)
    assert exported.status_code == 200
    assert len(exported.content) > EXPORT_MESSAGES * LARGE


async def test_exports_of_many_sessions_of_an_address_delay_no_other_address(
    own: Server, upstream: ScriptedUpstream, redis: Client, question: str
) -> None:
    """Each costly export takes two seconds in a process, of which the worker has two."""
    paths, claims = {}, []
    async with AsyncExitStack() as stack:
        for number, text in enumerate([COSTLY] * 6 + ["an answer"]):
            client = httpx.AsyncClient(base_url=own.url, timeout=PATIENCE_S)
            await stack.enter_async_context(client)
            client.headers["X-Forwarded-For"] = "192.0.2.1" if text == COSTLY else "192.0.2.2"
            events = await ask(client, upstream, f"{number} {question}", text)
            conversation = json.loads(events[0].data)["conversation"]
            paths[client] = f"{LIST}{conversation}/export?format=html"
            claims.append(keys.export(await owner_of(redis, conversation)))
        *hostile, other = paths.items()
        costly = [asyncio.create_task(client.get(path)) for client, path in hostile]
        async with asyncio.timeout(PATIENCE_S):
            while not all([await redis.exists(claim) for claim in claims[:-1]]):
                await asyncio.sleep(0.01)
        assert (await other[0].get(other[1])).status_code == 200
        assert sum(export.done() for export in costly) < 3
        for export in costly:
            assert (await export).status_code == 200
