"""Turn exceptions into HTTP responses: JSON of one shape, with messages written for clients."""

import asyncio
import logging
import math
from contextlib import suppress
from http import HTTPMethod
from typing import Any, cast

from sanic import HTTPResponse, Request, Sanic
from sanic.exceptions import MethodNotAllowed, NotFound, PayloadTooLarge, SanicException
from sanic.http import Http
from sanic.response import json

from chat.api.negotiation import WireFormat, choose_format
from chat.api.trust import hosts
from chat.errors import (
    ConversationFull,
    Draining,
    HoldlineError,
    InvalidField,
    Misdirected,
    QuotaExceeded,
    StorageFull,
    TooLarge,
    TurnFailed,
    Unauthorised,
    Unreadable,
)
from chat.formats import chat_completion, sse
from config.system.sampled_log import SampledLog
from sessions.client.errors import UNAVAILABLE_ERRORS, OutOfMemoryError, ResponseError
from sessions.client.faults import find_fault
from sessions.limits import (
    MAX_CONVERSATIONS,
    MAX_MESSAGES,
    LimitedResource,
    StorageLimitReached,
)

logger = logging.getLogger("holdline.api")

STREAM_PATH = "/api/chat_stream/"
EVENTS_PATH = "/api/events/"
STREAM_TYPE = "text/event-stream; charset=utf-8"
STREAM_HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}

_FAILURE_STATUSES = {
    "refused": 400,
    "context_length": 400,
    "withheld": 400,
    "moderated": 400,
    "rate_limited": 429,
    "internal": 500,
    "loading": 503,
    "history_unavailable": 503,
    "timeout": 504,
    "too_slow": 504,
    "moderation_unavailable": 503,
}
"""The status for each type of failure; 502 for all others, which the upstream caused."""

_LOGGED_STATUSES = (403, 413, 421, 429)
"""Statuses that an attack, or a wrong setting, may cause."""
_LIMIT_ERRORS: dict[LimitedResource, StorageFull] = {
    "memory": StorageFull(
        "The memory of the server's Redis is full. Running answers and the history are not "
        "affected. Delete conversations, or ask the operator to give Redis more memory: "
        "REDIS_MAXMEMORY, or maxmemory of an external Redis."
    ),
    "bytes": QuotaExceeded(
        "Your conversations have reached OWNER_MAX_BYTES. Delete some of them, or ask the operator "
        "to raise it."
    ),
    "conversations": QuotaExceeded(
        f"You have {MAX_CONVERSATIONS} conversations, the maximum. Delete some of them first."
    ),
    "messages": ConversationFull(
        f"This conversation has {MAX_MESSAGES} messages, the maximum. Begin a new one."
    ),
}

_MAX_DISCARDED_BYTES = 32 << 20
_DISCARD_S = 5.0

_UNREADABLE = (
    "Stored data that this request needs is unreadable. The server's log names it: the operator "
    "can restore a backup. Other conversations are not affected."
)
_MESSAGES = {
    400: "The request is not valid HTTP.",
    404: "There is nothing at this URL.",
    405: "This URL does not support the request's method.",
    408: "The request took too long to arrive. Try again.",
    413: (
        "The request is too large: its head, with the cookies of all programs on this host, may "
        "have 16 KiB, its body 1 MiB, and for /v1 20 MiB. Send a long question in the body of a "
        "POST request, or delete cookies."
    ),
    503: "The response took too long to begin. Try again.",
}
"""Messages for Sanic's own errors, whose texts may quote the request."""


def install(app: Sanic[Any, Any]) -> None:
    """Register the handlers of all exceptions."""
    app.ctx.rejections = SampledLog(logger)

    @app.exception(HoldlineError)
    async def handle_holdline_error(request: Request, error: HoldlineError) -> HTTPResponse:
        if isinstance(error, Draining) and _is_stream(request):
            return _create_stream(sse.ASK_AGAIN)
        if isinstance(error, Unauthorised | TooLarge):
            await _discard_body(request)
        return _describe(request, error)

    @app.exception(Misdirected)
    async def handle_misdirected(request: Request, error: Misdirected) -> HTTPResponse:
        response = _describe(request, error)
        is_page = "text/html" in request.headers.get("accept", "")
        return hosts.create_page(error) if is_page else response

    @app.exception(TurnFailed)
    async def handle_turn_failed(request: Request, error: TurnFailed) -> HTTPResponse:
        status = _FAILURE_STATUSES.get(error.failure["type"], 502)
        if _is_openai(request):
            return json({"error": chat_completion.describe_failure(error.failure)}, status=status)
        return json({"error": error.failure, "answer": error.answer}, status=status)

    @app.exception(StorageLimitReached)
    async def handle_storage_limit(request: Request, error: StorageLimitReached) -> HTTPResponse:
        return _describe(request, _LIMIT_ERRORS[error.resource])

    @app.exception(*UNAVAILABLE_ERRORS)
    async def handle_redis_unavailable(request: Request, error: Exception) -> HTTPResponse:
        if isinstance(error, OutOfMemoryError):
            return _describe(request, _LIMIT_ERRORS["memory"])
        log: SampledLog = request.app.ctx.rejections
        log.warn(f"Redis unavailable ({find_fault(error)})", f"{_name_route(request)} failed")
        if _is_stream(request):
            return _create_stream(sse.RETRY_LATER)
        return _create_response(
            request, 503, "unavailable", "Redis is unavailable. Try again in a moment.", 5
        )

    @app.exception(ResponseError)
    async def handle_rejected_command(request: Request, error: Exception) -> HTTPResponse:
        log: SampledLog = request.app.ctx.rejections
        log.warn(f"Redis rejected a command of {_name_route(request)} ({find_fault(error)})")
        return _create_response(request, 500, Unreadable.type, _UNREADABLE)

    @app.exception(SanicException)
    async def handle_sanic_error(request: Request, error: SanicException) -> HTTPResponse:
        if isinstance(error, PayloadTooLarge | NotFound | MethodNotAllowed):
            await _discard_body(request)
        message = _MESSAGES.get(error.status_code, "The request failed.")
        response = _create_response(request, error.status_code, "http", message)
        if isinstance(error, MethodNotAllowed):  # RFC 9110 §15.5.6
            response.headers["Allow"] = ", ".join(_list_methods(request))
        return response

    @app.exception(Exception)
    async def handle_unexpected_error(request: Request, error: Exception) -> HTTPResponse:
        logger.error("%s failed unexpectedly", _name_route(request), exc_info=error)
        message = "The server failed unexpectedly. Its log describes the error."
        return _create_response(request, 500, "internal", message)


def _list_methods(request: Request) -> list[str]:
    """Return the methods that a URL supports; Sanic knows them only for URLs without parameters."""
    found = []
    for method in HTTPMethod:
        with suppress(NotFound, MethodNotAllowed):
            request.app.router.get(request.path, method, None)
            found.append(str(method))
    return found


async def _discard_body(request: Request) -> None:
    """Receive the rest of a rejected body, so that its sender reads the response.

    A connection that closes before the body has arrived is reset, and the reset may overtake the
    response (RFC 9112 §9.6).
    """
    http = cast(Http | None, request.stream)
    if http is None or http.expecting_continue:  # the client sends no body before it is asked to
        return
    http.request_max_size = _MAX_DISCARDED_BYTES
    with suppress(SanicException, TimeoutError):
        async with asyncio.timeout(_DISCARD_S):
            async for _ in http:
                pass


def _is_stream(request: Request) -> bool:
    """Return whether an EventSource may have sent the request: it does not retry after an error."""
    path = request.path.rstrip("/") + "/"
    if path != STREAM_PATH:
        return path == EVENTS_PATH
    try:
        return choose_format(request) is WireFormat.SSE
    except HoldlineError:
        return False


def _create_stream(body: bytes) -> HTTPResponse:
    return HTTPResponse(body, headers=STREAM_HEADERS, content_type=STREAM_TYPE)


def _is_openai(request: Request) -> bool:
    """Return whether the request is for OpenAI's API, whose error objects have another form."""
    return request.path.startswith("/v1/")


def _describe(request: Request, error: HoldlineError) -> HTTPResponse:
    param = error.param if isinstance(error, InvalidField) else None
    return _create_response(
        request, error.status, error.type, error.message, error.retry_after_s, param
    )


def _name_route(request: Request) -> str:
    """Return the path of the request's route, for the log, without values of its parameters."""
    return request.uri_template or "no route"


def _create_response(
    request: Request,
    status: int,
    kind: str,
    message: str,
    retry_after_s: float | None = None,
    param: str | None = None,
) -> HTTPResponse:
    if status in _LOGGED_STATUSES:
        log: SampledLog = request.app.ctx.rejections
        log.warn(f"rejected a request for {_name_route(request)} with {status}", message)
    headers = {"Retry-After": str(math.ceil(retry_after_s))} if retry_after_s else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    error: dict[str, str | None] = {"type": kind, "message": message}
    if _is_openai(request):
        openai_type = {401: "authentication_error", 429: "rate_limit_error"}.get(
            status, "api_error" if status >= 500 else "invalid_request_error"
        )
        error = {"message": message, "type": openai_type, "param": param, "code": kind}
    return json({"error": error}, status=status, headers=headers)
