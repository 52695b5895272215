"""One response of an upstream: the bytes of its stream in, deltas that fit a log out."""

import json
from collections.abc import Callable
from typing import Any

import httpx2
import msgspec

from chat.errors import UpstreamError, UpstreamFailed
from chat.event_stream import EventDecoder, TextNormaliser
from chat.upstream.failures import Failures
from chat.upstream.transport import BODY, Body, BufferedBody

_MAX_EVENT_BYTES = 16 << 20
"""A longer event, or whole response, is not a chat completion."""


class ChunkDelta(msgspec.Struct, gc=False):
    """The text of one chunk. Servers name the reasoning differently, and some send parts."""

    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class Choice(msgspec.Struct, gc=False):
    delta: ChunkDelta | None = None
    message: ChunkDelta | None = None
    finish_reason: str | None = None


class Usage(msgspec.Struct):
    """Tokens as the upstream reported them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0

    @classmethod
    def from_report(cls, counts: dict[str, Any]) -> "Usage":
        """Return an upstream's counts; values that are not numbers are ignored."""
        found = {name: counts.get(name) for name in cls.__struct_fields__}
        return cls(
            **{name: int(n) for name, n in found.items() if isinstance(n, (int, float)) and n >= 0}
        )

    def add(self, other: "Usage | None") -> "Usage":
        """Return the tokens of both requests."""
        if other is None:
            return self
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.total_tokens + other.total_tokens,
        )


class Chunk(msgspec.Struct, gc=False):
    """A chat completion chunk, or a whole completion if an upstream does not stream."""

    choices: list[Choice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(Chunk)


Delta = tuple[str, bool]
"""A text that fits a log, and whether it is reasoning."""

_Piece = tuple[list[str], bool]
"""Texts of one kind that arrived together."""


class Completion:
    """A response while it is received: its deltas are pulled."""

    def __init__(self, response: httpx2.Response, failures: Failures) -> None:
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self._failures = failures
        self._is_whole = "json" in response.headers.get("content-type", "")
        body: Body | None = response.extensions.get(BODY)
        is_encoded = "content-encoding" in response.headers
        # Keep the body only: the response holds the request with its whole history.
        self._body = BufferedBody(response) if body is None or is_encoded else body
        self._whole = bytearray()
        self._is_done = False
        self._failure: Exception | None = None
        self._lost: Exception | None = None
        self._events = EventDecoder()
        self._normalisers = TextNormaliser(), TextNormaliser()

    def notify_when_ready(self, on_ready: Callable[[], None]) -> None:
        """Call `on_ready` when there is something to take, and again after each empty `take`."""
        self._body.notify_when_ready(on_ready)

    def take(self) -> tuple[list[Delta], bool]:
        """Return the deltas received so far, coalesced, and whether any byte was received."""
        data = b"" if self._is_done or self._failure else self._body.take()
        if not data:
            return [], False
        if not self._is_whole:
            return self._decode(data, self._decode_events), True
        self._whole += data
        if len(self._whole) > _MAX_EVENT_BYTES:
            self.fail(self._failures.invalid_response())
        return [], True

    def flush(self) -> list[Delta]:
        """Return the deltas that only the end of the body completes; call it after `wait`."""
        whole, self._whole = bytes(self._whole), bytearray()
        if not whole or self._failure:
            return []
        return self._decode(whole, self._decode_chunk)

    def fail(self, error: Exception) -> None:
        """End the response with an error, which `check` raises."""
        self._failure = self._failure or error
        self._body.end()

    async def wait(self) -> None:
        """Return when the response has ended or failed; its remaining bytes can still be taken."""
        try:
            await self._body.wait()
        except (httpx2.RequestError, TimeoutError) as error:
            self._lost = error

    def check(self) -> None:
        """Raise the failure of a response, or an error if it has ended without a finish reason.

        Raises UpstreamError, httpx2.RequestError or TimeoutError. After a finish reason or `[DONE]`
        a lost connection is no failure: the answer is complete.
        """
        if self._failure:
            raise self._failure
        if self.finish_reason is None and not self._is_done:
            raise self._lost or UpstreamFailed(
                "connection_lost", "The model provider ended its response in the middle."
            )

    async def close(self) -> None:
        """Close the connection, or keep it if the response was received completely."""
        await self._body.aclose()

    def _decode(self, data: bytes, decode: Callable[[bytes, list[_Piece]], None]) -> list[Delta]:
        """Return the deltas of some bytes, as far as they can be decoded."""
        pieces: list[_Piece] = []
        try:
            decode(data, pieces)
        except UpstreamError as error:
            self.fail(error)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            self.fail(self._lost or self._failures.invalid_response())
        deltas = []
        for texts, is_reasoning in pieces:
            text = texts[0] if len(texts) == 1 else "".join(texts)
            if text := self._normalisers[is_reasoning].feed(text):
                deltas.append((text, is_reasoning))
        return deltas

    def _decode_events(self, data: bytes, pieces: list[_Piece]) -> None:
        for event in self._events.feed(data):
            if event.data.startswith("[DONE]"):
                self._is_done = True
                self._body.end()
                return
            if event.name == "message":
                self._decode_chunk(event.data, pieces)
            elif event.name == "error" and self.finish_reason is None:
                raise self._failures.from_stream(event.data)
        if self._events.pending > _MAX_EVENT_BYTES:
            raise self._failures.invalid_response()

    def _decode_chunk(self, data: str | bytes, pieces: list[_Piece]) -> None:
        chunk = _parse(data)
        if chunk.error and self.finish_reason is None:
            raise self._failures.from_stream(chunk.error)
        if chunk.usage:
            self.usage = Usage.from_report(chunk.usage)
        for choice in (chunk.choices or ())[:1]:
            if choice.finish_reason:
                self.finish_reason = TextNormaliser().feed(choice.finish_reason)
            delta = choice.delta or choice.message
            if delta is None:
                continue
            if reasoning := delta.reasoning_content or delta.reasoning:
                _append(pieces, reasoning, True)
            content = delta.content
            if text := content if isinstance(content, str) else _join_parts(content):
                _append(pieces, text, False)


def _append(pieces: list[_Piece], text: str, is_reasoning: bool) -> None:
    """Add a text; it joins the last piece if that is of the same kind."""
    if pieces and pieces[-1][1] is is_reasoning:
        pieces[-1][0].append(text)
    else:
        pieces.append(([text], is_reasoning))


def _join_parts(parts: list[Any] | None) -> str:
    """Return the text of a content that is a list of parts."""
    texts = [part.get("text") for part in parts or () if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


def _parse(data: str | bytes) -> Chunk:
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError:
        if not data.strip():
            return Chunk()
        # Half a surrogate pair, which servers that cut text by UTF-16 send, passes only the lenient
        # decoder.
        return msgspec.convert(json.loads(data), Chunk)
