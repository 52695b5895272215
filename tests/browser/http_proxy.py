"""A reverse proxy in front of a server, which records each request that reaches the server."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import ClientSession, DummyCookieJar, web
from multidict import CIMultiDictProxy

from tests.processes import Server

Override = Callable[[web.Request], web.StreamResponse | None]
"""Returns the proxy's own response to a request, or None for that of the server."""

_HOP_BY_HOP = ("Connection", "Transfer-Encoding", "Keep-Alive")


@dataclass(frozen=True)
class Forwarded:
    """A request, and the status of its response."""

    method: str
    path: str
    headers: "CIMultiDictProxy[str]"
    status: int


class HttpProxy:
    """Forward requests with their `Host`, and remove a prefix from their paths."""

    def __init__(self, server: Server, session: ClientSession, removed: str) -> None:
        self.port = 0
        self.forwarded: asyncio.Queue[Forwarded] = asyncio.Queue()
        self.override: Override | None = None
        self._target = f"http://{urlsplit(server.url).netloc}"
        self._session = session
        self._removed = removed
        self._sending: set[asyncio.Transport] = set()

    def disconnect(self) -> None:
        """Close the connections of all responses that are being sent."""
        for transport in self._sending:
            transport.abort()

    async def forward(self, request: web.Request) -> web.StreamResponse:
        if self.override and (response := self.override(request)):
            return response
        path = request.raw_path.removeprefix(self._removed)
        async with self._session.request(
            request.method, self._target + path, headers=request.headers,
            data=await request.read() or None, allow_redirects=False,
        ) as upstream:  # fmt: skip
            assert request.transport
            self._sending.add(request.transport)
            forwarded = Forwarded(request.method, path, request.headers, upstream.status)
            self.forwarded.put_nowait(forwarded)
            response = web.StreamResponse(status=upstream.status)
            for name, value in upstream.headers.items():
                if name.title() not in _HOP_BY_HOP:
                    response.headers.add(name, value)
            await response.prepare(request)
            try:
                async for data in upstream.content.iter_any():
                    await response.write(data)
            finally:
                self._sending.discard(request.transport)
        return response


@asynccontextmanager
async def http_proxy(server: Server, removed: str = "") -> AsyncIterator[HttpProxy]:
    """Listen on a free port of loopback and yield the proxy."""
    async with ClientSession(auto_decompress=False, cookie_jar=DummyCookieJar()) as session:
        proxy = HttpProxy(server, session, removed)
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", proxy.forward)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        proxy.port = runner.addresses[0][1]
        try:
            yield proxy
        finally:
            await runner.cleanup()
