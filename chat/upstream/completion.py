"""An upstream's answer: the bytes of its stream in, text that is ready for frames out."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, NoReturn

import httpx2
import msgspec

from chat.errors import UpstreamFailed, UpstreamRejected
from chat.event_stream import EventDecoder, TextNormaliser
from chat.upstream.connection import Pace
from chat.upstream.transport import BODY, Body

_EVENT_MAX = 1 << 24
"""Longest event or whole answer of an upstream, in bytes: more is no chat completion."""


class Delta(msgspec.Struct, gc=False):
    """What one chunk adds; the names by which servers call the reasoning differ, and some send parts."""

    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class Choice(msgspec.Struct, gc=False):
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None


class Usage(msgspec.Struct):
    """Tokens as the upstream reported them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0

    @classmethod
    def reported(cls, counts: dict[str, Any]) -> "Usage":
        """What of an upstream's counts are numbers: odd ones are no reason to lose an answer."""
        found = {name: counts.get(name) for name in cls.__struct_fields__}
        return cls(
            **{name: int(n) for name, n in found.items() if isinstance(n, (int, float)) and n >= 0}
        )

    def plus(self, other: "Usage | None") -> "Usage":
        """The tokens of both; unchanged where the other was not reported."""
        if other is None:
            return self
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.total_tokens + other.total_tokens,
        )


class Chunk(msgspec.Struct, gc=False):
    """A chat completion chunk, or a whole completion where an upstream does not stream."""

    choices: list[Choice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(Chunk)

Take = Callable[[str, bool], None]
"""Takes text that is ready for a frame, and whether it is reasoning."""


class Completion:
    """One answer as it comes in: relay it; afterwards it knows how it ended."""

    def __init__(self, response: httpx2.Response, fail: Callable[[Any], NoReturn]) -> None:
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self._fail = fail
        self._whole = "json" in response.headers.get("content-type", "")
        body: Body | None = response.extensions.get(BODY)
        raw = (
            body
            if body and not self._whole and "content-encoding" not in response.headers
            else None
        )
        # Of a body that is poured the response is let go, and with it the request and all of the history.
        self._source = raw or response
        self._done = False
        self._take: Take
        self._joins: Callable[[], bool]
        self._decoder = EventDecoder()
        self._normalisers = TextNormaliser(), TextNormaliser()
        self._said: list[str] = []
        self._reasons = False

    async def relay(self, take: Take, pace: Pace, joins: Callable[[], bool]) -> None:
        """Have `take` called with every delta as it comes, reading on when `pace` says so.

        While `joins` says so too, deltas that came together go on as one.
        """
        self._take, self._joins = take, joins
        try:
            await self._receive(pace)
        except (httpx2.TransportError, TimeoutError):
            if self.finish_reason is None:
                raise
            # The model has said that it is done: only the end of the line got lost.
        if self.finish_reason is None and not self._done:
            raise UpstreamFailed(
                "connection_lost", "The model's server broke off in the middle of the answer."
            )

    async def _receive(self, pace: Pace) -> None:
        source = self._source
        if isinstance(source, Body):
            await source.pour(self._feed, pace)
            return
        whole = bytearray()
        async for part in source.aiter_bytes():
            if self._whole:
                whole += part
                if len(whole) > _EVENT_MAX:
                    raise invalid_response()
                continue
            if self._feed(part):
                return
            reason_to_read_on = asyncio.Event()
            pace(reason_to_read_on.set)
            await reason_to_read_on.wait()
        if self._whole:
            self._read(bytes(whole))
            self._hand_on()

    async def close(self) -> None:
        """Close the connection, or keep it where all of the answer has come."""
        await self._source.aclose()

    def _feed(self, part: bytes) -> bool:
        try:
            for event in self._decoder.feed(part):
                if event.data.startswith("[DONE]"):
                    self._done = True
                    break
                if event.name == "message":
                    self._read(event.data)
                elif event.name == "error" and self.finish_reason is None:
                    self._fail(event.data)
        finally:
            self._hand_on()
        if self._decoder.pending > _EVENT_MAX:
            raise invalid_response()
        return self._done

    def _read(self, data: str | bytes) -> None:
        chunk = _decode(data)
        if chunk.error and self.finish_reason is None:
            self._fail(chunk.error)
        if chunk.usage:
            self.usage = Usage.reported(chunk.usage)
        for choice in (chunk.choices or ())[:1]:
            if choice.finish_reason:
                self.finish_reason = TextNormaliser().feed(choice.finish_reason)
            delta = choice.delta or choice.message
            if delta is None:
                continue
            thought = delta.reasoning_content or delta.reasoning
            if thought:
                self._add(thought, True)
            said = delta.content if isinstance(delta.content, str) else _joined(delta.content)
            if said:
                self._add(said, False)

    def _add(self, text: str, reasons: bool) -> None:
        if reasons is not self._reasons:
            self._hand_on()
            self._reasons = reasons
        self._said.append(text)

    def _hand_on(self) -> None:
        said, self._said = self._said, []
        if len(said) > 1 and self._joins():
            said = ["".join(said)]
        feed = self._normalisers[self._reasons].feed
        for text in map(feed, said):
            if text:
                self._take(text, self._reasons)


def invalid_response() -> UpstreamRejected:
    """What is to be raised for an answer that is none: who sends such once will do it again."""
    return UpstreamRejected(
        "invalid_response", "The model's server sent something that is no answer."
    )


def _joined(parts: list[Any] | None) -> str:
    """The text of a content that comes in parts."""
    texts = [part.get("text") for part in parts or () if isinstance(part, dict)]
    return "".join(text for text in texts if isinstance(text, str))


def _decode(data: str | bytes) -> Chunk:
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError:
        if not data.strip():
            return Chunk()
        # Half a surrogate pair, as servers that cut text by UTF-16 send it, passes only the lenient decoder.
        return msgspec.convert(json.loads(data), Chunk)
