"""Open the session of each request that needs one.

A session id that Redis does not know is never adopted: the client gets a new one. Sanic sends the
cookie with the response headers, which precede the first byte of a stream.
"""

from collections.abc import Callable
from typing import Any

from sanic import Request, Sanic
from sanic.response import BaseHTTPResponse

from sessions import cookie
from sessions.client.errors import UNAVAILABLE_ERRORS
from sessions.session_store import Session, SessionStore


def get_session(request: Request) -> Session:
    """Return the session of a request whose path begins with `/api/`."""
    session: Session = request.ctx.session
    return session


def install(
    app: Sanic[Any, Any],
    get_store: Callable[[Request], SessionStore],
    needs_session: Callable[[Request], bool],
    *,
    cookie_max_age_s: int,
    is_cross_site: bool,
) -> None:
    """Give requests a session; raises UNAVAILABLE_ERRORS for `/api/` only.

    With `is_cross_site`, browsers send the cookie also with requests of other sites' pages.
    """

    async def open_session(request: Request) -> None:
        request.ctx.session = None
        request.ctx.new_cookie = None
        if not needs_session(request):
            return
        store = get_store(request)
        secure = is_cross_site or _is_secure(request)
        name = cookie.get_name(secure)
        try:
            # Two, because a browser may hold a partitioned cookie and an older one of this name.
            for value in request.cookies.getlist(name, [])[:2]:
                request.ctx.session = request.ctx.session or await store.find(value)
            if request.ctx.session is None:
                session_id, request.ctx.session = await store.create()
                request.ctx.new_cookie = cookie.format_header(
                    session_id, secure, cookie_max_age_s, is_cross_site
                )
        except UNAVAILABLE_ERRORS:
            if request.path != "/":  # the web UI loads without a session and shows the error
                raise

    async def set_cookie(request: Request, response: BaseHTTPResponse) -> None:
        # `new_cookie` is unset if Sanic rejected the request before `open_session` ran.
        if getattr(request.ctx, "new_cookie", None):
            response.headers.add("Set-Cookie", request.ctx.new_cookie)

    app.register_middleware(open_session, "request")
    app.register_middleware(set_cookie, "response")


def _is_secure(request: Request) -> bool:
    """Return whether the browser uses https, to this server or to a proxy in front of it.

    A client that sends a false `X-Forwarded-Proto` harms only itself.
    """
    return (
        request.scheme == "https" or request.headers.get("x-forwarded-proto", "").lower() == "https"
    )
