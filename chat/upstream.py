"""Asks an OpenAI-compatible API and gives its answer as deltas.

The `openai` package makes the request, with its authorisation, retries, timeouts and errors; the body is
read as raw bytes over its aiohttp transport and decoded here, since the package's own chunk objects cost
some ninety times as much.
"""

import json
import logging
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NoReturn
from urllib.parse import urlsplit

import httpx2
import msgspec
import openai

from chat.context import ChatMessage
from chat.errors import UpstreamBroke, UpstreamError, UpstreamRefused
from chat.frames import EventDecoder, TextNormaliser

logger = logging.getLogger("holdline.upstream")

_LINE_MAX = 1 << 24
"""Longest event of an upstream, in bytes: more is no chat completion."""

_REST_S = 30


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


class Piece(msgspec.Struct):
    """Text to show, ready for a frame: of the answer, or of the reasoning before it."""

    text: str
    reasoning: bool = False


class Answer:
    """One answer as it comes in: iterate it for lists of pieces; afterwards it knows how it ended."""

    def __init__(self, body: AsyncIterator[bytes], streamed: bool, fail: Callable[[Any], NoReturn]) -> None:
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self._body = body
        self._streamed = streamed
        self._fail = fail
        self._done = False
        self._text = TextNormaliser()
        self._reasoning = TextNormaliser()

    async def __aiter__(self) -> AsyncIterator[list[Piece]]:
        if self._streamed:
            async for pieces in self._read_events():
                yield pieces
        else:
            yield self._take(b"".join([part async for part in self._body]))
        if self.finish_reason is None and not self._done:
            raise UpstreamBroke("broke_off", "The model's server broke off in the middle of the answer.")

    async def _read_events(self) -> AsyncIterator[list[Piece]]:
        decoder = EventDecoder()
        async for part in self._body:
            pieces: list[Piece] = []
            for event in decoder.feed(part):
                if event.data == "[DONE]":
                    self._done = True
                    break
                if event.name == "error":
                    self._fail(event.data)
                pieces += self._take(event.data)
            if decoder.pending > _LINE_MAX:
                raise UpstreamBroke("nonsense", "The model's server sent something that is no answer.")
            if pieces:
                yield pieces
            if self._done:
                return

    def _take(self, data: str | bytes) -> list[Piece]:
        chunk = _decode(data)
        if chunk.error:
            self._fail(chunk.error)
        if chunk.usage:
            self.usage = chunk.usage
        pieces: list[Piece] = []
        for choice in (chunk.choices or ())[:1]:
            self.finish_reason = choice.finish_reason or self.finish_reason
            delta = choice.delta or choice.message
            if delta is None:
                continue
            if reasoning := self._reasoning.feed(delta.reasoning_content or delta.reasoning or ""):
                pieces.append(Piece(reasoning, reasoning=True))
            if text := self._text.feed(delta.content or ""):
                pieces.append(Piece(text))
        return pieces


class Upstream:
    """One OpenAI-compatible API.

    It is asked for `model`, or where that is "" for the one that the turn names. `retries` is how often a
    request is made again that failed before its answer began.
    """

    def __init__(
        self,
        *,
        base_url: str | None,
        api_key: str | None,
        timeout_s: float,
        name: str = "",
        model: str = "",
        retries: int = 2,
    ) -> None:
        self._key = api_key or ""
        host = urlsplit(base_url or "").hostname or ""
        self._client = openai.AsyncOpenAI(
            # Local servers want no key, but the package insists on one.
            api_key=api_key or "none",
            base_url=base_url or "https://api.openai.com/v1",
            timeout=httpx2.Timeout(timeout_s, connect=10.0),
            max_retries=retries,
            http_client=openai.DefaultAioHttpClient(
                # To aiohttp 0 means any number; None would leave its own limit of 100 in place.
                limits=httpx2.Limits(max_connections=0, max_keepalive_connections=100),
                # A proxy (HTTP_PROXY) cannot reach what listens on this very machine.
                trust_env=host != "localhost" and not host.startswith("127.") and host != "::1",
            ),
        )
        self.name = name or urlsplit(str(self._client.base_url)).hostname or "upstream"
        self.model = model
        self._usage_asked = True
        self._rests_until = 0.0

    @property
    def resting(self) -> bool:
        """Whether it failed a short while ago, so that others are better asked first."""
        return time.monotonic() < self._rests_until

    def rest(self) -> None:
        """Ask others first for the next 30 s."""
        self._rests_until = time.monotonic() + _REST_S

    @asynccontextmanager
    async def ask(
        self, messages: list[ChatMessage], model: str, *, prefill: bool = False
    ) -> AsyncIterator[Answer]:
        """Ask for one answer; leaving the block closes the connection. Raises UpstreamError, also within.

        With `prefill` the last message is the answer's beginning, which the upstream is told to continue.
        """
        try:
            async with self._open(messages, model, prefill) as response:
                streamed = "json" not in response.headers.get("content-type", "")
                yield Answer(response.iter_bytes(), streamed, lambda error: self._fail_inside(error, model))
        except UpstreamError:
            raise
        except openai.OpenAIError as error:
            raise self._explain(error, model) from error
        except (TimeoutError, httpx2.TransportError) as error:
            raise self._explain_transport(error) from error
        except (msgspec.MsgspecError, ValueError) as error:
            raise UpstreamBroke("nonsense", "The model's server sent something that is no answer.") from error

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

    @asynccontextmanager
    async def _open(self, messages: list[ChatMessage], model: str, prefill: bool) -> AsyncIterator[Any]:
        create = self._client.chat.completions.with_streaming_response.create
        arguments: dict[str, Any] = {"model": model, "messages": messages, "stream": True}
        if prefill:
            arguments["extra_body"] = {"continue_final_message": True, "add_generation_prompt": False}
        if self._usage_asked:
            try:
                async with create(**arguments, stream_options={"include_usage": True}) as response:
                    yield response
                    return
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if "stream_options" not in str(error.body or error.message):
                    raise
                self._usage_asked = False
        async with create(**arguments) as response:
            yield response

    def _fail_inside(self, error: Any, model: str) -> NoReturn:
        """Raise for an error object that came inside the stream."""
        if isinstance(error, str):
            try:
                error = json.loads(error)
            except ValueError:
                error = {"message": error}
        if isinstance(error, dict) and isinstance(error.get("error"), dict):
            error = error["error"]
        words = error.get("message") if isinstance(error, dict) else error
        raise UpstreamBroke("upstream", f"The model's server failed: {self._quote(words)}")

    def _explain(self, error: openai.OpenAIError, model: str) -> UpstreamError:
        if isinstance(error, openai.APIConnectionError):
            return self._explain_transport(error)
        if not isinstance(error, openai.APIStatusError):
            logger.warning("upstream failed: %s", type(error).__name__)
            return UpstreamBroke("upstream", "The model's server failed.")
        status = error.status_code
        logger.warning("upstream answered %d", status)
        if status in (401, 403):
            return UpstreamRefused(
                "authentication", "The model's server refused our key. Check OPENAI_API_KEY on the server."
            )
        if status == 404:
            return UpstreamRefused(
                "not_found",
                f"The model's server does not know the model “{model}” or this address. "
                "Check CHAT_MODEL and OPENAI_BASE_URL (which usually ends in /v1).",
            )
        words = self._quote(error.body.get("message") if isinstance(error.body, dict) else error.body)
        if status == 429:
            return UpstreamBroke(
                "rate_limited", f"The model's server has too much to do or the quota is used up: {words}"
            )
        if status >= 500:
            return UpstreamBroke("upstream", f"The model's server failed ({status}). Try again in a moment.")
        return UpstreamRefused("refused", f"The model's server refused the question ({status}): {words}")

    def _explain_transport(self, error: BaseException) -> UpstreamError:
        # The transport calls a refused connection a timeout; what was first raised tells them apart.
        while error.__cause__ is not None:
            error = error.__cause__
        logger.warning("upstream connection failed: %s", type(error).__name__)
        if isinstance(error, (TimeoutError, httpx2.TimeoutException)):
            return UpstreamBroke("timeout", "The model's server stayed silent for too long.")
        if isinstance(error, OSError) and not isinstance(error, ConnectionResetError):
            return UpstreamBroke(
                "unreachable", f"The model's server at {self.name} cannot be reached. Check OPENAI_BASE_URL."
            )
        return UpstreamBroke("broke_off", "The model's server broke off the connection.")

    def _quote(self, words: object) -> str:
        """The upstream's own words, cut short and without what may be a key."""
        text = " ".join(str(words or "no reason given").split())
        if self._key:
            text = text.replace(self._key, "…")
        text = re.sub(r"\b(sk|key|Bearer)[-_ ][\w*.\-]{4,}", "…", text)
        return text if len(text) <= 300 else text[:299] + "…"


def _decode(data: str | bytes) -> Chunk:
    try:
        return msgspec.json.decode(data, type=Chunk)
    except msgspec.MsgspecError:
        # Half a surrogate pair, as servers that cut text by UTF-16 send it, passes only the lenient decoder.
        return msgspec.convert(json.loads(data), Chunk)
