"""HTTP/1.1 to an upstream, as an httpx2 transport whose streams can be pulled.

The `openai` package makes the request; this module sends and receives the bytes. A body can be
iterated like any other, or pulled without waking a task for each token.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable

import httpx2

from chat.upstream.connection import MAX_BUFFER_BYTES, Connection, Origin

BODY = "body"
"""The key under which a response's `extensions` hold its `Body`."""

_MAX_IDLE = 100


class Transport(httpx2.AsyncBaseTransport):
    """Connections to any number of origins, in a pool of reusable ones."""

    def __init__(self) -> None:
        self._idle: dict[Origin, deque[Connection]] = {}
        self._tls: ssl.SSLContext | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and return when the response's headers are received.

        Raises httpx2.TransportError.
        """
        timeout = request.extensions.get("timeout", {})
        content = await request.aread()
        connection = await self._obtain_connection(request.url, timeout.get("connect"))
        try:
            connection.send(request, content)
            status, headers = await connection.receive_headers(timeout.get("read"))
        except BaseException:
            connection.close()
            raise
        body = Body(connection, self._return_to_pool, timeout.get("read"))
        return httpx2.Response(status, headers=headers, stream=body, extensions={BODY: body})

    async def aclose(self) -> None:
        """Close the idle connections."""
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    async def _obtain_connection(self, url: httpx2.URL, timeout_s: float | None) -> Connection:
        default = 443 if url.scheme == "https" else 80
        origin = (url.raw_scheme, url.host, url.port or default)
        idle = self._idle.get(origin, ())
        while idle:
            connection = idle.pop()
            if connection.is_reusable:
                return connection
        try:
            async with asyncio.timeout(timeout_s):
                loop = asyncio.get_running_loop()
                _, connection = await loop.create_connection(
                    lambda: Connection(origin),
                    origin[1],
                    origin[2],
                    ssl=self._create_ssl_context(url),
                )
        except TimeoutError as error:
            raise httpx2.ConnectTimeout("no connection in time") from error
        except OSError as error:  # an unknown name, a refusal, an untrusted certificate
            raise httpx2.ConnectError(str(error)) from error
        return connection

    def _create_ssl_context(self, url: httpx2.URL) -> ssl.SSLContext | None:
        if url.scheme != "https":
            return None
        if self._tls is None:
            self._tls = httpx2.create_ssl_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    def _return_to_pool(self, connection: Connection) -> None:
        idle = self._idle.setdefault(connection.origin, deque(maxlen=_MAX_IDLE))
        if len(idle) == _MAX_IDLE:
            idle[0].close()
        idle.append(connection)


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
        """Take no more: the content has ended, whether or not its HTTP body has. `wait` returns."""
        self._has_ended = True
        self._connection.wake()

    async def wait(self) -> None:
        """Return when the body is complete or was ended; raise ReadTimeout after the read timeout
        without a byte, RemoteProtocolError or ReadError when the connection is lost."""
        while not (self._has_ended or self._connection.is_complete):
            await self._connection.wait(self._timeout_s)

    async def aclose(self) -> None:
        """Keep the connection if the body is complete or has ended; otherwise close it."""
        if not self._is_closed:
            self._is_closed = True
            self._connection.release(self._keep, has_ended=self._has_ended)


class BufferedBody:
    """A body that httpx2 decodes, or that another transport carries; pulled like a `Body`."""

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
        """Take no more; `wait` returns."""
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
