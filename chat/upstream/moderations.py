"""Check texts with a moderation endpoint: `POST /moderations` of any OpenAI-compatible API.

The `openai` package makes the request, over Holdline's transport. Its retries are off: a request is
repeated once, within the time limit of the whole check.
"""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

import httpx2
import msgspec
import openai

from chat.upstream.http.client import NO_KEY, create_http_client

MAX_TEXTS = 32
"""Maximum number of texts in one check."""

MAX_CHECKS = 64
"""Maximum number of requests of a worker at a time; further checks wait within their limit."""

TIMEOUT_S = 10.0
"""Maximum time of a check in seconds, including its wait and its repetition."""

_REPEAT_S = 0.5
_MAX_RESPONSE_BYTES = 1 << 20

_FAILURES = (
    openai.OpenAIError,
    httpx2.TransportError,
    msgspec.MsgspecError,
    RecursionError,
    ValueError,
)


class CheckFailed(Exception):
    """The endpoint gave no verdict; the message is its reason in a few words, for the log."""


class ModerationEndpoint:
    """The endpoint below `base_url`; without a `model` the endpoint chooses."""

    def __init__(self, *, base_url: str, api_key: str | None, model: str) -> None:
        scheme, host = urlsplit(base_url).scheme, urlsplit(base_url).hostname or ""
        self._client = openai.AsyncOpenAI(
            api_key=api_key or NO_KEY,
            base_url=base_url,
            timeout=httpx2.Timeout(TIMEOUT_S),
            max_retries=0,
            http_client=create_http_client(host, scheme),
        )
        self._fields: dict[str, Any] = {"model": model} if model else {}
        self._slots = asyncio.Semaphore(MAX_CHECKS)

    async def is_flagged(self, texts: Sequence[str]) -> bool:
        """Return whether one of at most MAX_TEXTS texts is flagged; raises CheckFailed."""
        try:
            async with asyncio.timeout(TIMEOUT_S), self._slots:
                try:
                    return await self._ask(texts)
                except _FAILURES:
                    await asyncio.sleep(_REPEAT_S)
                return await self._ask(texts)
        except TimeoutError:
            raise CheckFailed("no response in time") from None
        except openai.APIStatusError as error:
            raise CheckFailed(f"status {error.status_code}") from error
        except _FAILURES as error:
            raise CheckFailed(type(error.__cause__ or error).__name__) from error

    async def close(self) -> None:
        """Close every connection."""
        await self._client.close()

    async def _ask(self, texts: Sequence[str]) -> bool:
        # Every endpoint accepts a string, but not every one a list.
        body = {"input": texts[0] if len(texts) == 1 else list(texts), **self._fields}
        response = await self._client.post(
            "/moderations", cast_to=httpx2.Response, body=body, stream=True
        )
        data = bytearray()
        async with aclosing(response), aclosing(response.aiter_bytes()) as parts:
            async for part in parts:
                data += part
                if len(data) > _MAX_RESPONSE_BYTES:
                    raise ValueError("the response is too long")
        return read_verdict(bytes(data), len(texts))


class _Result(msgspec.Struct):
    flagged: bool | None = None
    categories: dict[str, Any] | None = None


class _Response(msgspec.Struct):
    results: list[_Result]


def read_verdict(body: bytes, count: int) -> bool:
    """Return whether one of `count` results, or of more, is flagged.

    Mistral has no `flagged`: there, a category that is true counts. Raises msgspec.MsgspecError,
    RecursionError, and ValueError if a result has no verdict or is missing.
    """
    results = msgspec.json.decode(body, type=_Response, strict=False).results
    if len(results) < count:
        raise ValueError("a result is missing")
    return any(_read_result(result) for result in results)


def _read_result(result: _Result) -> bool:
    if result.flagged is not None:
        return result.flagged
    if result.categories is None:
        raise ValueError("a result has no verdict")
    return any(value is True for value in result.categories.values())
