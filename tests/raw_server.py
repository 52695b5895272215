"""A server whose responses are raw bytes, for tests of HTTP/1.1 itself."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Responds to each request as the test sets it; counts connections and records requests."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.closed = asyncio.Event()
        self.serve: Serve = self._close
        self.handling: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if task := asyncio.current_task():
            self.handling[task] = writer
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head.lower())
                self.heads.append(head)
                if b"\r\nexpect: 100-continue\r\n" in head.lower():
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                self.bodies.append(await reader.readexactly(int(length[1]) if length else 0))
                await self.serve(reader, writer)
                await writer.drain()
        self.closed.set()
        writer.close()

    async def _close(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()


@contextlib.asynccontextmanager
async def raw_server(port: int = 0) -> AsyncIterator[Server]:
    """Start a server on this port, or on a free one."""
    started = Server()
    listening = await asyncio.start_server(started.handle, "127.0.0.1", port, limit=1 << 24)
    started.port = listening.sockets[0].getsockname()[1]
    try:
        yield started
    finally:
        listening.close()
        for writer in started.handling.values():
            writer.transport.abort()
        if started.handling:
            await asyncio.wait(started.handling)


def respond(*parts: bytes) -> Serve:
    """Send these bytes, each part in its own packet if the socket permits it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    return serve


def close_after(serve: Serve) -> Serve:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(reader, writer)
        writer.close()

    return closing


def chunked(*parts: bytes) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body


END = b"0\r\n\r\n"
