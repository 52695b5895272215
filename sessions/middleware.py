"""Cookie → `request.ctx.session`: every request of the page or the API belongs to a session.

An id that Redis does not know is replaced by a new one, never adopted. The cookie goes out with the
response's head, which for a stream means before its first byte.
"""

from collections.abc import Callable
from typing import Any

from sanic import Request, Sanic
from sanic.response import BaseHTTPResponse

from sessions import cookie
from sessions.client.errors import UNAVAILABLE_ERRORS
from sessions.session_store import SessionStore


def is_secure(request: Request) -> bool:
    """Whether the browser speaks https, to us or to the proxy before us; a lie here harms only the liar."""
    return (
        request.scheme == "https" or request.headers.get("x-forwarded-proto", "").lower() == "https"
    )


def install(
    app: Sanic[Any, Any], store_of: Callable[[Request], SessionStore], cookie_max_age_s: int
) -> None:
    """Give requests for `/` and `/api/` their session; an API request raises what is in AWAY."""

    async def open_session(request: Request) -> None:
        request.ctx.session = None
        request.ctx.new_cookie = None
        if request.path != "/" and not request.path.startswith("/api/"):
            return
        store = store_of(request)
        secure = is_secure(request)
        try:
            request.ctx.session = await store.find(request.cookies.get(cookie.name(secure)))
            if request.ctx.session is None:
                session_id, request.ctx.session = await store.create()
                request.ctx.new_cookie = cookie.header(session_id, secure, cookie_max_age_s)
        except UNAVAILABLE_ERRORS:
            if (
                request.path != "/"
            ):  # the page itself is served all the same, and says what is wrong
                raise

    async def set_cookie(request: Request, response: BaseHTTPResponse) -> None:
        if getattr(request.ctx, "new_cookie", None):
            response.headers.add("Set-Cookie", request.ctx.new_cookie)

    app.register_middleware(open_session, "request")
    app.register_middleware(set_cookie, "response")
