"""Send a large body at the pace of its reader."""

import socket
from collections.abc import Mapping

from sanic import HTTPResponse, Request

_SLICE_BYTES = 64 << 10
"""Size of the part of a body that is sent at a time."""

_MAX_BUFFERED_BYTES = 256 << 10
"""Size of the kernel's buffer for data that the client has not read. Linux doubles this value.

By default, Linux lets the buffer grow to 4 MiB (tcp_wmem in tcp(7)).
"""


async def send_body(
    request: Request, body: bytes, content_type: str, headers: Mapping[str, str] | None = None
) -> HTTPResponse | None:
    """Send a large body in slices and return None; return a small one as a response for Sanic.

    Each slice waits until the client has read most of those before it. Sanic alone would write the
    whole body to the connection's buffer, where it stays until the client has read it. If a client
    reads nothing for Sanic's RESPONSE_TIMEOUT (60 s), its connection is closed.
    """
    if len(body) <= _SLICE_BYTES or request.method == "HEAD":
        return HTTPResponse(body, headers=dict(headers or {}), content_type=content_type)
    connection = request.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_BUFFERED_BYTES)
    response = await request.respond(
        headers={**(headers or {}), "Content-Length": str(len(body))}, content_type=content_type
    )
    try:
        for start in range(0, len(body), _SLICE_BYTES):
            await response.send(body[start : start + _SLICE_BYTES])
    finally:
        del body  # if this is cancelled, the frame lives until the next garbage collection
    return None
