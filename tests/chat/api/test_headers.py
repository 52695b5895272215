"""Headers of every response, and the log of rejected requests."""

import asyncio
from urllib.parse import urlsplit

import httpx
import pytest

from tests.fake_upstream import ScriptedUpstream
from tests.processes import Server, holdline
from tests.streams import ask

PATHS = ("/", "/docs", "/healthz", "/api/info", "/api/conversations/", "/api/nothing", "/v1/models")


@pytest.mark.parametrize("path", PATHS)
async def test_every_response_has_the_security_headers(
    client: httpx.AsyncClient, path: str
) -> None:
    headers = (await client.get(path)).headers
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "microphone=()" in headers["permissions-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert "strict-transport-security" not in headers
    https = {"X-Forwarded-Proto": "https"}
    headers = (await client.get(path, headers=https)).headers
    assert headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize("path", PATHS)
async def test_no_response_has_a_header_twice_or_without_a_value(
    client: httpx.AsyncClient, path: str
) -> None:
    headers = (await client.get(path)).headers.multi_items()
    names = [name for name, _ in headers]
    assert sorted(names) == sorted(set(names))
    assert [name for name, value in headers if not value] == []


async def test_conversations_and_exports_are_not_stored_by_caches(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    await ask(client, upstream, question, "an answer")
    (listed,) = (await client.get("/api/conversations/")).json()["conversations"]
    path = f"/api/conversations/{listed['id']}"
    for url in ("/api/conversations/", path, f"{path}/export", f"{path}/export?format=html"):
        response = await client.get(url)
        assert response.status_code == 200
        assert response.headers["cache-control"] == "no-store"


async def test_rejected_requests_are_logged_once_without_their_text(redis_url: str) -> None:
    settings = {"RATE_LIMIT": "1/hour", "MESSAGE_MAX": "10"}
    async with (
        holdline(REDIS_URL=redis_url, **settings) as server,
        httpx.AsyncClient(base_url=server.url) as client,
    ):
        for _ in range(3):
            foreign = {"Sec-Fetch-Site": "cross-site", "Referer": "https://a.example/secret"}
            response = await client.get("/api/conversations/?cursor=secret", headers=foreign)
            assert response.status_code == 403
            body = {"message": "secret" * 10}
            assert (await client.post("/api/chat_stream/", json=body)).status_code == 413
        await client.post("/api/chat_stream/", json={"message": "hello"})
        assert (await client.post("/api/chat_stream/", json={"message": "bye"})).status_code == 429
        log = server.read_log()
    for status in (403, 413, 429):
        assert log.count(f" with {status}: ") == 1
    assert "secret" not in log


MALFORMED = [
    b"GET /api/chat_stream/?message=secret%ff HTTP/1.1\r\nHost: localhost\r\n",
    b"GET /api/chat_stream/?message=secret%00&format=%zz HTTP/1.1\r\nHost: localhost\r\n",
    b"GET /api/conversations/secret%0a HTTP/1.1\r\nHost: localhost\r\n",
    b"GET /?secret HTTP/1.1\r\nHost: localhost\r\nCookie: holdline=secret\xff; =; ;;a\r\n",
    b"GET /?secret HTTP/1.1\r\nHost: localhost\r\nAccept: secret\xff;q=x\r\n",
    b"GET /?secret HTTP/1.1\r\nHost: secret:port\r\n",
    b"GET /?secret HTTP/1.1\r\nHost: localhost\r\nReferer: http://[secret\r\n",
    b"GET /?secret HTTP/9.9\r\nHost: localhost\r\n",
    b"SECRET /?secret HTTP/1.1\r\nHost: localhost\r\n",
    b"GET /?secret HTTP/1.1\r\nHost: localhost\r\nExpect: secret\r\nContent-Length: 3\r\n",
    b"GET /?secret HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n",
    b"GET http://[secret]/?secret HTTP/1.1\r\nHost: localhost\r\n",
    (
        b"POST /api/chat_stream/?secret HTTP/1.1\r\nHost: localhost\r\nUser-Agent: x\r\n"
        b"Content-Type: secret/\xff; charset=secret\r\nContent-Length: 6\r\n"
    ),
]


@pytest.mark.parametrize("head", MALFORMED)
async def test_a_malformed_request_leaves_none_of_its_text_in_the_log(
    server: Server, head: bytes
) -> None:
    before = len(server.read_log())
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(head + b"Connection: close\r\n\r\nsecret")
    await reader.read()
    writer.close()
    log = server.read_log()[before:]
    assert "secret" not in log.lower()
    assert "Traceback" not in log
