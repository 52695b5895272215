"""Deadlines: a request that arrives too slowly is ended, byte by byte or not; a response is not."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import pytest_asyncio
from sanic import HTTPResponse, Request, Sanic
from sanic.response import text

from chat.api.http import connection
from chat.api.http.server import HttpServer
from tests.processes import PATIENCE_S

HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\n"
SHORT_S = 0.3


@pytest_asyncio.fixture(scope="module")
async def port() -> AsyncIterator[int]:
    """Serve with short deadlines: `POST /` returns its body, `GET /slow` takes five of them.

    `GET /stuck` never responds, and has a short response timeout.
    """
    patch = pytest.MonkeyPatch()
    patch.setattr(connection, "HEAD_TIMEOUT_S", SHORT_S)
    patch.setattr(connection, "BODY_TIMEOUT_S", SHORT_S)
    patch.setattr(connection, "_CHECK_INTERVAL_S", SHORT_S / 3)
    app: Sanic[Any, Any] = Sanic("deadlines", configure_logging=False)
    Sanic.unregister_app(app)
    app.config.MOTD = False
    app.config.TOUCHUP = False  # it alters Sanic's own methods, which works once in a process
    app.config.GRACEFUL_SHUTDOWN_TIMEOUT = 0.1

    @app.post("/")
    async def echo(request: Request) -> HTTPResponse:
        return text(request.body.decode())

    @app.get("/slow")
    async def send_slowly(request: Request) -> None:
        response = await request.respond(content_type="text/plain")
        for _ in range(10):
            await asyncio.sleep(SHORT_S / 2)
            await response.send("x")
        await response.eof()

    @app.get("/stuck")
    async def wait_forever(request: Request) -> None:
        protocol: Any = request.protocol
        protocol.response_timeout = SHORT_S
        await asyncio.Event().wait()

    listener = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(app, 100, 100, [])
    await server.start(listener)
    yield listener.getsockname()[1]
    await server.stop()
    patch.undo()


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def drip(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send a byte at a time, until the connection is closed."""
    with suppress(ConnectionError):
        for byte in data:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(SHORT_S / 10)


async def read_to_close(reader: asyncio.StreamReader) -> bytes:
    received = b""
    async with asyncio.timeout(PATIENCE_S):
        with suppress(ConnectionError):
            while part := await reader.read(65536):
                received += part
    return received


@pytest.mark.parametrize("sent", [b"", b"P", HEAD, HEAD + b"Content-Length: 2\r\n"])
async def test_a_head_that_does_not_arrive_in_time_ends_the_connection(
    port: int, sent: bytes
) -> None:
    async with connect(port) as (reader, writer):
        writer.write(sent)
        received = await read_to_close(reader)
    assert received.startswith(b"HTTP/1.1 408 " if sent else b"")


@pytest.mark.parametrize("first", [b"", HEAD + b"Content-Length: 2\r\n\r\n{}"])
async def test_a_head_that_drips_ends_the_connection_of_a_first_or_later_request(
    port: int, first: bytes
) -> None:
    async with connect(port) as (reader, writer):
        writer.write(first)
        if first:
            await reader.readuntil(b"\r\n\r\n{}")
        dripping = asyncio.create_task(drip(writer, HEAD + b"X: " + b"x" * 1000))
        received = await read_to_close(reader)
        dripping.cancel()
    assert received.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: 1000\r\n\r\n", b"x" * 900),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 150),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"5;" + b"x" * 50),
    ],
)
async def test_a_body_that_drips_or_stops_ends_the_connection(
    port: int, framing: bytes, body: bytes
) -> None:
    for sent in (body, b""):
        async with connect(port) as (reader, writer):
            writer.write(HEAD + framing)
            dripping = asyncio.create_task(drip(writer, sent))
            received = await read_to_close(reader)
            dripping.cancel()
        assert received.startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_drips_in_time_is_accepted(port: int) -> None:
    async with connect(port) as (reader, writer):
        writer.write(HEAD + b"Content-Length: 3\r\n\r\n")
        await drip(writer, b"xyz")
        async with asyncio.timeout(PATIENCE_S):
            await reader.readuntil(b"\r\n\r\nxyz")


@pytest.mark.parametrize("body", [b"", b"Content-Length: 2\r\n"])
async def test_a_response_that_takes_longer_than_the_deadlines_is_complete(
    port: int, body: bytes
) -> None:
    """The second request announces a body that never arrives and is never read."""
    async with connect(port) as (reader, writer):
        writer.write(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n" + body + b"\r\n")
        async with asyncio.timeout(PATIENCE_S):
            received = await reader.readuntil(b"0\r\n\r\n")
    assert received.count(b"1\r\nx\r\n") == 10


@pytest.mark.parametrize(
    "body",
    [
        b"\r\n",
        b"Content-Length: 100\r\n\r\n",
        b"Content-Length: 100\r\n\r\nxyz",
        b"Transfer-Encoding: chunked\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nxyz",
    ],
)
async def test_a_late_response_ends_the_connection_even_if_the_body_has_not_arrived(
    port: int, body: bytes
) -> None:
    async with connect(port) as (reader, writer):
        writer.write(b"GET /stuck HTTP/1.1\r\nHost: localhost\r\n" + body)
        received = await read_to_close(reader)
    assert received.startswith(b"HTTP/1.1 503 ")


async def test_an_idle_connection_stays_open_between_requests(port: int) -> None:
    async with connect(port) as (reader, writer):
        for _ in range(2):
            writer.write(HEAD + b"Content-Length: 2\r\n\r\n{}")
            async with asyncio.timeout(PATIENCE_S):
                await reader.readuntil(b"\r\n\r\n{}")
            await asyncio.sleep(SHORT_S * 3)  # the silence is the test
