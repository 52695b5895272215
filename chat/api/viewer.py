"""Send a turn to one viewer, in the format that it asked for."""

import asyncio
import logging
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from socket import SO_LINGER, SOL_SOCKET
from typing import Any, cast

from sanic import HTTPResponse, Request
from sanic.response import json

from chat.api.error_handlers import STREAM_HEADERS, STREAM_TYPE
from chat.api.negotiation import WireFormat
from chat.errors import Conflict, TurnFailed, Unavailable, Unreadable
from chat.formats import json_object, ndjson, sse, text
from chat.log.format import Encode, Format, Send
from chat.log.log import Log, LogState
from chat.log.tail_viewer import HEARTBEAT_S, Push
from chat.turns.view import View

logger = logging.getLogger("holdline.api")

MALFORMED = (AttributeError, LookupError, TypeError, ValueError)
"""Errors of a format that meets a malformed record."""

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
    build_heartbeat: Callable[[], bytes],
    encode_waiting: Callable[[str, int, str], bytes],
) -> Format:
    """Return a format whose pushed bytes are chunks of a chunked body."""
    return Format(
        encode=encode,
        encode_pushed=lambda turn, begin, records: _encode_chunk(encode(turn, begin, records)),
        encode_end=encode_end,
        build_heartbeat=build_heartbeat,
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


NDJSON_TYPE = "application/x-ndjson; charset=utf-8"

_STREAMS = {
    WireFormat.SSE: StreamFormat(
        STREAM_TYPE,
        create_format(sse.encode, sse.encode_end, lambda: sse.HEARTBEAT, sse.encode_waiting),
        create_format(sse.encode, sse.encode_brief_end, lambda: sse.HEARTBEAT, sse.encode_waiting),
        sse.encode_restart,
    ),
    WireFormat.NDJSON: StreamFormat(
        NDJSON_TYPE,
        create_format(
            ndjson.encode, ndjson.encode_end, lambda: ndjson.HEARTBEAT, ndjson.encode_waiting
        ),
        create_format(
            ndjson.encode, ndjson.encode_brief_end, lambda: ndjson.HEARTBEAT, ndjson.encode_waiting
        ),
        ndjson.encode_restart,
    ),
}

_TEXT_TYPE = "text/plain; charset=utf-8"
_TEXT = create_format(
    text.encode, lambda turn, length, answer: b"", lambda: b"", lambda turn, offset, wait: b""
)

_LEGACY = create_format(
    lambda turn, begin, frames: frames,
    lambda turn, length, answer: b"",
    lambda: sse.HEARTBEAT,
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
        raise Conflict("This answer began before an upgrade: request it with the format `sse`.")
    if wire_format is WireFormat.JSON:
        return await send_whole(request, view, json_object.read)
    if wire_format is WireFormat.TEXT:
        await send_stream(request, view, _TEXT, _TEXT_TYPE, ends_on_failure=False)
        return None
    stream = _STREAMS[wire_format]
    viewer_format = stream.brief if is_brief else stream.full
    response = await request.respond(headers=STREAM_HEADERS, content_type=stream.content_type)
    if view.is_restarted:
        await response.send(stream.encode_restart(view.log.ref.turn))
    if view.log.ref.is_legacy and not view.replay:
        viewer_format = _LEGACY
    await _relay(request, view, viewer_format, response.send)
    await response.eof()
    return None


async def send_stream(
    request: Request,
    view: View,
    viewer_format: Format,
    content_type: str,
    *,
    ends_on_failure: bool,
) -> None:
    """Send a turn from its beginning; its body is complete (RFC 9112 §8) only if the answer is.

    With `ends_on_failure` the format reports failures, and their body is complete too. Raises
    TurnFailed and Unavailable before the response has begun.
    """
    if not view.replay:
        await _wait_for_output(view.log)
    response = await request.respond(headers=STREAM_HEADERS, content_type=content_type)
    is_complete = await _relay(request, view, viewer_format, _keep_alive(request, response.send))
    if is_complete or (ends_on_failure and view.log.state is LogState.FINISHED):
        await response.eof()
    else:
        _truncate_body(request)


async def _relay(request: Request, view: View, viewer_format: Format, send: Send) -> bool:
    """Send a view; return whether the viewer has the whole answer."""
    if replay := view.replay:
        turn = view.log.ref.turn
        await send(viewer_format.encode(turn, 0, replay.records))
        await send(viewer_format.encode_end(turn, replay.length, replay.answer))
        return True
    try:
        return await view.log.relay(view.offset, viewer_format, send, _create_push(request))
    except MALFORMED as error:
        logger.warning("turn %s: a malformed record (%s)", view.log.ref.turn, type(error).__name__)
        return False


async def send_whole(
    request: Request, view: View, build: Callable[[bytes], dict[str, Any]]
) -> HTTPResponse | None:
    """Send one JSON object, which `build` makes of the records, when the turn is over.

    After HEARTBEAT_S seconds the response begins with white space, and its status is 200. Before,
    raises TurnFailed for a failed turn, and Unavailable if this worker stops.
    """
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
            await response.send(json_object.HEARTBEAT)
    if view.replay:
        data = view.replay.records
    elif log.state is LogState.FINISHED:
        data = await log.read(0, log.committed)
    elif response is None:
        raise _create_detached()
    else:
        _truncate_body(request)
        return None
    try:
        body = _read(log, build, data)
    except Unreadable:
        if response is None:
            raise
        _truncate_body(request)
        return None
    if response is None:
        _raise_failure(log, data)
        return json(body, headers=STREAM_HEADERS)
    await response.send(json_object.encode(body))
    await response.eof()
    return None


async def _wait_for_output(log: Log) -> None:
    """Return when a turn has produced something to send, or after HEARTBEAT_S seconds.

    Raises TurnFailed if it failed before, and Unavailable if its worker stops.
    """
    offset = 0
    try:
        async with asyncio.timeout(HEARTBEAT_S):
            while log.is_open:
                data = await log.read(offset, log.committed)
                if json_object.has_output(data):
                    return
                offset += len(data)
                await log.wait_for_commit()
    except TimeoutError:
        return
    if log.state is LogState.DETACHED:
        raise _create_detached()
    data = await log.read(0, log.committed)
    if not json_object.has_output(data):
        _raise_failure(log, data)


def _read(log: Log, build: Callable[[bytes], dict[str, Any]], data: bytes) -> dict[str, Any]:
    """Return what `build` makes of the records; raises Unreadable if one is malformed."""
    try:
        return build(data)
    except MALFORMED as error:
        logger.warning("turn %s: a malformed record (%s)", log.ref.turn, type(error).__name__)
        raise Unreadable(
            "A record of this answer is malformed. Request it as `text/event-stream`."
        ) from None


def _raise_failure(log: Log, data: bytes) -> None:
    """Raise TurnFailed if the records are those of a failed turn; raises Unreadable."""
    body = _read(log, json_object.read, data)
    if "error" in body:
        raise TurnFailed(body["error"], body["answer"])


def _create_detached() -> Unavailable:
    return Unavailable(
        "The connection to the answer was lost. Ask again: an answer that still runs continues.",
        retry_after_s=1,
    )


def _truncate_body(request: Request) -> None:
    """Close the connection without the end of the body, so that the client sees a truncated one.

    For an HTTP/1.0 client, a normal close is the end of the body: the connection is reset instead.
    """
    transport = cast(asyncio.Transport, request.transport)
    if request.version == "1.0":
        no_linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, no_linger)
    transport.close()


def _keep_alive(request: Request, send: Send) -> Send:
    """Return a `send` for a format without heartbeats: sending nothing counts as activity.

    Otherwise Sanic's response timeout would end an answer that is silent for a minute.
    """

    async def send_or_wait(data: bytes) -> None:
        await send(data)
        if not data and request.stream:
            request.stream.protocol._time = time.monotonic()

    return send_or_wait


def _create_push(request: Request) -> Push:
    """Return a function that writes chunks to the connection of a response that has begun.

    It omits two steps of `response.send`: waiting for slow viewers, and postponing Sanic's response
    timeout. The heartbeats, which are sent by `response.send`, perform both.

    An HTTP/1.0 client understands no chunks: it is pushed none, and gets slices by `response.send`.
    """
    transport = cast(asyncio.Transport, request.transport)
    takes_chunks = request.version != "1.0"

    def push(data: bytes) -> bool:
        is_slow = transport.get_write_buffer_size() > _MAX_BUFFER_BYTES
        if not takes_chunks or is_slow or transport.is_closing():
            return False
        try:
            transport.write(data)
        except RuntimeError:  # raised by uvloop if the connection has just been lost
            return False
        return True

    return push
