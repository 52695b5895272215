"""HTTP/1.1 to an upstream, as an httpx2 transport whose streams can be pulled.

The `openai` package makes the request; this module sends and receives the bytes. A body can be
iterated like any other, or pulled without waking a task for each token.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx2

from chat.upstream.http.connection import MAX_BUFFER_BYTES, Connection
from chat.upstream.http.pool import ACKNOWLEDGE_S, Pool, limit_acknowledgement

BODY = "body"
"""The key under which a response's `extensions` hold its `Body`."""

_STALE_S = ACKNOWLEDGE_S + 5
"""Seconds after a request in which its connection is lost if it was stale."""


class Transport(httpx2.AsyncBaseTransport):
    """Connections to any number of origins, in a pool of reusable ones."""

    def __init__(self) -> None:
        self._pool = Pool()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and return when the response's headers are received.

        Raises httpx2.TransportError.
        """
        default_port = 443 if request.url.scheme == "https" else 80
        origin = (request.url.raw_scheme, request.url.host, request.url.port or default_port)
        await request.aread()
        if connection := self._pool.take(origin):
            response = await self._send_if_alive(request, connection)
            if response is not None:
                return response
        timeout_s = request.extensions.get("timeout", {}).get("connect")
        return await self._send(request, await self._pool.open(origin, timeout_s))

    async def aclose(self) -> None:
        """Close the idle connections."""
        self._pool.close()

    async def _send_if_alive(
        self, request: httpx2.Request, connection: Connection
    ) -> httpx2.Response | None:
        """Return the response on a reused connection, or None if that connection was stale.

        A stale connection was closed by the server, or dropped by a gateway, before the request. It
        is lost soon after the request, without a byte of a response. The server cannot have begun,
        so the request may be sent again. A connection without data that is not lost is slow, not
        stale.
        """
        loop = asyncio.get_running_loop()
        sent_at = loop.time()
        limit_acknowledgement(connection, ACKNOWLEDGE_S)
        # With this limit, TCP would also close the connection of a slow server after one lost
        # keepalive probe.
        timer = loop.call_later(ACKNOWLEDGE_S + 1, limit_acknowledgement, connection, 0)
        try:
            return await self._send(request, connection)
        except httpx2.TransportError as error:
            is_silent = isinstance(error, httpx2.ReadTimeout)
            if connection.has_received or is_silent or loop.time() > sent_at + _STALE_S:
                raise
            return None
        finally:
            timer.cancel()
            if connection.has_received:
                limit_acknowledgement(connection, 0)
            else:
                self._pool.close_older(connection)

    async def _send(self, request: httpx2.Request, connection: Connection) -> httpx2.Response:
        read_timeout_s = request.extensions.get("timeout", {}).get("read")
        try:
            connection.send(request, request.content)
            status, headers = await connection.receive_headers(read_timeout_s)
        except BaseException:
            connection.close()
            raise
        body = Body(connection, self._pool.keep, read_timeout_s)
        return httpx2.Response(status, headers=headers, stream=body, extensions={BODY: body})


class Body(httpx2.AsyncByteStream):
    """The body of one response on a `Connection`: iterate it, or pull it."""

    def __init__(
        self,
        connection: Connection,
        keep: Callable[[Connection], None],
        read_timeout_s: float | None,
    ) -> None:
        self._connection = connection
        self._keep = keep
        self._timeout_s = read_timeout_s
        self._has_ended = False
        self._is_closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        connection = self._connection
        while True:
            while part := connection.take():
                yield part
            if connection.is_complete:
                return
            await connection.wait(self._timeout_s)

    def notify_when_ready(self, on_ready: Callable[[], None]) -> None:
        """Call `on_ready` when there is something to take, and again after each empty `take`."""
        self._connection.notify_when_ready(on_ready)

    def take(self) -> bytes:
        """Return the bytes received so far; empty if there are none yet, or no more."""
        return self._connection.take()

    def end(self) -> None:
        """Stop reading: the content has ended, even if its HTTP body has not. `wait` returns."""
        self._has_ended = True
        self._connection.wake()

    async def wait(self) -> None:
        """Return when the body is complete or was ended.

        Raises ReadTimeout if no byte arrives within the read timeout, and RemoteProtocolError or
        ReadError if the connection is lost.
        """
        while not (self._has_ended or self._connection.is_complete):
            await self._connection.wait(self._timeout_s)

    async def aclose(self) -> None:
        """Keep the connection if the body is complete or has ended; otherwise close it."""
        if not self._is_closed:
            self._is_closed = True
            self._connection.release(self._keep, has_ended=self._has_ended)


class BufferedBody:
    """A body that is decompressed, or that another transport carries; pulled like a `Body`."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self._buffer = bytearray()
        self._has_room = asyncio.Event()
        self._on_ready: Callable[[], None] | None = None
        self._is_waiting = True
        self._task: asyncio.Task[None]
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def notify_when_ready(self, on_ready: Callable[[], None]) -> None:
        """Start to receive; see `Body.notify_when_ready`."""
        self._on_ready = on_ready
        self._task = asyncio.create_task(self._receive())

    def take(self) -> bytes:
        """Return the bytes received so far; empty if there are none yet, or no more."""
        data = bytes(self._buffer)
        self._buffer.clear()
        self._has_room.set()
        self._is_waiting = not data
        return data

    def end(self) -> None:
        """Stop reading; `wait` returns."""
        if not self._ended.done():
            self._ended.set_result(None)

    async def wait(self) -> None:
        """Return when the body is complete or was ended; raise httpx2.TransportError."""
        await asyncio.shield(self._ended)

    async def aclose(self) -> None:
        """Close the response."""
        self._task.cancel()
        try:
            await asyncio.wait([self._task])
        finally:
            if self._ended.done() and not self._ended.cancelled():
                self._ended.exception()  # `wait` raised it, or no task waits any more
            await self._response.aclose()

    async def _receive(self) -> None:
        try:
            async for part in self._response.aiter_bytes():
                self._buffer += part
                self._signal()
                while len(self._buffer) > MAX_BUFFER_BYTES:
                    self._has_room.clear()
                    await self._has_room.wait()
            self.end()
        except Exception as error:
            if not self._ended.done():
                self._ended.set_exception(error)
        self._signal()

    def _signal(self) -> None:
        if self._is_waiting and self._on_ready:
            self._is_waiting = False
            self._on_ready()
