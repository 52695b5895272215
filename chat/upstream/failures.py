"""Describe the failures of an upstream; the messages are for users and contain no key.

Messages quote the upstream's own words, and name the setting to change if there is one.
"""

import asyncio
import logging
import re
import socket
import ssl
from collections.abc import Mapping
from functools import partial

import httpx2
import openai

from chat.errors import (
    ContextExceeded,
    UpstreamEnded,
    UpstreamError,
    UpstreamFailed,
    UpstreamRejected,
)
from chat.upstream.error_words import (
    ContextLimit,
    find_context_limit,
    find_message,
    find_status,
    find_wait_s,
    is_web_page,
    reports_loading,
    sanitise,
)
from chat.upstream.http.parser import InvalidResponseError

logger = logging.getLogger("holdline.upstream")

_RECONNECT_S = 1.0
"""Seconds after which a refused connection, or a busy server (503), is tried again."""

_RETRYABLE = {408, 409, 425, 429}
_GATEWAY_FAILURES = {502, 503, 504, *range(520, 528)}
"""Statuses of gateways; those from 520 on are Cloudflare's."""
_STREAM_STATUSES = {400, 401, 402, 403, 413, 422, 429}
"""Codes of an error inside a response that are handled like the status of a response."""

_CHECK_PROXY = "Check HTTPS_PROXY and HTTP_PROXY on the server."
_CHECK_URL = "Check OPENAI_BASE_URL (which usually ends in /v1)."

_UNREACHABLE: dict[type[BaseException], str] = {
    socket.gaierror: "its host name is unknown",
    ConnectionRefusedError: "it refuses connections",
    ssl.SSLError: "the TLS handshake failed",
    httpx2.ConnectTimeout: "it did not accept a connection in time",
    httpx2.UnsupportedProtocol: "its address does not begin with http:// or https://",
    httpx2.ConnectError: "no connection is possible",
}
_LOST_CONNECTIONS = {"ServerDisconnectedError", "ClientConnectionResetError", "ClientOSError"}
"""Exceptions of aiohttp that its transport, used behind a proxy, turns into connect timeouts."""
_MAX_CAUSES = 20

_KEY_REJECTED = re.compile(
    r"unauthori[sz]ed|not authenticated|authentication (?:failed|error|required|fails)"
    r"|(?:invalid|incorrect|wrong|missing) (?:api[ _-]?key|token|credentials?|authentication)\b.*",
    re.IGNORECASE,
)
"""Messages that add nothing to the status 401, and are not quoted."""


class Failures:
    """Describes the failures of one upstream, by its name, without its key and its address."""

    def __init__(self, name: str, key: str, base_url: str = "") -> None:
        self._name = name
        self._hide = partial(sanitise, key=key, base_url=base_url)

    # Before the answer

    def from_openai(self, error: openai.OpenAIError, model: str) -> UpstreamError:
        """Return the error for an exception of the openai package."""
        if isinstance(error, openai.APIConnectionError):
            return self.from_transport(error)
        if not isinstance(error, openai.APIStatusError):
            logger.warning("upstream %s failed (%s)", self._name, type(error).__name__)
            return UpstreamFailed("upstream", "The model provider failed.")
        logger.warning("upstream %s responded with status %d", self._name, error.status_code)
        return self._from_status(
            error.status_code, error.response.headers, _read_body(error), model
        )

    def from_transport(self, error: BaseException) -> UpstreamError:
        """Return the error for a connection that failed, by the causes of its exception."""
        chain = _follow_causes(error)
        logger.warning("upstream %s: connection failed (%s)", self._name, type(chain[-1]).__name__)
        for cause in chain:
            if isinstance(cause, InvalidResponseError):
                return self.invalid_response()
            if isinstance(cause, ssl.SSLCertVerificationError):
                return self._untrusted(getattr(cause, "verify_message", ""))
        # The names are httpx2's and aiohttp's; only aiohttp's exception has a status.
        statuses = [getattr(c, "status", None) for c in chain if "Proxy" in type(c).__name__]
        if statuses:
            return self._proxy_failed(statuses[-1])
        if _is_lost(chain):
            return UpstreamFailed(
                "connection_lost", "The connection to the model provider was lost."
            )
        for kind, reason in _UNREACHABLE.items():
            if any(isinstance(cause, kind) for cause in chain):
                message = f"The model provider cannot be reached: {reason}. Check OPENAI_BASE_URL."
                has_waited = any(isinstance(cause, httpx2.ConnectTimeout) for cause in chain)
                wait_s = None if has_waited else _RECONNECT_S
                return UpstreamFailed("unreachable", message, retry_after_s=wait_s)
        return UpstreamFailed("timeout", "The model provider sent nothing for too long.")

    # Instead of an answer

    def from_stream(self, error: object) -> UpstreamError:
        """Return the error for an error inside a response: text, or JSON of any shape."""
        logger.warning("upstream %s reported an error inside its response", self._name)
        status = find_status(error)
        if status in _STREAM_STATUSES:
            return self._from_status(status, {}, error, "")
        return self._find_reason(error) or UpstreamFailed(
            "upstream", _quote("The model provider failed", self._find_words(error))
        )

    def web_page(self, body: object) -> UpstreamRejected:
        """Return the error for a response that is a web page."""
        page = _describe_page(self._find_words(body))
        return UpstreamRejected(
            "invalid_response",
            f"The model provider sent {page} instead of an API's response. {_CHECK_URL}",
        )

    def invalid_response(self) -> UpstreamRejected:
        """Return the error for an invalid response; the upstream would send the same again."""
        return UpstreamRejected("invalid_response", "The model provider sent an invalid response.")

    def no_answer(self, words: object = "") -> UpstreamEnded:
        """Return the error for a response that ended without an answer."""
        message = _quote("The model provider sent no answer", self._find_words(words))
        return UpstreamEnded("no_answer", message)

    def interrupted(self, words: object = "", reason: str = "") -> UpstreamEnded:
        """Return the error for an answer that the upstream ended early, by its finish reason."""
        reason = self._hide(reason)
        ended = "The model provider ended the answer early" + (f" ({reason})" if reason else "")
        return UpstreamEnded("upstream", _quote(ended, self._find_words(words)))

    def tool_call(self) -> UpstreamRejected:
        """Return the error for a tool call, which Holdline cannot execute."""
        return UpstreamRejected(
            "tool_call",
            "The model answered with a tool call instead of text.",
        )

    def withheld(self, reason: object = "") -> UpstreamRejected:
        """Return the error for a filtered answer; `reason` is a refusal or a finish reason."""
        words = self._find_words(reason)
        if " " in words:
            return UpstreamRejected("withheld", f"The model declined to answer: {words}")
        withheld = "The answer was withheld by the model provider's content filter"
        return UpstreamRejected("withheld", f"{withheld} ({words})." if words else f"{withheld}.")

    def empty_at_limit(self) -> UpstreamRejected:
        """Return the error for a token limit that was reached before the first word."""
        return UpstreamRejected(
            "length",
            "The model reached its token limit before it wrote anything. Ask a shorter question, "
            "or raise MAX_OUTPUT_TOKENS on the server.",
        )

    # By status and reason

    def _from_status(
        self, status: int, headers: Mapping[str, str], body: object, model: str
    ) -> UpstreamError:
        """Return the error for a response with an error status."""
        words = self._find_words(body)
        is_page = isinstance(body, (bytes, str)) and is_web_page(body)
        if status == 401:
            return self._key_rejected(words)
        if status == 407:
            return self._proxy_failed(status, words)
        if status in (404, 405) or status < 400:
            return self._not_found(status, words, is_page, model)
        wait_s = find_wait_s(headers, body) if status in (429, 503) else None
        if status == 503 and wait_s is None:
            wait_s = _RECONNECT_S
        if status != 403 and (reason := self._find_reason(body, wait_s)):
            return reason
        if status == 429:
            busy = "The model provider is busy, or its quota is used up"
            return UpstreamFailed("rate_limited", _quote(busy, words), retry_after_s=wait_s)
        if is_page and status in _GATEWAY_FAILURES:
            failed = f"A proxy or gateway in front of the model provider failed ({status})"
            hint = "If HTTPS_PROXY or HTTP_PROXY is set on the server, check it."
            message = f"{_end_sentence(_quote(failed, words))} {hint}"
            return UpstreamFailed("upstream", message, retry_after_s=wait_s)
        if status in _RETRYABLE or status >= 500:
            message = _quote(f"The model provider failed ({status})", words)
            hint = "" if words else " Try again in a moment."
            return UpstreamFailed("upstream", message + hint, retry_after_s=wait_s)
        return UpstreamRejected("refused", _quote(_describe_rejection(status), words))

    def _find_reason(self, body: object, wait_s: float | None = None) -> UpstreamError | None:
        """Return the error if the words state a known reason, whatever the status; else None."""
        if limit := find_context_limit(body):
            return self._context_exceeded(limit, self._find_words(body))
        if reports_loading(body):
            loading = "The model provider is still loading the model"
            message = _quote(loading, self._find_words(body))
            return UpstreamFailed("loading", message, retry_after_s=wait_s)
        return None

    def _context_exceeded(self, limit: ContextLimit, words: str) -> ContextExceeded:
        sizes = [
            f"{limit.requested} tokens" if limit.requested else "",
            f"its context window has {limit.window} tokens" if limit.window else "",
        ]
        stated = ", but ".join(size for size in sizes if size)
        most = limit.window or "the size of its context window"
        message = (
            f"The conversation is too long for the model{f' ({stated})' if stated else ''}. "
            f"Set CONTEXT_TOKENS on the server to less than {most}."
        )
        return ContextExceeded(_append(message, words), limit.window, limit.requested)

    def _key_rejected(self, words: str) -> UpstreamRejected:
        message = "The model provider rejected the API key. Check OPENAI_API_KEY on the server."
        adds = not _KEY_REJECTED.fullmatch(words.rstrip(".!"))
        return UpstreamRejected("authentication", _append(message, words if adds else ""))

    def _not_found(self, status: int, words: str, is_page: bool, model: str) -> UpstreamRejected:
        if is_page:
            message = f"The model provider sent {_describe_page(words)} ({status}). {_CHECK_URL}"
        elif status == 404:
            message = (
                f"The model provider does not know the model “{model}” or this address. "
                "Check CHAT_MODEL and OPENAI_BASE_URL (which usually ends in /v1)."
            )
            message = _append(message, words)
        else:
            does = "redirects questions from" if status < 400 else "takes no questions at"
            message = f"The model provider {does} this address ({status})."
            message = _append(f"{message} {_CHECK_URL}", words)
        return UpstreamRejected("not_found", message)

    def _proxy_failed(self, status: int | None, words: str = "") -> UpstreamError:
        """Return the error for a failure of the proxy that HTTPS_PROXY or HTTP_PROXY names."""
        if status == 407:
            message = _end_sentence(_quote("The proxy rejected the request (407)", words))
            return UpstreamRejected("proxy", f"{message} {_CHECK_PROXY}")
        message = "The model provider cannot be reached: the proxy failed."
        return UpstreamFailed("unreachable", f"{message} {_CHECK_PROXY}")

    def _untrusted(self, reason: str) -> UpstreamRejected:
        untrusted = "The model provider's certificate is not trusted"
        message = _end_sentence(_quote(untrusted, self._hide(reason)))
        return UpstreamRejected(
            "certificate", f"{message} Check SSL_CERT_FILE and OPENAI_BASE_URL on the server."
        )

    def _find_words(self, body: object) -> str:
        return self._hide(find_message(body))


def _read_body(error: openai.APIStatusError) -> object:
    try:
        return error.response.content
    except httpx2.StreamError:  # it was not read
        return error.body


def _follow_causes(error: BaseException) -> list[BaseException]:
    """Return an exception and its causes, without the cancellation that implements a timeout."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and len(chain) < _MAX_CAUSES:
        chain.append(cause)
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return [cause for cause in chain if not isinstance(cause, asyncio.CancelledError)] or [error]


def _is_lost(chain: list[BaseException]) -> bool:
    """Return whether an open connection was lost, and did not time out."""
    timeouts = (TimeoutError, httpx2.TimeoutException)
    is_open = not any(isinstance(cause, (*timeouts, *_UNREACHABLE)) for cause in chain)
    return is_open or any(
        isinstance(cause, (httpx2.ReadError, httpx2.WriteError))
        or type(cause).__name__ in _LOST_CONNECTIONS
        for cause in chain
    )


def _quote(sentence: str, words: str) -> str:
    return f"{sentence}: {words}" if words else f"{sentence}."


def _append(message: str, words: str) -> str:
    return f"{message} It reported: {words}" if words else message


def _end_sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?", "…", "。")) else f"{text}."


def _describe_page(title: str) -> str:
    return f"a web page (“{title}”)" if title else "a web page"


def _describe_rejection(status: int) -> str:
    if status == 403:
        return "The model provider denied the request (403)"
    if status == 413:
        return "The question is too large for the model provider (413)"
    return f"The model provider rejected the question ({status})"
