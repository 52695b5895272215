"""Asks an OpenAI-compatible API and gives its answer as deltas.

The `openai` package makes the request, with its authorisation, retries, timeouts and errors; the body comes
as raw bytes over a transport of our own and is decoded by `answer`, since the package's own chunk objects
cost some ninety times as much.
"""

import json
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NoReturn
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx2
import msgspec
import openai

from chat.errors import UpstreamError, UpstreamFailed, UpstreamRejected
from chat.upstream.completion import Completion, invalid_response
from chat.upstream.request import ChatMessage
from chat.upstream.transport import Transport

logger = logging.getLogger("holdline.upstream")

_COOLDOWN_S = 30


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
        base_url = base_url or "https://api.openai.com/v1"
        scheme, host = urlsplit(base_url).scheme, urlsplit(base_url).hostname or ""
        self._client = openai.AsyncOpenAI(
            # Local servers want no key, but the package insists on one.
            api_key=api_key or "none",
            base_url=base_url,
            timeout=httpx2.Timeout(timeout_s, connect=10.0),
            max_retries=retries,
            http_client=_http_client(host, scheme),
        )
        self._url = f"{str(self._client.base_url).rstrip('/')}/chat/completions"
        self.name = name or urlsplit(base_url).netloc.rpartition("@")[2]
        self.model = model
        self._usage_asked = True
        self._cooldown_until = 0.0

    @property
    def in_cooldown(self) -> bool:
        """Whether it failed a short while ago, so that others are better asked first."""
        return time.monotonic() < self._cooldown_until

    def cool_down(self) -> None:
        """Ask others first for the next 30 s."""
        self._cooldown_until = time.monotonic() + _COOLDOWN_S

    @asynccontextmanager
    async def ask(
        self, messages: list[ChatMessage], model: str, *, prefill: bool = False
    ) -> AsyncIterator[Completion]:
        """Ask for one answer; leaving the block closes the connection. Raises UpstreamError, also within.

        With `prefill` the last message is the answer's beginning, which the upstream is told to continue.
        `messages` is emptied when its answer begins, for it is much larger than all else that a stream holds.
        """
        try:
            answer = Completion(
                await self._post(messages, model, prefill), self._raise_stream_error
            )
            messages.clear()
            try:
                yield answer
            finally:
                await answer.close()
        except UpstreamError:
            raise
        except openai.OpenAIError as error:
            raise self._to_upstream_error(error, model) from error
        except (TimeoutError, httpx2.TransportError) as error:
            raise self._explain_transport(error) from error
        except (httpx2.DecodingError, msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise invalid_response() from error

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

    async def _post(
        self, messages: list[ChatMessage], model: str, prefill: bool
    ) -> httpx2.Response:
        body: dict[str, Any] = {"model": model, "messages": messages, "stream": True}
        if prefill:
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        if self._usage_asked:
            try:
                return await self._send(body | {"stream_options": {"include_usage": True}})
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if "stream_options" not in str(error.body or error.message):
                    raise
                self._usage_asked = False
        return await self._send(body)

    async def _send(self, body: dict[str, Any]) -> httpx2.Response:
        # Not by `chat.completions.create`, which looks into each message: 0.13 ms a message.
        return await self._client.post(self._url, cast_to=httpx2.Response, body=body, stream=True)

    def _raise_stream_error(self, error: Any) -> NoReturn:
        """Raise for an error object that came inside the stream."""
        if isinstance(error, str):
            try:
                error = json.loads(error)
            except ValueError:
                error = {"message": error}
        if isinstance(error, dict) and isinstance(error.get("error"), dict):
            error = error["error"]
        words = error.get("message") if isinstance(error, dict) else error
        raise UpstreamFailed("upstream", f"The model's server failed: {self._sanitise(words)}")

    def _to_upstream_error(self, error: openai.OpenAIError, model: str) -> UpstreamError:
        if isinstance(error, openai.APIConnectionError):
            return self._explain_transport(error)
        if not isinstance(error, openai.APIStatusError):
            logger.warning("upstream failed: %s", type(error).__name__)
            return UpstreamFailed("upstream", "The model's server failed.")
        status = error.status_code
        logger.warning("upstream answered %d", status)
        if status in (401, 403):
            return UpstreamRejected(
                "authentication",
                "The model's server refused our key. Check OPENAI_API_KEY on the server.",
            )
        if status == 404:
            return UpstreamRejected(
                "not_found",
                f"The model's server does not know the model “{model}” or this address. "
                "Check CHAT_MODEL and OPENAI_BASE_URL (which usually ends in /v1).",
            )
        words = self._sanitise(
            error.body.get("message") if isinstance(error.body, dict) else error.body
        )
        if status == 429:
            return UpstreamFailed(
                "rate_limited",
                f"The model's server has too much to do or the quota is used up: {words}",
            )
        if status >= 500:
            return UpstreamFailed(
                "upstream", f"The model's server failed ({status}). Try again in a moment."
            )
        return UpstreamRejected(
            "refused", f"The model's server refused the question ({status}): {words}"
        )

    def _explain_transport(self, error: BaseException) -> UpstreamError:
        # The package wraps what the transport raised; what was first raised says what it was.
        while error.__cause__ is not None:
            error = error.__cause__
        logger.warning("upstream connection failed: %s", type(error).__name__)
        if isinstance(error, (TimeoutError, httpx2.TimeoutException)):
            return UpstreamFailed("timeout", "The model's server stayed silent for too long.")
        if isinstance(error, OSError) and not isinstance(error, ConnectionResetError):
            return UpstreamFailed(
                "unreachable",
                f"The model's server at {self.name} cannot be reached. Check OPENAI_BASE_URL.",
            )
        return UpstreamFailed("connection_lost", "The model's server broke off the connection.")

    def _sanitise(self, words: object) -> str:
        """The upstream's own words, cut short and without what may be a key."""
        text = " ".join(str(words or "no reason given").encode(errors="replace").decode().split())
        if self._key:
            text = text.replace(self._key, "…")
        text = re.sub(r"\b(sk|key|Bearer)[-_ ][\w*.\-]{4,}", "…", text)
        return text if len(text) <= 300 else text[:299] + "…"


def _http_client(host: str, scheme: str) -> httpx2.AsyncClient:
    """Our own transport, or aiohttp where a proxy (HTTP_PROXY and the like) lies between."""
    proxies = getproxies()
    # A proxy cannot reach what listens on this very machine.
    here = host in ("localhost", "::1") or host.startswith("127.")
    if here or proxy_bypass(host) or not (proxies.get(scheme) or proxies.get("all")):
        return openai.DefaultAsyncHttpxClient(transport=Transport(), trust_env=False)
    # To aiohttp 0 means any number; None would leave its own limit of 100 in place.
    limits = httpx2.Limits(max_connections=0, max_keepalive_connections=100)
    return openai.DefaultAioHttpClient(limits=limits)
