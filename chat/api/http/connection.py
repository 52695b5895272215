"""Correct Sanic's HTTP: streams for HTTP/1.0, and the response to an invalid URL.

HTTP/1.0 has no Transfer-Encoding (RFC 9112 §6.1), but Sanic sends chunks to every client. Here the
end of the connection ends such a body. This module alone uses Sanic's private `Http`;
`test_connection.py` fails if an upgrade changes it.
"""

from sanic.headers import format_http1_response
from sanic.http import Http, Stage
from sanic.server import HttpProtocol


class _Http(Http):
    __slots__ = ()

    def create_empty_request(self) -> None:
        """Create the request for an error response without its URL, which may be invalid.

        Otherwise Sanic fails to parse the URL a second time, sends no response, and logs the URL.
        """
        self.url = None
        super().create_empty_request()

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

    __slots__ = ()
    HTTP_CLASS = _Http
