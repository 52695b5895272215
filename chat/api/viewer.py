"""Send one viewer a turn's stream over its HTTP response."""

import asyncio
from typing import cast

from sanic import Request

from chat.api.error_handlers import STREAM_HEADERS, STREAM_TYPE
from chat.log.log import Push
from chat.turns.registry import View

_BUFFER_MAX = 64 << 10
"""Bytes that may wait for a viewer who reads slowly before it counts as lagging behind."""


async def send(request: Request, view: View) -> None:
    """Send the view's own bytes, then its log until the turn ends or the viewer must reconnect."""
    response = await request.respond(headers=STREAM_HEADERS, content_type=STREAM_TYPE)
    if view.before:
        await response.send(view.before)
    if view.log:
        await view.log.relay(view.offset, response.send, _pusher(request))
    await response.eof()


def _pusher(request: Request) -> Push:
    """Writes chunks of the body straight to the connection of a request whose response has begun.

    What `response.send` does besides is to wait for slow readers and to tell Sanic that the response is not
    stuck: the heartbeats, which it sends, do that too.
    """
    transport = cast(asyncio.Transport, request.transport)

    def push(data: bytes) -> bool:
        if transport.is_closing() or transport.get_write_buffer_size() > _BUFFER_MAX:
            return False
        try:
            transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        except RuntimeError:  # uvloop's word for a connection that was lost a moment ago
            return False
        return True

    return push
