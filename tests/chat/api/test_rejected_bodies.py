"""A request that is rejected before its body has arrived: the client reads the response."""

import asyncio
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.processes import Server

_PIECE = b"x" * 65_536


def _encode(size: int, is_chunked: bool) -> Iterator[bytes]:
    for _ in range(size // len(_PIECE)):
        yield b"%x\r\n%b\r\n" % (len(_PIECE), _PIECE) if is_chunked else _PIECE
    if is_chunked:
        yield b"0\r\n\r\n"


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("size", [2 << 20, 16 << 20])
@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("POST /api/chat_stream/", 413),
        ("PATCH /api/conversations/aaaaaaaaaaaaaaaa", 413),
        ("POST /nothing", 404),
        ("POST /healthz", 405),
    ],
)
async def test_a_client_that_sends_its_whole_body_first_reads_the_error(
    server: Server, request_line: str, status: int, size: int, is_chunked: bool
) -> None:
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    length = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {size}"
    writer.write(
        f"{request_line} HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Content-Type: application/json\r\n{length}\r\n\r\n".encode()
    )
    for piece in _encode(size, is_chunked):
        writer.write(piece)
        await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    assert head.startswith(f"HTTP/1.1 {status} ")
    assert b'"message"' in await reader.read(1000)
    writer.close()
