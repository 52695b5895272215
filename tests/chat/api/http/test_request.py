"""A path prefix: the same routes with and without it, and one cookie for the host."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio

from tests.conftest import KEY
from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S, Server, holdline
from tests.streams import STREAM, asking


@pytest_asyncio.fixture(scope="module")
async def prefixed(redis_url: str, upstream: ScriptedUpstream) -> AsyncIterator[Server]:
    """Yield a server whose URL, which it prints, ends with a prefix of two segments."""
    async with holdline(
        REDIS_URL=redis_url, OPENAI_BASE_URL=upstream.base_url, OPENAI_API_KEY=KEY,
        CHAT_MODEL="m", BASE_PATH="/tools/chat/",
    ) as started:  # fmt: skip
        yield started


def open_client(server: Server) -> httpx.AsyncClient:
    parts = urlsplit(server.url)
    return httpx.AsyncClient(base_url=f"{parts.scheme}://{parts.netloc}", timeout=PATIENCE_S)


async def test_the_server_prints_its_address_with_the_prefix(prefixed: Server) -> None:
    assert urlsplit(prefixed.url).path == "/tools/chat"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/tools/chat/", 200),
        ("/tools/chat/js/app.js", 200),
        ("/tools/chat/api/info", 200),
        ("/tools/chat/healthz", 200),
        ("/tools/chat/readyz", 200),
        ("/healthz", 200),
        ("/readyz", 200),
        ("/api/info", 200),  # from a proxy that removes the prefix
        ("/tools/chat", 308),
        ("/tools/chat?x=/evil.example", 308),
        ("/tools", 404),
        ("/tools/", 404),
        ("/tools/chatter/", 404),
        ("/tools/chatapi/info", 404),
        ("/tools/chat//api/info", 404),
        ("/tools/chat/tools/chat/api/info", 404),
        ("/tools/chat/../../api/info", 404),
        ("/tools/%63hat/", 404),
    ],
)
async def test_a_path_is_served_with_the_prefix(prefixed: Server, path: str, status: int) -> None:
    address = urlsplit(prefixed.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nUser-Agent: raw\r\n\r\n"
    writer.write(head.encode())  # by hand, because a client library would normalise the path
    async with asyncio.timeout(PATIENCE_S):
        response = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert int(response.split()[1]) == status
    if status == 308:
        assert b"\r\nlocation: chat/\r\n" in response.lower()


async def test_a_session_and_its_stream_work_under_the_prefix(
    prefixed: Server, upstream: ScriptedUpstream, question: str
) -> None:
    async with open_client(prefixed) as client:
        client.headers["X-Forwarded-Proto"] = "https"
        response = await client.get("/tools/chat/")
        cookie = response.headers["set-cookie"]
        assert cookie.startswith("__Host-holdline-")
        assert "; Path=/; " in cookie
        client.headers["Cookie"] = cookie.partition(";")[0]
        client.base_url = httpx.URL(prefixed.url)
        async with asking(client, message=question) as source:
            await (await upstream.exchange(question)).answer("yes")
            assert [event.data async for event in source.aiter_sse()][-1] == "yes"
        (found,) = (await client.get("/api/conversations/")).json()["conversations"]
        assert found["title"] == question


@pytest.mark.parametrize("path", ["", "/tools/chat"])
async def test_the_origin_check_and_the_retry_of_a_stream_apply_with_and_without_the_prefix(
    prefixed: Server, path: str
) -> None:
    headers = {"Origin": "http://elsewhere.example"}
    async with open_client(prefixed) as client:
        response = await client.get(f"{path}{STREAM}?message=x", headers=headers)
        assert response.status_code == 403
        assert "set-cookie" not in response.headers
