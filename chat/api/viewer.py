"""Send a turn's stream to one viewer."""

import asyncio
from typing import cast

from sanic import Request

from chat.api.error_handlers import STREAM_HEADERS, STREAM_TYPE
from chat.formats import sse
from chat.log.log import Format
from chat.log.tail_viewer import Push
from chat.turns.registry import View

_MAX_BUFFER_BYTES = 64 << 10
"""Bytes that may wait in a viewer's connection; a viewer with more is sent slices of the log."""


def _encode_chunk(frames: bytes) -> bytes:
    """Return one chunk of a chunked body (RFC 9112 §7.1); no bytes for no frames.

    An empty chunk would end the body.
    """
    return b"%x\r\n%b\r\n" % (len(frames), frames) if frames else b""


_SSE = Format(
    encode=sse.encode,
    encode_pushed=lambda turn, begin, records: _encode_chunk(sse.encode(turn, begin, records)),
    encode_end=sse.encode_end,
    heartbeat=sse.HEARTBEAT,
    encode_waiting=sse.encode_waiting,
)

_LEGACY = Format(
    encode=lambda turn, begin, frames: frames,
    encode_pushed=lambda turn, begin, frames: _encode_chunk(frames),
    encode_end=lambda turn, length, answer: b"",
    heartbeat=sse.HEARTBEAT,
    encode_waiting=sse.encode_waiting,
)
"""The log of a turn that version 0.1 began: it consists of SSE frames, `end` included."""


async def send_view(request: Request, view: View) -> None:
    """Send a view, and follow its log until the turn ends or the viewer must reconnect."""
    response = await request.respond(headers=STREAM_HEADERS, content_type=STREAM_TYPE)
    if view.before:
        await response.send(view.before)
    if view.log:
        viewer_format = _LEGACY if view.log.ref.is_legacy else _SSE
        await view.log.relay(view.offset, viewer_format, response.send, _create_push(request))
    await response.eof()


def _create_push(request: Request) -> Push:
    """Return a function that writes chunks to the connection of a response that has begun.

    It omits two steps of `response.send`: waiting for slow viewers, and postponing Sanic's response
    timeout. The heartbeats, which are sent by `response.send`, perform both.
    """
    transport = cast(asyncio.Transport, request.transport)

    def push(data: bytes) -> bool:
        if transport.is_closing() or transport.get_write_buffer_size() > _MAX_BUFFER_BYTES:
            return False
        try:
            transport.write(data)
        except RuntimeError:  # raised by uvloop if the connection has just been lost
            return False
        return True

    return push
