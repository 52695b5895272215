"""Request an answer from an OpenAI-compatible API.

The `openai` package makes the request, with its authorisation and errors. The body is received as
raw bytes over Holdline's transport and decoded by `completion`, because the package's chunk objects
cost about ninety times as much. Its retries are off: they repeat requests that may have begun.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx2
import openai

from chat.errors import UpstreamError
from chat.upstream.error_words import find_context_limit, names_field, rejects_unknown_field
from chat.upstream.failures import Failures
from chat.upstream.http.client import NO_KEY, create_http_client
from chat.upstream.request import Messages, build_body
from chat.upstream.response.completion import Completion, Timeouts
from chat.upstream.servers import ModelInfo, ServerKind, read_models, recognise
from chat.upstream.slots import Slots

logger = logging.getLogger("holdline.upstream")

_COOLDOWN_S = 30

_CONNECT_TIMEOUT_S = 10.0

_MODELS_RETRY_S = 30
_MODELS_REFRESH_S = 3600
_MODELS_TIMEOUT_S = 10.0
_MAX_MODELS_BYTES = 4 << 20

_REJECTED_S = 600
"""Seconds for which a rejected field is not sent again."""

_OTHER_REASONS = (401, 403, 407, 408, 413, 429)
"""Statuses that never reject a field."""

_NEWER_LIMIT, _OLDER_LIMIT = _LIMITS = "max_completion_tokens", "max_tokens"


class Upstream:
    """One OpenAI-compatible API.

    `model` overrides the turn's model; "" means no override. `concurrency` limits the requests at a
    time; further ones wait. `max_output_tokens`, if it is given, is sent with each request.
    """

    def __init__(
        self,
        *,
        base_url: str | None,
        api_key: str | None,
        timeouts: Timeouts,
        name: str,
        model: str = "",
        concurrency: int | None = None,
        max_output_tokens: int | None = None,
    ) -> None:
        base_url = base_url or "https://api.openai.com/v1"
        scheme, host = urlsplit(base_url).scheme, urlsplit(base_url).hostname or ""
        self._client = openai.AsyncOpenAI(
            # Local servers need no key, but the package insists on one.
            api_key=api_key or NO_KEY,
            base_url=base_url,
            timeout=httpx2.Timeout(timeouts.silence_s, connect=_CONNECT_TIMEOUT_S),
            max_retries=0,
            http_client=create_http_client(host, scheme),
        )
        self._base_url = base_url
        self._url = f"{str(self._client.base_url).rstrip('/')}/chat/completions"
        self.name = name
        self.model = model
        self.failures = Failures(self.name, api_key or "", base_url)
        self._timeouts = timeouts
        self._slots = Slots(concurrency)
        self._max_output_tokens = max_output_tokens
        self._models: dict[str, ModelInfo] = {}
        self._rejected_until: dict[str, float] = {}
        self._suspected: set[str] = set()
        self._cooldown_until = 0.0

    @property
    def in_cooldown(self) -> bool:
        """Return whether the upstream failed in the last 30 s, so that others are tried first."""
        return time.monotonic() < self._cooldown_until

    def cool_down(self) -> None:
        """Try others first for the next 30 s."""
        self._cooldown_until = time.monotonic() + _COOLDOWN_S

    def find_window(self, model: str) -> int | None:
        """Return the context window of a model in tokens; None if the server states none."""
        return self._find_info(model).window

    def find_kind(self, model: str) -> ServerKind:
        """Return the kind of server, by the base URL and the model's `owned_by`."""
        return recognise(self._base_url, self._find_info(model).owned_by)

    def _find_info(self, model: str) -> ModelInfo:
        """Return the facts of a model. A server with one model usually accepts any name."""
        if model not in self._models and len(self._models) == 1:
            return next(iter(self._models.values()))
        return self._models.get(model, ModelInfo())

    async def watch_models(self) -> None:
        """Request the list of models every hour, or every 30 s while it fails, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_MODELS_TIMEOUT_S):
                    self._models = read_models(json.loads(await self._fetch_models()))
                wait_s = _MODELS_REFRESH_S
            except openai.APIStatusError:  # the server has no list
                wait_s = _MODELS_REFRESH_S
            except Exception as error:  # whatever a server sends must not end the worker
                logger.info("upstream %s: no list of models (%s)", self.name, type(error).__name__)
                wait_s = _MODELS_RETRY_S
            await asyncio.sleep(wait_s)

    def note_failure(self, error: UpstreamError) -> bool:
        """Return whether a failure inside a response rejects `stream_options`, and remember it."""
        is_sent = not self._is_rejected("stream_options")
        if is_sent and "stream_options" in error.message and rejects_unknown_field(error.message):
            self._rejected_until["stream_options"] = time.monotonic() + _REJECTED_S
            return True
        return False

    @asynccontextmanager
    async def request(
        self,
        messages: Messages,
        model: str,
        *,
        prefill: bool = False,
        fields: dict[str, Any] | None = None,
        on_position: Callable[[int], None] = lambda position: None,
    ) -> AsyncIterator[Completion]:
        """Request one answer; leaving the block closes the connection. Raises UpstreamError.

        With `prefill` the last message is the partial answer, for the upstream to continue.
        `messages` is emptied when the response begins: it is the largest object of a stream.
        With `fields`, further ones of the body, the completion keeps what a client of /v1 gets.
        `on_position` is called with the request's place in the queue, while it waits for a slot.
        """
        try:
            async with self._slots.take(on_position):
                async with asyncio.timeout(self._timeouts.first_token_s):
                    response = await self._post(messages, model, fields or {}, prefill)
                completion = Completion(
                    response, self.failures, self._timeouts, keeps_extra=fields is not None
                )
                messages.clear()
                try:
                    yield completion
                finally:
                    await completion.close()
        except UpstreamError:
            raise
        except openai.OpenAIError as error:
            raise self.failures.from_openai(error, model) from error
        except (TimeoutError, httpx2.TransportError) as error:
            raise self.failures.from_transport(error) from error

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

    async def _post(
        self, messages: Messages, model: str, fields: dict[str, Any], prefill: bool
    ) -> httpx2.Response:
        """Send the request; if the server rejects an optional field, send it again without it."""
        server = self.find_kind(model)
        body = build_body(messages, model, server, fields, prefill=prefill)
        optional = self._choose_optional(server, has_limit=not fields.keys().isdisjoint(_LIMITS))
        while True:
            try:
                return await self._send(body | optional)
            except openai.APIStatusError as error:
                field = self._find_rejected(error, optional)
                if field is None:
                    raise
                del optional[field]
                if field == _NEWER_LIMIT:
                    optional[_OLDER_LIMIT] = self._max_output_tokens

    def _choose_optional(self, server: ServerKind, *, has_limit: bool) -> dict[str, Any]:
        optional: dict[str, Any] = {}
        if server.takes_stream_options and not self._is_rejected("stream_options"):
            optional["stream_options"] = {"include_usage": True}
        if self._max_output_tokens is not None and not has_limit:
            is_older = server.limit_field == _OLDER_LIMIT or self._is_rejected(_NEWER_LIMIT)
            optional[_OLDER_LIMIT if is_older else _NEWER_LIMIT] = self._max_output_tokens
        return optional

    def _find_rejected(self, error: openai.APIStatusError, optional: dict[str, Any]) -> str | None:
        """Return the optional field that an error rejects, and remember it; else None."""
        status, body = error.status_code, error.response.content
        if status in _OTHER_REASONS or find_context_limit(body) or not rejects_unknown_field(body):
            return None
        if _NEWER_LIMIT in optional and names_field(body, _NEWER_LIMIT):
            field = _NEWER_LIMIT
        elif "stream_options" in optional:
            field = "stream_options"
        elif _NEWER_LIMIT in optional:
            field = _NEWER_LIMIT
        else:
            return None
        if status < 500 or field in self._suspected:
            self._rejected_until[field] = time.monotonic() + _REJECTED_S
        else:  # an error of the server may name a field by chance: count the second one
            self._suspected.add(field)
        return field

    def _is_rejected(self, field: str) -> bool:
        return time.monotonic() < self._rejected_until.get(field, 0)

    async def _fetch_models(self) -> bytes:
        """Return the body of `GET /models`, cut after 4 MiB."""
        body = bytearray()
        response = await self._client.get("/models", cast_to=httpx2.Response, stream=True)
        async with aclosing(response), aclosing(response.aiter_bytes()) as parts:
            async for part in parts:
                body += part
                if len(body) > _MAX_MODELS_BYTES:
                    break
        return bytes(body)

    async def _send(self, body: dict[str, Any]) -> httpx2.Response:
        # `chat.completions.create` would inspect each message, which takes 0.13 ms a message.
        return await self._client.post(self._url, cast_to=httpx2.Response, body=body, stream=True)
