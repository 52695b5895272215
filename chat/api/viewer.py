"""Send a turn to one viewer, in the format that it asked for."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from sanic import HTTPResponse, Request
from sanic.response import json

from chat.api.error_handlers import STREAM_HEADERS, STREAM_TYPE
from chat.api.negotiation import WireFormat
from chat.errors import Conflict, TurnFailed, Unavailable
from chat.formats import ndjson, sse, text, whole
from chat.log.format import Encode, Format, Send
from chat.log.log import Log, LogState
from chat.log.tail_viewer import HEARTBEAT_S, Push
from chat.turns.view import View

_MAX_BUFFER_BYTES = 64 << 10
"""Bytes that may wait in a viewer's connection; a viewer with more is sent slices of the log."""


def _encode_chunk(frames: bytes) -> bytes:
    """Return one chunk of a chunked body (RFC 9112 §7.1); no bytes for no frames.

    An empty chunk would end the body.
    """
    return b"%x\r\n%b\r\n" % (len(frames), frames) if frames else b""


def create_format(
    encode: Encode,
    encode_end: Callable[[str, int, str], bytes],
    heartbeat: bytes,
    encode_waiting: Callable[[str], bytes],
) -> Format:
    """Return a format whose pushed bytes are chunks of a chunked body."""
    return Format(
        encode=encode,
        encode_pushed=lambda turn, begin, records: _encode_chunk(encode(turn, begin, records)),
        encode_end=encode_end,
        heartbeat=heartbeat,
        encode_waiting=encode_waiting,
    )


@dataclass(frozen=True, slots=True)
class StreamFormat:
    """A format as a response: its content type, and the bytes before a stream that starts again."""

    content_type: str
    full: Format
    brief: Format
    """The same, but the end does not repeat the answer."""
    encode_restart: Callable[[str], bytes]


_STREAMS = {
    WireFormat.SSE: StreamFormat(
        STREAM_TYPE,
        create_format(sse.encode, sse.encode_end, sse.HEARTBEAT, sse.encode_waiting),
        create_format(sse.encode, sse.encode_brief_end, sse.HEARTBEAT, sse.encode_waiting),
        sse.encode_restart,
    ),
    WireFormat.NDJSON: StreamFormat(
        "application/x-ndjson; charset=utf-8",
        create_format(ndjson.encode, ndjson.encode_end, ndjson.HEARTBEAT, ndjson.encode_waiting),
        create_format(
            ndjson.encode, ndjson.encode_brief_end, ndjson.HEARTBEAT, ndjson.encode_waiting
        ),
        ndjson.encode_restart,
    ),
}

_TEXT_TYPE = "text/plain; charset=utf-8"
_TEXT = create_format(text.encode, lambda turn, length, answer: b"", b"", lambda wait: b"")

_LEGACY = create_format(
    lambda turn, begin, frames: frames,
    lambda turn, length, answer: b"",
    sse.HEARTBEAT,
    sse.encode_waiting,
)
"""The log of a turn that version 0.1 began: it consists of SSE frames, `end` included."""


def has_ids(wire_format: WireFormat) -> bool:
    """Return whether a viewer of this format can resume; the others start at the beginning."""
    return wire_format in _STREAMS


async def send_view(
    request: Request, view: View, wire_format: WireFormat, *, is_brief: bool
) -> HTTPResponse | None:
    """Send a view, and follow its log until the turn ends or the viewer must reconnect.

    Raises Conflict, TurnFailed and Unavailable before the response has begun.
    """
    if view.log.ref.is_legacy and wire_format is not WireFormat.SSE:
        raise Conflict("This answer began before an upgrade: it has the format `sse` only.")
    if wire_format is WireFormat.JSON:
        return await _send_whole(request, view)
    if wire_format is WireFormat.TEXT:
        await _send_text(request, view)
        return None
    stream = _STREAMS[wire_format]
    viewer_format = stream.brief if is_brief else stream.full
    response = await request.respond(headers=STREAM_HEADERS, content_type=stream.content_type)
    turn = view.log.ref.turn
    if view.is_restarted:
        await response.send(stream.encode_restart(turn))
    if view.replay:
        replay = view.replay
        await response.send(viewer_format.encode(turn, 0, replay.records))
        await response.send(viewer_format.encode_end(turn, replay.length, replay.answer))
    else:
        if view.log.ref.is_legacy:
            viewer_format = _LEGACY
        await view.log.relay(view.offset, viewer_format, response.send, create_push(request))
    await response.eof()
    return None


async def _send_text(request: Request, view: View) -> None:
    """Send the bare text; the body is complete (RFC 9112 §8) only if the answer is."""
    if not view.replay:
        await wait_for_output(view.log)
    response = await request.respond(
        headers=STREAM_HEADERS, content_type="text/plain; charset=utf-8"
    )
    if view.replay:
        await response.send(view.replay.answer.encode())
    else:
        send = _keep_alive(request, response.send)
        if not await view.log.relay(0, _TEXT, send, create_push(request)):
            cut_off(request)
            return
    await response.eof()


async def _send_whole(request: Request, view: View) -> HTTPResponse | None:
    """Send one JSON object when the turn is over; its status tells a failure of the first 5 s."""
    response = None
    log = view.log
    while log.is_open and not view.replay:
        try:
            async with asyncio.timeout(HEARTBEAT_S):
                await log.wait_until_closed()
        except TimeoutError:
            if response is None:
                response = await request.respond(
                    headers=STREAM_HEADERS, content_type="application/json"
                )
            await response.send(whole.HEARTBEAT)
    if view.replay:
        body = whole.read(view.replay.records)
    elif log.state is LogState.DETACHED and response is None:
        raise _create_detached()
    elif log.state is LogState.DETACHED:
        cut_off(request)
        return None
    else:
        body = whole.read(await log.read(0, log.committed))
    if response is None:
        if "error" in body:
            raise TurnFailed(body["error"], body["answer"])
        return json(body, headers=STREAM_HEADERS)
    await response.send(whole.encode(body))
    await response.eof()
    return None


async def wait_for_output(log: Log) -> None:
    """Return when a turn has produced something to send, or after HEARTBEAT_S seconds.

    Raises TurnFailed if it failed before, and Unavailable if its worker stops.
    """
    offset = 0
    try:
        async with asyncio.timeout(HEARTBEAT_S):
            while log.is_open:
                data = await log.read(offset, log.committed)
                if whole.has_output(data):
                    return
                offset += len(data)
                await log.wait_for_commit()
    except TimeoutError:
        return
    if log.state is LogState.DETACHED:
        raise _create_detached()
    body = whole.read(await log.read(0, log.committed))
    if "error" in body and not body["answer"]:
        raise TurnFailed(body["error"], "")


def _create_detached() -> Unavailable:
    return Unavailable(
        "The server is restarting. Ask again: the running answer continues.", retry_after_s=1
    )


def cut_off(request: Request) -> None:
    """Close the connection without the end of the body, so that the client sees a truncated one."""
    cast(asyncio.Transport, request.transport).close()


def _keep_alive(request: Request, send: Send) -> Send:
    """Return a `send` for a format without heartbeats: sending nothing counts as activity.

    Otherwise Sanic's response timeout would end an answer that is silent for a minute.
    """

    async def send_or_wait(data: bytes) -> None:
        await send(data)
        if not data and request.stream:
            request.stream.protocol._time = time.monotonic()

    return send_or_wait


def create_push(request: Request) -> Push:
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
