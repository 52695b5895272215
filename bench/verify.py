"""Check that the bytes of a stream are the complete answer, in order."""

import re
from collections.abc import Iterator, Sequence

import msgspec

from bench.job import IncompleteStream, StreamRequest
from bench.upstream import format_token
from chat.event_stream import Event, EventDecoder


def verify(raw: bytes, request: StreamRequest) -> None:
    """Raise IncompleteStream unless the response has every expected token and a terminal event."""
    text = _read_text(_read_events(raw), request.tokens)
    expected = _join_tokens(request.viewed, request.tokens)
    if text != expected:
        pairs = enumerate(zip(text, expected, strict=False))
        at = next((i for i, (a, b) in pairs if a != b), min(len(text), len(expected)))
        raise IncompleteStream(
            f"{len(text)} of {len(expected)} characters; the first difference is at {at}: "
            f"{text[at:][:80]!r}"
        )


def _join_tokens(first: int, end: int) -> str:
    return "".join(map(format_token, range(first, end)))


def _read_events(raw: bytes) -> Sequence[Event]:
    headers, separator, body = raw.partition(b"\r\n\r\n")
    if not separator or not headers.startswith(b"HTTP/1.1 200"):
        raise IncompleteStream(f"the response is {raw[:300]!r}")
    if re.search(rb"(?i)^transfer-encoding: *chunked", headers, re.MULTILINE):
        body = b"".join(_decode_chunks(body))
    events = list(EventDecoder().feed(body))
    if not events:
        raise IncompleteStream(f"the body holds no event: {body[-200:]!r}")
    return events


def _read_text(events: Sequence[Event], tokens: int) -> str:
    """Return the text of either event format; raises IncompleteStream without a terminal event."""
    *deltas, terminal = events
    if terminal.data == "[DONE]":
        return "".join(map(_read_openai_delta, deltas))
    if terminal.name != "end":
        raise IncompleteStream(f"the last event is {terminal!r}")
    if terminal.data not in ("", _join_tokens(0, tokens)):
        raise IncompleteStream(f"the last event holds another answer: {terminal.data[:200]!r}")
    return "".join(event.data for event in deltas if event.name == "message")


def _read_openai_delta(event: Event) -> str:
    chunk = msgspec.json.decode(event.data)
    return "".join(choice["delta"].get("content") or "" for choice in chunk["choices"][:1])


def _decode_chunks(body: bytes) -> Iterator[bytes]:
    """Yield the chunks of a body (RFC 9112 §7.1); raises IncompleteStream if it is truncated."""
    at = 0
    while True:
        end = body.find(b"\r\n", at)
        if end < 0:
            raise IncompleteStream("the chunked body is truncated")
        size = int(body[at:end].partition(b";")[0], 16)
        at = end + 2 + size
        if body[at : at + 2] != b"\r\n":
            raise IncompleteStream("the chunked body is truncated")
        if size == 0:
            return
        yield body[end + 2 : at]
        at += 2
