"""Connections: HTTP/1.0, whose stream has no chunks and ends with the connection; invalid URLs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import pytest

from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S, Server


class Client:
    """A connection on which a test writes the request itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self, line: str, *headers: str) -> dict[str, str]:
        """Send a request and return the response's headers, with the status line as ""."""
        lines = [line, "Host: localhost", "User-Agent: raw", *headers]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        head = (await self.read_until(b"\r\n\r\n")).decode()
        status, *rest = head.strip().split("\r\n")
        pairs = (field.partition(": ") for field in rest)
        return {"": status, **{name.lower(): value for name, _, value in pairs}}

    async def read_until(self, end: bytes) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.readuntil(end)

    async def read_to_close(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()


@asynccontextmanager
async def connect(server: Server) -> AsyncIterator[Client]:
    """Open a connection, and close it after the test."""
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize("connection", [(), ("Connection: keep-alive",), ("Connection: close",)])
async def test_a_stream_to_an_http_1_0_client_is_raw_and_ends_with_the_connection(
    server: Server, upstream: ScriptedUpstream, question: str, connection: tuple[str, ...]
) -> None:
    path = f"/api/chat_stream/?message={question.replace(' ', '+')}"
    async with connect(server) as client:
        headers = await client.request(f"GET {path} HTTP/1.0", *connection)
        assert headers[""].endswith(" 200 OK")
        assert "transfer-encoding" not in headers
        assert "content-length" not in headers
        assert headers["connection"] == "close"
        body = await client.read_until(b"\n\n")
        exchange = await upstream.exchange(question)
        for text in ("one", "two", "three"):  # each arrives before the next is sent
            await exchange.send_text(text)
            body += await client.read_until(f"data: {text}\n".encode())
        await exchange.finish()
        body += await client.read_to_close()
    assert body.startswith(b"retry: 1000\nevent: turn\n")
    assert b"\nevent: end\ndata: onetwothree\nid: " in body
    assert b"\r\n" not in body


@pytest.mark.parametrize("name", ["sse", "text", "ndjson", "json"])
async def test_a_late_http_1_0_viewer_receives_the_bytes_of_an_http_1_1_viewer(
    server: Server, upstream: ScriptedUpstream, question: str, name: str
) -> None:
    path = f"/api/chat_stream/?message={question.replace(' ', '+')}"
    async with connect(server) as first:
        set_cookie = (await first.request(f"GET {path} HTTP/1.0"))["set-cookie"]
        await (await upstream.exchange(question)).answer("x" * 5000, "y")
        body = await first.read_to_close()
    turn = body.split(b"\nid: ")[1].split(b".")[0].decode()
    path = f"/api/chat_stream/?turn={turn}&format={name}"
    cookie = f"Cookie: {set_cookie.partition(';')[0]}"
    async with connect(server) as late, connect(server) as current:
        assert "transfer-encoding" not in await late.request(f"GET {path} HTTP/1.0", cookie)
        headers = await current.request(f"GET {path} HTTP/1.1", cookie, "Connection: close")
        read = read_chunks if "transfer-encoding" in headers else Client.read_to_close
        body = await read(current)
        assert b"xxxy" in body
        assert await late.read_to_close() == body


async def test_an_http_1_0_client_sees_that_an_answer_as_text_is_truncated(
    server: Server, upstream: ScriptedUpstream, question: str
) -> None:
    path = f"/api/chat_stream/?format=text&message={question.replace(' ', '+')}"
    async with connect(server) as client:
        requesting = asyncio.create_task(client.request(f"GET {path} HTTP/1.0"))
        exchange = await upstream.exchange(question)
        await exchange.send_text("a partial answer")
        assert "transfer-encoding" not in await requesting
        await client.read_until(b"a partial answer")
        exchange.drop()
        with pytest.raises(ConnectionResetError):
            await client.read_to_close()


async def read_chunks(client: Client) -> bytes:
    body = b""
    while size := int(await client.read_until(b"\r\n"), 16):
        async with asyncio.timeout(PATIENCE_S):
            body += await client.reader.readexactly(size)
        await client.read_until(b"\r\n")
    return body


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_complete_response_to_an_http_1_0_client_has_its_length(
    server: Server, method: str
) -> None:
    async with connect(server) as client:
        headers = await client.request(f"{method} /api/info HTTP/1.0")
        body = await client.read_to_close()
    assert headers["connection"] == "close"
    assert int(headers["content-length"]) > 2
    assert len(body) == (0 if method == "HEAD" else int(headers["content-length"]))


@pytest.mark.parametrize(
    "target",
    [
        b"/api/chat_stream/?message=secret\x7f",
        b"/api/chat_stream/?message=secret\x00",
        b"/api/chat_stream/?message=secret\x0b",
        b"http://[secret\xff/",
        b"api/chat_stream/?message=secret",
        b"secret",
        b"http://[secret/",
        b"//secret:port/",
    ],
)
async def test_an_invalid_url_gets_400_and_is_not_logged(server: Server, target: bytes) -> None:
    before = len(server.read_log())
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % target)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.split()[1] in (b"400", b"404")
    log = server.read_log()[before:]
    assert "secret" not in log
    assert "Traceback" not in log
    writer.close()


@pytest.mark.parametrize(
    "body",
    [b"Content-Length: 2\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"],
)
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"DELETE"])
async def test_a_body_that_is_not_used_is_discarded_and_not_logged(
    server: Server, method: bytes, body: bytes
) -> None:
    before = len(server.read_log())
    async with connect(server) as client:
        head = b"%b /api/conversations/ HTTP/1.1\r\nHost: localhost\r\nUser-Agent: raw\r\n" % method
        client.writer.write(head + body)
        assert (await client.read_until(b"\r\n\r\n")).split()[1] in (b"200", b"204")
        client.writer.write(
            b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        assert b"HTTP/1.1 200 OK\r\n" in await client.read_to_close()
    assert "/api/conversations/" not in server.read_log()[before:]
