"""Request an answer from an OpenAI-compatible API.

The `openai` package makes the request, with its authorisation, retries, timeouts and errors. The
body is received as raw bytes over Holdline's transport and decoded by `completion`, because the
package's chunk objects cost about ninety times as much.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai

from chat.errors import UpstreamError
from chat.upstream.completion import Completion
from chat.upstream.failures import Failures
from chat.upstream.http_client import NO_KEY, create_http_client
from chat.upstream.request import ChatMessage

_COOLDOWN_S = 30

_CONNECT_TIMEOUT_S = 10.0


class Upstream:
    """One OpenAI-compatible API.

    `model` overrides the turn's model; "" means no override. `retries` bounds the requests after a
    first one that failed before its response began.
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
        base_url = base_url or "https://api.openai.com/v1"
        scheme, host = urlsplit(base_url).scheme, urlsplit(base_url).hostname or ""
        self._client = openai.AsyncOpenAI(
            # Local servers need no key, but the package insists on one.
            api_key=api_key or NO_KEY,
            base_url=base_url,
            timeout=httpx2.Timeout(timeout_s, connect=_CONNECT_TIMEOUT_S),
            max_retries=retries,
            http_client=create_http_client(host, scheme),
        )
        self._url = f"{str(self._client.base_url).rstrip('/')}/chat/completions"
        self.name = name or urlsplit(base_url).netloc.rpartition("@")[2]
        self.model = model
        self._failures = Failures(self.name, api_key or "")
        self._requests_usage = True
        self._cooldown_until = 0.0

    @property
    def in_cooldown(self) -> bool:
        """Return whether the upstream failed a short while ago, so that others are tried first."""
        return time.monotonic() < self._cooldown_until

    def cool_down(self) -> None:
        """Try others first for the next 30 s."""
        self._cooldown_until = time.monotonic() + _COOLDOWN_S

    @asynccontextmanager
    async def request(
        self, messages: list[ChatMessage], model: str, *, prefill: bool = False
    ) -> AsyncIterator[Completion]:
        """Request one answer; leaving the block closes the connection. Raises UpstreamError.

        With `prefill` the last message is the partial answer, for the upstream to continue.
        `messages` is emptied when the response begins: it is the largest object of a stream.
        """
        try:
            completion = Completion(await self._post(messages, model, prefill), self._failures)
            messages.clear()
            try:
                yield completion
            finally:
                await completion.close()
        except UpstreamError:
            raise
        except openai.OpenAIError as error:
            raise self._failures.from_openai(error, model) from error
        except (TimeoutError, httpx2.TransportError) as error:
            raise self._failures.from_transport(error) from error
        except httpx2.DecodingError as error:
            raise self._failures.invalid_response() from error

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

    async def _post(
        self, messages: list[ChatMessage], model: str, prefill: bool
    ) -> httpx2.Response:
        body: dict[str, Any] = {"model": model, "messages": messages, "stream": True}
        if prefill:
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        if self._requests_usage:
            try:
                return await self._send(body | {"stream_options": {"include_usage": True}})
            except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
                if "stream_options" not in str(error.body or error.message):
                    raise
                self._requests_usage = False
        return await self._send(body)

    async def _send(self, body: dict[str, Any]) -> httpx2.Response:
        # `chat.completions.create` would inspect each message, which takes 0.13 ms a message.
        return await self._client.post(self._url, cast_to=httpx2.Response, body=body, stream=True)
