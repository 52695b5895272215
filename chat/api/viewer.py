"""Send one viewer a turn's stream over its HTTP response."""

import asyncio
from typing import cast

from sanic import Request

from chat.api.error_handlers import STREAM_HEADERS, STREAM_TYPE
from chat.formats import sse
from chat.log.log import Format, Push
from chat.turns.registry import View

_BUFFER_MAX = 64 << 10
"""Bytes that may wait for a viewer who reads slowly before it counts as lagging behind."""


def _chunk(frames: bytes) -> bytes:
    """Return one chunk of a chunked body (RFC 9112 §7.1); empty for no frames, which would end it."""
    return b"%x\r\n%b\r\n" % (len(frames), frames) if frames else b""


_SSE = Format(
    encode=sse.encode,
    encode_pushed=lambda turn, begin, records: _chunk(sse.encode(turn, begin, records)),
    encode_end=sse.encode_end,
    heartbeat=sse.HEARTBEAT,
)

_LEGACY = Format(
    encode=lambda turn, begin, frames: frames,
    encode_pushed=lambda turn, begin, frames: _chunk(frames),
    encode_end=lambda turn, length, answer: b"",
    heartbeat=sse.HEARTBEAT,
)
"""A log of version 0.1 holds the frames themselves, the last one included."""


async def send(request: Request, view: View) -> None:
    """Send the view's own bytes, then its log until the turn ends or the viewer must reconnect."""
    response = await request.respond(headers=STREAM_HEADERS, content_type=STREAM_TYPE)
    if view.before:
        await response.send(view.before)
    if view.log:
        viewer_format = _LEGACY if view.log.ref.is_legacy else _SSE
        await view.log.relay(view.offset, viewer_format, response.send, _pusher(request))
    await response.eof()


def _pusher(request: Request) -> Push:
    """Return a function that writes chunks of the body straight to the connection of a begun response.

    What `response.send` does besides is to wait for slow readers and to tell Sanic that the response is not
    stuck: the heartbeats, which it sends, do that too.
    """
    transport = cast(asyncio.Transport, request.transport)

    def push(data: bytes) -> bool:
        if transport.is_closing() or transport.get_write_buffer_size() > _BUFFER_MAX:
            return False
        try:
            transport.write(data)
        except RuntimeError:  # uvloop's word for a connection that was lost a moment ago
            return False
        return True

    return push
