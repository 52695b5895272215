"""Deviations from HTTP/1.1's framing: the body is complete, or the response is invalid."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import uvloop

from chat.upstream.http.client import ApiTransport
from chat.upstream.http.parser import InvalidResponseError
from chat.upstream.http.transport import BufferedBody, Transport
from tests.raw_server import END, Server, close_after, raw_server, respond

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n"
TEXT = b"5\r\nHello\r\n6\r\n world\r\n"

DEVIATIONS = {
    # Response, whether the server closes, whether the connection is used again.
    "Transfer-Encoding before Content-Length": (
        CHUNKED + b"Content-Length: 9999\r\n\r\n" + TEXT + END, False, False,
    ),
    "Transfer-Encoding after Content-Length": (
        OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + TEXT + END, False, False,
    ),
    "Transfer-Encoding: identity": (
        OK + b"Transfer-Encoding: identity\r\n\r\nHello world", True, False,
    ),
    "Transfer-Encoding: identity and Content-Length": (
        OK + b"Content-Length: 11\r\nTransfer-Encoding: identity\r\n\r\nHello world", True, False,
    ),
    "HTTP/1.0 without a length": (b"HTTP/1.0 200 OK\r\n\r\nHello world", True, False),
    "HTTP/1.0 with chunks": (
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + TEXT + END, True, False,
    ),
    "HTTP/1.1 without a length": (OK + b"\r\nHello world", True, False),
    "header lines that end with LF": (
        b"HTTP/1.1 200 OK\nContent-Length: 11\nX-Two: 2\n\nHello world", False, True,
    ),
    "no reason phrase": (b"HTTP/1.1 200\r\nContent-Length: 11\r\n\r\nHello world", False, True),
    "a reason phrase in UTF-8": (
        "HTTP/1.1 200 très bien\r\nContent-Length: 11\r\n\r\nHello world".encode(), False, True,
    ),
    "lower-case headers": (OK + b"content-length:11\r\n\r\nHello world", False, True),
    "a folded header": (
        OK + b"X-Long: one\r\n two\r\n\tthree\r\nContent-Length: 11\r\n\r\nHello world",
        False, True,
    ),
    "a control character in a header": (
        OK + b"X-Odd: a\x01b\r\nContent-Length: 11\r\n\r\nHello world", False, True,
    ),
    "an empty line before the response": (
        b"\r\n" + OK + b"Content-Length: 11\r\n\r\nHello world", False, True,
    ),
    "chunk extensions": (
        CHUNKED + b'\r\n5;name=value;other="a b"\r\nHello\r\n6\r\n world\r\n0;last\r\n\r\n',
        False, True,
    ),
    "padded chunk sizes": (
        CHUNKED + b"\r\n0005\r\nHello\r\n006 \r\n world\r\n000\r\n\r\n", False, True,
    ),
    "no line end after a chunk": (CHUNKED + b"\r\n5\r\nHello6\r\n world" + END, False, True),
    "trailers": (
        CHUNKED + b"Trailer: X-Sum\r\n\r\n" + TEXT + b"0\r\nX-Sum: 1\r\nX-More: 2\r\n\r\n",
        False, True,
    ),
    "interim responses": (
        b"HTTP/1.1 100\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
        b"HTTP/1.1 103 Early Hints\r\nLink: x\r\nContent-Length: 3\r\n\r\n"
        + CHUNKED + b"\r\n" + TEXT + END,
        False, True,
    ),
    "an upgrade that is offered": (
        CHUNKED + b"Upgrade: h2,h2c\r\nConnection: Upgrade\r\n\r\n" + TEXT + END, False, True,
    ),
    "Connection: close and an open connection": (
        OK + b"Connection: close\r\nContent-Length: 11\r\n\r\nHello world", False, False,
    ),
}  # fmt: skip

INVALID = {
    "another protocol": b"220 mail.example ESMTP\r\n",
    "a page without a header": b"<html>Hello world</html>",
    "a chunk size in letters": CHUNKED + b"\r\nzz\r\nHello\r\n" + END,
    "two different lengths": OK + b"Content-Length: 11\r\nContent-Length: 12\r\n\r\nHello world!",
    "a length in letters": OK + b"Content-Length: eleven\r\n\r\nHello world",
    "a line without a colon": OK + b"Nonsense\r\nContent-Length: 11\r\n\r\nHello world",
    "HTTP/2": b"HTTP/2 200 OK\r\nContent-Length: 11\r\n\r\nHello world",
    "another protocol by an upgrade": (
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
    ),
    "interim responses without an end": b"HTTP/1.1 100 Continue\r\n\r\n" * 10_000,
    "headers without an end": OK + b"X-Long: x\r\n" * 20_000,
}  # fmt: skip


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    async with raw_server() as started:
        yield started


@pytest_asyncio.fixture
async def client(server: Server) -> AsyncIterator[httpx2.AsyncClient]:
    url = f"http://127.0.0.1:{server.port}"
    async with httpx2.AsyncClient(transport=Transport(), base_url=url, timeout=20) as found:
        yield found


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize(("raw", "closes", "is_kept"), DEVIATIONS.values(), ids=DEVIATIONS.keys())
async def test_a_response_that_deviates_is_received_completely(
    client: httpx2.AsyncClient, server: Server, raw: bytes, closes: bool, is_kept: bool, size: int
) -> None:
    sending = respond(*(raw[at : at + size] for at in range(0, len(raw), size)))
    server.serve = close_after(sending) if closes else sending
    for _ in range(2):
        response = await client.post("/", content=b"question")
        assert (response.status_code, response.content) == (200, b"Hello world")
    assert len(server.bodies) == 2
    assert server.connections == (1 if is_kept else 2)


@pytest.mark.parametrize("raw", INVALID.values(), ids=INVALID.keys())
async def test_a_malformed_response_is_invalid_and_not_requested_again(
    client: httpx2.AsyncClient, server: Server, raw: bytes
) -> None:
    server.serve = respond(raw)
    with pytest.raises(InvalidResponseError):
        await client.post("/", content=b"question")
    assert len(server.bodies) == 1


async def test_chunk_sizes_that_end_with_lf_give_the_text_before_the_end(
    client: httpx2.AsyncClient, server: Server
) -> None:
    """The parser does not recognise the end of such a body; its content ends before."""
    raw = b"HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n5\nHello\n6\n world\n0\n\n"
    server.serve = respond(raw)
    received = b""
    async with client.stream("POST", "/") as response:
        async for part in response.aiter_bytes():
            received += part
            if received == b"Hello world":
                break
    assert len(server.bodies) == 1


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_response_that_precedes_the_end_of_its_request_is_received(
    run: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    async def request() -> None:
        connections, received = 0, asyncio.Event()

        async def reject(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\n\r\ntoo large")
            if connections > 1:
                await received.wait()
            writer.close()  # with unread bytes: the system resets the connection
            await asyncio.wait([asyncio.ensure_future(writer.wait_closed())])

        server = await asyncio.start_server(reject, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with httpx2.AsyncClient(transport=Transport(), timeout=20) as client:
            for _ in range(3):
                response = await client.post(url, content=bytes(16 << 20))
                assert (response.status_code, response.content) == (413, b"too large")
        assert connections == 3, "a connection with half a request is not used again"
        received.set()
        server.close()

    run(request())


@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw deflate"])
async def test_a_compressed_stream_is_decoded_as_it_arrives(
    client: httpx2.AsyncClient, server: Server, coding: str
) -> None:
    window = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS, "raw deflate": -15}[coding]
    received = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        packer = zlib.compressobj(wbits=window)
        header = CHUNKED + b"Content-Encoding: %b\r\n\r\n" % coding.split()[-1].encode()
        writer.write(header)
        for part in (b"Hello", b" world"):
            packed = packer.compress(part) + packer.flush(zlib.Z_SYNC_FLUSH)
            writer.write(b"%x\r\n%b\r\n" % (len(packed), packed))
            await writer.drain()
            await received.wait()
        writer.write(END)

    server.serve = serve
    async with (
        httpx2.AsyncClient(transport=ApiTransport(Transport()), timeout=20) as plain,
        plain.stream("POST", client.base_url) as response,
    ):
        body, parts = BufferedBody(response), list[bytes]()

        def take() -> None:
            while part := body.take():
                parts.append(part)
                received.set()

        body.notify_when_ready(take)
        await body.wait()
        take()
        await body.aclose()
    assert parts == [b"Hello", b" world"]
