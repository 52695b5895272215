"""Errors to answers: one shape of JSON for all, and nothing in it that is not meant for clients."""

import logging
from typing import Any

from sanic import HTTPResponse, Request, Sanic
from sanic.exceptions import SanicException
from sanic.response import json

from chat.errors import HoldlineError
from chat.formats import sse
from sessions.client.errors import UNAVAILABLE_ERRORS

logger = logging.getLogger("holdline.problems")

STREAM_PATH = "/api/chat_stream/"
STREAM_TYPE = "text/event-stream; charset=utf-8"
STREAM_HEADERS = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}

_WORDS = {
    400: "The request is not valid HTTP of the kind that this takes.",
    404: "There is nothing at this address.",
    405: "This address does not take that method.",
    408: "The request took too long to arrive.",
    413: "The request is too large; send a long question in the body of a POST.",
    503: "The answer took too long to begin.",
}


def install(app: Sanic[Any, Any]) -> None:
    """Answer every exception that a handler lets through."""

    @app.exception(HoldlineError)
    async def ours(request: Request, error: HoldlineError) -> HTTPResponse:
        return _answer(error.status, error.type, error.message, error.retry_after_s)

    @app.exception(*UNAVAILABLE_ERRORS)
    async def away(request: Request, error: Exception) -> HTTPResponse:
        logger.warning("Redis is away (%s)", type(error).__name__)
        if request.path == STREAM_PATH:  # an error would close an EventSource for good
            return HTTPResponse(sse.RETRY_LATER, headers=STREAM_HEADERS, content_type=STREAM_TYPE)
        return _answer(503, "unavailable", "The store does not answer. Try again in a moment.", 5)

    @app.exception(SanicException)
    async def theirs(request: Request, error: SanicException) -> HTTPResponse:
        status = error.status_code
        return _answer(
            status, "http", _WORDS.get(status, "The request could not be answered."), None
        )

    @app.exception(Exception)
    async def unforeseen(request: Request, error: Exception) -> HTTPResponse:
        logger.error("a request failed", exc_info=error)
        return _answer(500, "internal", "Something went wrong on the server.", None)


def _answer(status: int, kind: str, message: str, retry_after_s: int | None) -> HTTPResponse:
    headers = {"Retry-After": str(retry_after_s)} if retry_after_s else {}
    return json({"error": {"type": kind, "message": message}}, status=status, headers=headers)
