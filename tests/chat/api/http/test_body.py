"""Large bodies: complete, at the pace of their reader, and given up with one that reads nothing."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sanic import HTTPResponse, Request, Sanic
from sanic.response import BaseHTTPResponse

from chat.api.http.body import send_body
from chat.api.http.server import HttpServer
from tests.processes import PATIENCE_S

SLICE = 64 << 10
SIZES = [0, 1, SLICE - 1, SLICE, SLICE + 1, 2 * SLICE, 5 * SLICE + 7]
UNREAD = 16 << 20
"""More than the buffers of the kernel hold."""


def body_of(size: int) -> bytes:
    return bytes(number % 251 for number in range(min(size, 251))) * (size // 251 + 1)


@pytest_asyncio.fixture(scope="module")
async def served() -> AsyncIterator[tuple[int, asyncio.Event]]:
    """Serve `/<size>`, a body of this size; yield the port, and an event at the end of one."""
    app: Sanic[Any, Any] = Sanic("bodies", configure_logging=False)
    Sanic.unregister_app(app)
    # TOUCHUP alters Sanic's own methods, which works once in a process.
    app.config.update(
        MOTD=False, TOUCHUP=False, GRACEFUL_SHUTDOWN_TIMEOUT=0.1, GRACEFUL_TCP_CLOSE_TIMEOUT=0.1,
        RESPONSE_TIMEOUT=1,
    )  # fmt: skip
    ended = asyncio.Event()

    async def serve(request: Request, size: int) -> HTTPResponse | None:
        try:
            return await send_body(request, body_of(size)[:size], "text/plain")
        finally:
            ended.set()

    async def add_header(request: Request, response: BaseHTTPResponse) -> None:
        response.headers["X-Added"] = "yes"

    app.add_route(serve, "/<size:int>", methods=["GET", "HEAD"])
    app.register_middleware(add_header, "response")
    listener = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(app, 100, 100, [])
    await server.start(listener)
    yield listener.getsockname()[1], ended
    await server.stop()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_body_of_any_size_has_its_length_and_every_header(
    served: tuple[int, asyncio.Event], method: str
) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{served[0]}") as client:
        for size in SIZES:  # on one connection
            response = await client.request(method, f"/{size}")
            assert response.headers["content-length"] == str(size)
            assert "transfer-encoding" not in response.headers
            assert response.headers["x-added"] == "yes"
            assert response.content == (body_of(size)[:size] if method == "GET" else b"")


@pytest.mark.parametrize("size", SIZES)
async def test_an_http_1_0_client_gets_a_body_of_any_size(
    served: tuple[int, asyncio.Event], size: int
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served[0])
    writer.write(f"GET /{size} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE_S):
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    writer.close()
    assert f"content-length: {size}\r\n".encode() in head.lower() + b"\r\n"
    assert body == body_of(size)[:size]


async def test_the_connection_of_an_unread_body_is_closed_after_the_response_timeout(
    served: tuple[int, asyncio.Event],
) -> None:
    port, ended = served
    ended.clear()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET /{UNREAD} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    received = 0
    async with asyncio.timeout(PATIENCE_S):
        await ended.wait()
        with suppress(ConnectionError):
            while data := await reader.read(1 << 20):
                received += len(data)
    assert received < UNREAD
    writer.close()
