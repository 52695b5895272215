"""Decode one response of an upstream: bytes of its stream in, deltas for the log out."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httpx2

from chat.errors import UpstreamError, UpstreamFailed
from chat.event_stream import TextNormaliser
from chat.upstream.failures import Failures
from chat.upstream.http.transport import BODY, Body, BufferedBody
from chat.upstream.response.body import BodyDecoder, BodyError
from chat.upstream.response.chunk_reader import ChunkReader, DeltaKind, Piece
from chat.upstream.response.chunks import Chunk
from chat.upstream.response.endings import Ending
from chat.upstream.response.inline_reasoning import ReasoningSplitter

_MAX_TAKE_S = 0.01
"""Seconds of decoding in one `take`; a flood of lines must not delay other answers."""

_PART_BYTES = 16 << 10
"""Bytes that are decoded between two looks at the clock."""

_MAX_TICK_S = 1.0
"""Received bytes are read within this time, in seconds, while Redis is available."""

MAX_TAIL_S = 2.0
"""A response is over if nothing follows its finish reason for this long, in seconds."""

Delta = tuple[str, int]
"""A text, normalised for the log, and its kind."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Limits of an upstream's silence, in seconds.

    `silence_s` bounds the time without a byte and, after the first delta, without a delta.
    `first_token_s` bounds the time between the response's headers and its first delta, during which
    the upstream may send comments.
    """

    silence_s: float = 120
    first_token_s: float = 300


class Completion:
    """A response while it is received: its deltas are pulled; `reader` knows the rest of it."""

    def __init__(
        self,
        response: httpx2.Response,
        failures: Failures,
        timeouts: Timeouts,
        *,
        keeps_extra: bool = False,
    ) -> None:
        self.reader = ChunkReader(failures, keeps_extra=keeps_extra)
        self.takes_reasoning_back = False
        """Whether the reasoning was text: its tag was never closed. `flush` returns the text."""
        self._failures = failures
        # Keep the body only: the response holds the request with its whole history.
        body: Body | None = response.extensions.get(BODY)
        self._body = BufferedBody(response) if body is None else body
        self._decoder = BodyDecoder()
        self._rest = b""
        """Received bytes that are decoded by the next `take`."""
        self._splitter = ReasoningSplitter()
        self._failure: Exception | None = None
        self._lost: Exception | None = None
        self._is_over = False
        self._has_text = False
        self._has_reasoning = False
        self._normalisers = TextNormaliser(), TextNormaliser(), TextNormaliser()
        self._loop = asyncio.get_running_loop()
        self._timeouts = timeouts
        self._last_delta_at = self._loop.time()
        self._last_take_at = self._last_delta_at
        self._is_waiting = True
        self._timer: asyncio.TimerHandle | None = None
        self._limit_silence(timeouts.first_token_s)

    def notify_when_ready(self, on_ready: Callable[[], None]) -> None:
        """Call `on_ready` when there is something to take, and again after each empty `take`."""

        def notify() -> None:
            self._is_waiting = False
            on_ready()

        self._body.notify_when_ready(notify)

    def take(self) -> tuple[list[Delta], bool]:
        """Return the deltas received so far, coalesced, and whether any byte was received."""
        self._last_take_at = self._loop.time()
        data = b"" if self._is_over or self._failure else self._rest or self._body.take()
        if not data:
            self._is_waiting = True
            return [], False
        deltas = self._decode(self._feed(data))
        if deltas:
            self._last_delta_at = self._loop.time()
            if self.reader.ending is None and self._silence_s != self._timeouts.silence_s:
                self._limit_silence(self._timeouts.silence_s)
        if self._decoder.is_done:
            self.end()
        return deltas, True

    def flush(self) -> list[Delta]:
        """Return the last deltas, which the end of the body completes; call it after `wait`."""
        if self._failure:
            return []
        deltas = [] if self._is_over else self._decode(self._feed_last())
        pieces: list[Piece] = []
        # Without a clean end it is unknown whether the tag would have been closed.
        is_complete = self.reader.ending is Ending.COMPLETE or (
            self.reader.ending is None and self._decoder.is_done
        )
        self.takes_reasoning_back = self._splitter.is_open and is_complete
        for text, is_reasoning in self._splitter.end(is_complete):
            pieces.append(([text], is_reasoning))
        return deltas + self._normalise(pieces)

    def fail(self, error: Exception) -> None:
        """End the response with an error, which `check` raises."""
        self._failure = self._failure or error
        self.end()

    def end(self) -> None:
        """Stop reading; `wait` returns."""
        self._is_over = True
        self._body.end()

    async def wait(self) -> None:
        """Return when the response has ended or failed; its remaining bytes can still be taken."""
        try:
            await self._body.wait()
        except (httpx2.RequestError, TimeoutError) as error:
            self._lost = error

    def check(self) -> Ending:
        """Return how the response ended; raise its failure if it was not a complete answer.

        After a finish reason, a lost connection is not a failure. Without one, `[DONE]` or the
        token counts show that the text is complete. Raises UpstreamError, httpx2.RequestError or
        TimeoutError.
        """
        if self._failure:
            raise self._failure
        if self.reader.ending is Ending.INTERRUPTED:
            raise self._failures.interrupted(self.reader.words)
        if self.reader.ending is Ending.COMPLETE and self.reader.is_refused:
            return Ending.REFUSED
        if (
            self.reader.ending is Ending.COMPLETE
            and self.reader.has_tool_call
            and not self._has_text
        ):
            return Ending.TOOL_CALL
        if self.reader.ending:
            return self.reader.ending
        if self._lost:
            raise self._lost
        is_counted = self.reader.ends_with_usage and not self._decoder.is_cut
        if self._has_text and (self._decoder.is_done or self._decoder.is_whole or is_counted):
            return Ending.COMPLETE
        if self._has_text or (self._has_reasoning and not self._decoder.is_done):
            raise UpstreamFailed(
                "connection_lost", "The model provider ended its response in the middle."
            )
        if self.reader.has_tool_call:
            return Ending.TOOL_CALL
        raise self._failures.no_answer(self.reader.words or self._decoder.words)

    async def close(self) -> None:
        """Close the connection, or keep it if the response was received completely."""
        if self._timer:
            self._timer.cancel()
        await self._body.aclose()

    def _limit_silence(self, silence_s: float) -> None:
        """Set the longest time between two deltas from now on."""
        self._silence_s = silence_s
        if self._timer:
            self._timer.cancel()
        self._timer = self._loop.call_later(silence_s, self._check_silence)

    def _check_silence(self) -> None:
        """Fail if the last delta is too long ago; comments do not count after the first delta."""
        now = self._loop.time()
        if not self._is_waiting and now - self._last_take_at > _MAX_TICK_S:
            self._last_delta_at = now  # this side does not read: Redis is unavailable
        left = self._last_delta_at + self._silence_s - now
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_silence)
        elif self.reader.ending is None:
            self.fail(httpx2.ReadTimeout("the server sent no delta"))
        else:
            self.end()

    def _feed(self, data: bytes) -> Iterator[Chunk]:
        """Yield the chunks that `data` completes, for a limited time; keep the rest of it."""
        until = self._loop.time() + _MAX_TAKE_S
        self._rest = b""
        for end in range(_PART_BYTES, len(data) + _PART_BYTES, _PART_BYTES):
            yield from self._decoder.feed(data[end - _PART_BYTES : end])
            if self._decoder.is_done:
                return
            if self._loop.time() > until:
                self._rest = data[end:]
                return

    def _feed_last(self) -> Iterator[Chunk]:
        """Yield the chunks of the remaining bytes, and those that their end completes."""
        yield from self._decoder.feed(self._rest + self._body.take())
        if not self._decoder.is_done:
            yield from self._decoder.flush()

    def _decode(self, chunks: Iterator[Chunk]) -> list[Delta]:
        """Return the deltas of some chunks, as far as they can be decoded."""
        pieces: list[Piece] = []
        try:
            for chunk in chunks:
                self._read(chunk, pieces)
        except UpstreamError as error:
            self.fail(error)
        except RecursionError:  # a value is nested too deeply to be passed on
            self.fail(self._failures.invalid_response())
        except BodyError as error:
            if self.reader.ending is not None:
                self.end()
            elif error.page:
                self.fail(self._failures.web_page(error.page))
            else:
                self.fail(self._lost or self._failures.invalid_response())
        return self._normalise(pieces)

    def _normalise(self, pieces: list[Piece]) -> list[Delta]:
        deltas = []
        for texts, kind in pieces:
            text = texts[0] if len(texts) == 1 else "".join(texts)
            if kind == DeltaKind.EXTRA:
                deltas.append((text, kind))
            elif kind == DeltaKind.TEXT and not self._splitter.is_decided:
                deltas += self._split(text)
            elif text := self._normalisers[kind].feed(text):
                self._note_kind(kind)
                deltas.append((text, kind))
        return deltas

    def _note_kind(self, kind: int) -> None:
        if kind == DeltaKind.REASONING:
            self._has_reasoning = True
        else:
            self._has_text = True

    def _split(self, content: str) -> list[Delta]:
        """Return the deltas of content that may contain reasoning between tags."""
        found = self._splitter.feed(content)
        normalised = [(self._normalisers[kind].feed(text), kind) for text, kind in found]
        deltas: list[Delta] = [delta for delta in normalised if delta[0]]
        for _, kind in deltas:
            self._note_kind(kind)
        return deltas

    def _read(self, chunk: Chunk, pieces: list[Piece]) -> None:
        if self.reader.read(chunk, pieces):
            # Some gateways send a finish reason in every chunk: read on while text arrives.
            self._last_delta_at = self._loop.time()
            self._limit_silence(MAX_TAIL_S)
