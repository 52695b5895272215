"""HTTP/1.1 to an upstream, as an httpx2 transport that hands a stream's bytes on as they arrive.

The `openai` package keeps the request, its authorisation, retries and errors; here bytes go out and come in.
A body can be iterated like any other, or *poured* into a function that is called from the socket's own
callback: no task wakes up for a token. Measured beside aiohttp in docs/performance.md.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable

import httpx2

from chat.upstream.connection import (
    Connection,
    Origin,
    Pace,
    Sink,
)

BODY = "body"
"""The name under which a response's `extensions` hold its `Body`."""

_IDLE_MAX = 100


class Transport(httpx2.AsyncBaseTransport):
    """Connections to any number of origins; those that may be used again are kept."""

    def __init__(self) -> None:
        self._idle: dict[Origin, deque[Connection]] = {}
        self._tls: ssl.SSLContext | None = None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and return with the head of its response; raises httpx2.TransportError."""
        timeout = request.extensions.get("timeout", {})
        content = await request.aread()
        connection = await self._connection(request.url, timeout.get("connect"))
        try:
            connection.send(request, content)
            status, headers = await connection.head(timeout.get("read"))
        except BaseException:
            connection.close()
            raise
        body = Body(connection, self._keep, timeout.get("read"))
        return httpx2.Response(status, headers=headers, stream=body, extensions={BODY: body})

    async def aclose(self) -> None:
        """Close the connections that wait to be used again."""
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    async def _connection(self, url: httpx2.URL, timeout_s: float | None) -> Connection:
        default = 443 if url.scheme == "https" else 80
        origin = (url.raw_scheme, url.host, url.port or default)
        idle = self._idle.get(origin, ())
        while idle:
            connection = idle.pop()
            if connection.reusable:
                return connection
        try:
            async with asyncio.timeout(timeout_s):
                loop = asyncio.get_running_loop()
                _, connection = await loop.create_connection(
                    lambda: Connection(origin), origin[1], origin[2], ssl=self._ssl(url)
                )
        except TimeoutError as error:
            raise httpx2.ConnectTimeout("no connection in time") from error
        except (
            OSError
        ) as error:  # a name that is unknown, a refusal, a certificate that is not trusted
            raise httpx2.ConnectError(str(error)) from error
        return connection

    def _ssl(self, url: httpx2.URL) -> ssl.SSLContext | None:
        if url.scheme != "https":
            return None
        if self._tls is None:
            self._tls = httpx2.create_ssl_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    def _keep(self, connection: Connection) -> None:
        idle = self._idle.setdefault(connection.origin, deque(maxlen=_IDLE_MAX))
        if len(idle) == _IDLE_MAX:
            idle[0].close()
        idle.append(connection)


class Body(httpx2.AsyncByteStream):
    """The body of one response: iterate it, or pour it."""

    def __init__(
        self,
        connection: Connection,
        keep: Callable[[Connection], None],
        read_timeout_s: float | None,
    ) -> None:
        self._connection = connection
        self._keep = keep
        self._timeout_s = read_timeout_s
        self._closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        connection = self._connection
        while True:
            while part := connection.take():
                yield part
            if connection.complete:
                return
            connection.resume()
            await connection.wait(self._timeout_s)

    async def pour(self, sink: Sink, pace: Pace) -> None:
        """Have `sink` called with every part of the body, until its end or until the sink is satisfied.

        After each read `pace` is given a function, and nothing further is read until it is called. Raises
        what `sink` raised, ReadTimeout when nothing came for the read timeout, RemoteProtocolError or
        ReadError when the body broke off.
        """
        connection = self._connection
        connection.begin(sink, pace)
        while not (connection.satisfied or connection.complete):
            await connection.wait(self._timeout_s)

    async def aclose(self) -> None:
        """Keep the connection if all of the body has come, or is about to; else close it at once."""
        if not self._closed:
            self._closed = True
            self._connection.release(self._keep)
