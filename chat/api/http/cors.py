"""Permit pages of the origins in CORS_ORIGINS to use every route (Fetch standard, "CORS protocol").

sanic-ext's own CORS is off. It answers a preflight with `*` for "any header", which browsers take
literally if the request has credentials. It replaces `Vary`, and omits it for other origins.
"""

import re
from collections.abc import Collection
from typing import Any

from sanic import HTTPResponse, Request, Sanic
from sanic.response import BaseHTTPResponse

_MAX_AGE_S = 7200
"""Time for which a browser may remember a preflight; Chromium's maximum."""

_METHODS = "GET, HEAD, POST, PATCH, DELETE"
_EXPOSED_HEADERS = "Content-Disposition, Retry-After"
"""Response headers that scripts may read, besides those that the standard lists."""

_NAME = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_HEADER_NAMES = re.compile(f"{_NAME}(?: *, *{_NAME})*")


def install(app: Sanic[Any, Any], allowed_origins: Collection[str]) -> None:
    """Answer preflights of these origins, and add the CORS headers to all responses to them."""

    async def answer_preflight(request: Request) -> HTTPResponse | None:
        if "access-control-request-method" not in request.headers or request.method != "OPTIONS":
            return None
        if request.headers.get("origin") not in allowed_origins:
            return None
        headers = {
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Max-Age": str(_MAX_AGE_S),
        }
        names = request.headers.get("access-control-request-headers", "")
        if _HEADER_NAMES.fullmatch(names):
            headers["Access-Control-Allow-Headers"] = names
        return HTTPResponse(status=204, headers=headers)

    async def add_headers(request: Request, response: BaseHTTPResponse) -> None:
        response.headers.add("Vary", "Origin")
        origin = request.headers.get("origin")
        if origin in allowed_origins:
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Allow-Credentials"] = "true"
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED_HEADERS

    if allowed_origins:
        app.register_middleware(answer_preflight, "request")
        app.register_middleware(add_headers, "response")
