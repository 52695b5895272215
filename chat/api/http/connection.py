"""Correct Sanic's HTTP: deadlines, framing, limits of connections, and streams for HTTP/1.0.

HTTP/1.0 has no Transfer-Encoding (RFC 9112 §6.1), but Sanic sends chunks to every client. Here the
end of the connection ends such a body. Sanic's timeouts begin again with each byte that arrives.
Here the head and the body of a request have deadlines. Sanic rejects a URL with text in UTF-8, as
curl and scripts send it. Here it is percent-encoded. This module alone uses Sanic's private
`Http`; `test_connection.py` and `test_smuggling.py` fail if an upgrade changes it.
"""

from time import monotonic
from typing import Any
from urllib.parse import quote_from_bytes

from sanic import Request
from sanic.exceptions import BadRequest, RequestCancelled, RequestTimeout, ServiceUnavailable
from sanic.headers import _HTTP1_STATUSLINES, format_http1_response
from sanic.http import Http, Stage
from sanic.http.http1 import HTTP_CONTINUE
from sanic.server import HttpProtocol

from chat.api.http import head
from chat.api.http.connection_limits import ConnectionLimits, Place

HEAD_TIMEOUT_S = 10
"""Time in which the head of a request must arrive, from its first byte or from the connection."""

BODY_TIMEOUT_S = 30
"""Time in which the body of a request must arrive, from the moment when it is read."""

_CHECK_INTERVAL_S = 5.0
"""Maximum time between two checks: every deadline is longer, so none is missed in between."""

_ASCII = bytes(range(0x80))

_HTTP1_STATUSLINES[421] = b"HTTP/1.1 421 Misdirected Request\r\n"  # Sanic lacks this status


class _Http(Http):
    __slots__ = ("_url", "deadline")

    protocol: "Protocol"
    request_body: Any  # None, True or "chunked"

    def __init__(self, protocol: "Protocol") -> None:
        super().__init__(protocol)  # type: ignore[no-untyped-call]
        self.deadline: float | None = monotonic() + HEAD_TIMEOUT_S
        """When the head or the body that is being received must be complete, by `monotonic`."""

    @property
    def url(self) -> str | None:
        """The target of the request in ASCII: Sanic sets it, and rejects any other character."""
        return self._url

    @url.setter
    def url(self, target: str | None) -> None:
        if target is not None and not target.isascii():
            target = quote_from_bytes(target.encode(errors="surrogateescape"), safe=_ASCII)
        self._url = target

    def init_for_request(self) -> None:
        """Wait for a request."""
        super().init_for_request()  # type: ignore[no-untyped-call]
        self.protocol.wait()

    def create_empty_request(self) -> None:
        """Create the request for an error response without its URL, which may be invalid.

        Otherwise Sanic fails to parse the URL a second time, sends no response, and logs the URL.
        """
        self.url = None
        super().create_empty_request()

    async def http1_request_header(self) -> None:
        """Receive the head of a request; raises BadRequest, among others."""
        if self.deadline is None:
            self.deadline = monotonic() + HEAD_TIMEOUT_S
        await super().http1_request_header()  # type: ignore[no-untyped-call]
        self.deadline = None
        request, values = self.request, self.request.headers.getall
        if not head.is_valid_head(request.head, values("host", [])) or (
            self.request_body
            and not head.is_valid_length(
                request.version, values("content-length", []), values("transfer-encoding", [])
            )
        ):
            self.request = None  # type: ignore[assignment]  # as before the head has arrived
            self.request_body = None
            raise BadRequest("Bad Request")
        self.protocol.begin(request)

    async def read(self) -> bytes | None:
        """Return the next part of the body; raises BadRequest and PayloadTooLarge."""
        if self.deadline is None:
            self.deadline = monotonic() + BODY_TIMEOUT_S
        if self.request_body == "chunked" and not self.request_bytes_left:
            await self._check_chunk_head()
        part = await super().read()
        if self.request_body is None:
            self.deadline = None
        return part

    async def _check_chunk_head(self) -> None:
        """Receive the head of a chunk, which Sanic parses; raises BadRequest if it is malformed."""
        if self.expecting_continue:
            self.expecting_continue = False
            await self._send(HTTP_CONTINUE)
        buffer = self.recv_buffer
        while (end := buffer.find(b"\r\n", 2) + 2) < 2 and len(buffer) <= head.MAX_CHUNK_HEAD_BYTES:
            await self._receive_more()
        if not head.is_valid_chunk_head(bytes(buffer[:end])):
            self.keep_alive = False
            raise BadRequest("Bad chunked encoding")

    async def http1_response_header(self, data: bytes, end_stream: bool) -> None:
        """Send the headers and the first bytes of a response."""
        response = self.response
        has_length = end_stream or response.body or "content-length" in response.headers
        if self.request.version != "1.0" or has_length or self.head_only:
            await super().http1_response_header(data, end_stream)
            return
        self.keep_alive = False
        response.headers["connection"] = "close"
        await self._send(format_http1_response(response.status, response.processed_headers) + data)
        self.stage = Stage.RESPONSE
        self.response_func = self._send_body

    async def _send_body(self, data: bytes, end_stream: bool) -> None:
        if data:
            await self._send(data)
        if end_stream:
            self.response_func = None  # type: ignore[assignment]  # as Sanic does
            self.stage = Stage.IDLE


class Protocol(HttpProtocol):
    """One connection."""

    __slots__ = ("_limits", "_place")
    HTTP_CLASS = _Http

    def __init__(self, *, limits: ConnectionLimits, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._limits = limits
        self._place: Place | None = None
        """None before the connection is admitted, and if it is rejected."""

    def connection_made(self, transport: Any) -> None:
        """Serve a connection that the limits admit, and close any other."""
        self._place = self._limits.admit(transport.get_extra_info("peername"), transport.abort)
        if self._place:
            super().connection_made(transport)  # type: ignore[no-untyped-call]
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the connection's place, and cancel its request."""
        if self._place:
            self._limits.leave(self._place)
            super().connection_lost(exc)  # type: ignore[no-untyped-call]

    def wait(self) -> None:
        """Wait for the head of a request."""
        if self._place:
            self._limits.wait(self._place)

    def begin(self, request: Request) -> None:
        """Begin a request.

        Raises RequestCancelled, and closes the connection, if the limits do not allow the request.
        """
        if not self._place:
            return
        self._limits.begin(self._place)
        if self._place.is_extra:
            self._http.keep_alive = False
            if not self._limits.allows_extra(request.path):
                self.abort()
                raise RequestCancelled

    def abort(self) -> None:
        """Close the connection at once.

        Sanic also forgets the transport, without which the task of a half-received request fails
        as it is cancelled, and logs the URL of a complete one.
        """
        if self.transport:
            self.transport.abort()

    def check_timeouts(self) -> None:
        """Cancel a request that is late, and call this again when it may be.

        Sanic's own method counts the time since the last byte that arrived or was sent.
        """
        http = self._http
        if not self._task or http is None:
            return
        now = monotonic()
        error: Exception | None = None
        if http.deadline is not None:
            due, error = http.deadline, RequestTimeout("Request Timeout")
        elif http.stage is Stage.IDLE:
            due = self._time + self.keep_alive_timeout
        else:
            due, error = self._time + self.response_timeout, ServiceUnavailable("Response Timeout")
        if now >= due:
            http.exception = error
            self._task.cancel("the request or the response is late")
            http.deadline = due = now + 1  # for the rest of a body, which is still discarded
        delay_s = min(max(due - now, 0.1), _CHECK_INTERVAL_S)
        self._callback_check_timeouts = self.loop.call_later(delay_s, self.check_timeouts)
