"""An upstream's answer: the bytes of its stream in, text that is ready for frames out."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, NoReturn

import httpx2
import msgspec

from chat.errors import UpstreamBroke
from chat.frames import EventDecoder, TextNormaliser
from chat.http_connection import Pace
from chat.transport import BODY, Body

_LINE_MAX = 1 << 24
"""Longest event of an upstream, in bytes: more is no chat completion."""


class Delta(msgspec.Struct):
    """What one chunk adds; the names by which servers call the reasoning differ."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class Choice(msgspec.Struct):
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None


class Usage(msgspec.Struct):
    """Tokens as the upstream reported them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0

    def plus(self, other: "Usage | None") -> "Usage":
        """The tokens of both; unchanged where the other was not reported."""
        if other is None:
            return self
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.total_tokens + other.total_tokens,
        )


class Chunk(msgspec.Struct):
    """A chat completion chunk, or a whole completion where an upstream does not stream."""

    choices: list[Choice] | None = None
    usage: Usage | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(Chunk)

Take = Callable[[str, bool], None]
"""Takes text that is ready for a frame, and whether it is reasoning."""


class Answer:
    """One answer as it comes in: relay it; afterwards it knows how it ended."""

    def __init__(self, response: httpx2.Response, fail: Callable[[Any], NoReturn]) -> None:
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self._fail = fail
        self._whole = "json" in response.headers.get("content-type", "")
        body: Body | None = response.extensions.get(BODY)
        raw = body if body and not self._whole and "content-encoding" not in response.headers else None
        # Of a body that is poured the response is let go, and with it the request and all of the history.
        self._source = raw or response
        self._done = False
        self._take: Take
        self._decoder = EventDecoder()
        self._text = TextNormaliser()
        self._reasoning = TextNormaliser()

    async def relay(self, take: Take, pace: Pace) -> None:
        """Have `take` called with every piece as it comes, reading on when `pace` says so."""
        self._take = take
        source = self._source
        if isinstance(source, Body):
            await source.pour(self._feed, pace)
        elif self._whole:
            self._read(await source.aread())
        else:
            async for part in source.aiter_bytes():
                if self._feed(part):
                    break
                reason_to_read_on = asyncio.Event()
                pace(reason_to_read_on.set)
                await reason_to_read_on.wait()
        if self.finish_reason is None and not self._done:
            raise UpstreamBroke("broke_off", "The model's server broke off in the middle of the answer.")

    async def close(self) -> None:
        """Close the connection, or keep it where all of the answer has come."""
        await self._source.aclose()

    def _feed(self, part: bytes) -> bool:
        for event in self._decoder.feed(part):
            if event.data == "[DONE]":
                self._done = True
                break
            if event.name == "error":
                self._fail(event.data)
            self._read(event.data)
        if self._decoder.pending > _LINE_MAX:
            raise UpstreamBroke("nonsense", "The model's server sent something that is no answer.")
        return self._done

    def _read(self, data: str | bytes) -> None:
        chunk = _decode(data)
        if chunk.error:
            self._fail(chunk.error)
        if chunk.usage:
            self.usage = chunk.usage
        for choice in (chunk.choices or ())[:1]:
            self.finish_reason = choice.finish_reason or self.finish_reason
            delta = choice.delta or choice.message
            if delta is None:
                continue
            thought = delta.reasoning_content or delta.reasoning
            if thought and (thought := self._reasoning.feed(thought)):
                self._take(thought, True)
            if delta.content and (text := self._text.feed(delta.content)):
                self._take(text, False)


def _decode(data: str | bytes) -> Chunk:
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError:
        # Half a surrogate pair, as servers that cut text by UTF-16 send it, passes only the lenient decoder.
        return msgspec.convert(json.loads(data), Chunk)
