"""Convert the errors of an upstream; the messages are for users and contain no key."""

import json
import logging
import re
from typing import Any

import httpx2
import openai

from chat.errors import UpstreamError, UpstreamFailed, UpstreamRejected

logger = logging.getLogger("holdline.upstream")

_MAX_QUOTE = 300
"""Characters of an upstream's own message that are shown."""


class Failures:
    """Describes the failures of one upstream, by its name and without its key."""

    def __init__(self, name: str, key: str) -> None:
        self._name = name
        self._key = key

    def from_stream(self, error: Any) -> UpstreamFailed:
        """Return the error for an error object inside a stream."""
        if isinstance(error, str):
            try:
                error = json.loads(error)
            except ValueError:
                error = {"message": error}
        if isinstance(error, dict) and isinstance(error.get("error"), dict):
            error = error["error"]
        message = error.get("message") if isinstance(error, dict) else error
        return UpstreamFailed("upstream", f"The model provider failed: {self._sanitise(message)}")

    def from_openai(self, error: openai.OpenAIError, model: str) -> UpstreamError:
        """Return the error for an exception of the openai package."""
        if isinstance(error, openai.APIConnectionError):
            return self.from_transport(error)
        if not isinstance(error, openai.APIStatusError):
            logger.warning("upstream %s failed (%s)", self._name, type(error).__name__)
            return UpstreamFailed("upstream", "The model provider failed.")
        status = error.status_code
        logger.warning("upstream %s responded with status %d", self._name, status)
        if status in (401, 403):
            return UpstreamRejected(
                "authentication",
                "The model provider rejected the API key. Check OPENAI_API_KEY on the server.",
            )
        if status == 404:
            return UpstreamRejected(
                "not_found",
                f"The model provider does not know the model “{model}” or this address. "
                "Check CHAT_MODEL and OPENAI_BASE_URL (which usually ends in /v1).",
            )
        body = error.body
        reason = self._sanitise(body.get("message") if isinstance(body, dict) else body)
        if status == 429:
            return UpstreamFailed(
                "rate_limited", f"The model provider is busy, or its quota is used up: {reason}"
            )
        if status >= 500:
            return UpstreamFailed(
                "upstream", f"The model provider failed ({status}). Try again in a moment."
            )
        return UpstreamRejected(
            "refused", f"The model provider rejected the question ({status}): {reason}"
        )

    def from_transport(self, error: BaseException) -> UpstreamError:
        """Return the error for a connection that failed, by the first exception of its chain."""
        while error.__cause__ is not None:
            error = error.__cause__
        logger.warning("upstream %s: connection failed (%s)", self._name, type(error).__name__)
        if isinstance(error, (TimeoutError, httpx2.TimeoutException)):
            return UpstreamFailed("timeout", "The model provider sent nothing for too long.")
        if isinstance(error, OSError) and not isinstance(error, ConnectionResetError):
            return UpstreamFailed(
                "unreachable",
                f"The model provider at {self._name} cannot be reached. Check OPENAI_BASE_URL.",
            )
        return UpstreamFailed("connection_lost", "The connection to the model provider was lost.")

    def invalid_response(self) -> UpstreamRejected:
        """Return the error for an invalid response; the upstream would send the same again."""
        return UpstreamRejected("invalid_response", "The model provider sent an invalid response.")

    def _sanitise(self, message: object) -> str:
        """Return the upstream's own message, shortened, without line ends and without keys."""
        text = " ".join(str(message or "no reason given").encode(errors="replace").decode().split())
        if self._key:
            text = text.replace(self._key, "…")
        text = re.sub(r"\b(sk|key|Bearer)[-_ ][\w*.\-]{4,}", "…", text)
        return text if len(text) <= _MAX_QUOTE else text[: _MAX_QUOTE - 1] + "…"
