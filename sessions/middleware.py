"""Open the session of each request that needs one.

A request that writes nothing stores no session. A cookie is set with the web UI, and with the
response to the first write. Sanic sends it with the response headers, which precede the first byte
of a stream.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from sanic import Request, Sanic
from sanic.response import BaseHTTPResponse

from sessions import cookie
from sessions.client.errors import UNAVAILABLE_ERRORS
from sessions.keys import TurnId
from sessions.session_store import Session, SessionStore


def get_session(request: Request) -> Session:
    """Return the session of a request whose path begins with `/api/`."""
    session: Session = request.ctx.session
    return session


async def keep_session(request: Request, turn: TurnId | None = None) -> None:
    """Store a session after its first write, and set its cookie if it is new.

    `turn` is the id that the client chose for the turn that it began. A session that cannot be
    stored now is stored at its next write; until then its signature suffices.
    """
    request.ctx.is_kept = True
    store: SessionStore = request.ctx.session_store
    with suppress(*UNAVAILABLE_ERRORS):
        await store.store(get_session(request), turn)


def install(
    app: Sanic[Any, Any],
    get_store: Callable[[Request], SessionStore],
    needs_session: Callable[[Request], bool],
    is_https: Callable[[Request], bool],
    *,
    cookie_max_age_s: int,
    is_cross_site: bool,
) -> None:
    """Give requests a session; raises UNAVAILABLE_ERRORS for `/api/` only.

    With `is_cross_site`, browsers send the cookie also with requests of other sites' pages.
    """

    async def open_session(request: Request) -> None:
        request.ctx.session = request.ctx.new_cookie = None
        request.ctx.is_kept = request.path == "/"
        if not needs_session(request):
            return
        store = request.ctx.session_store = get_store(request)
        secure = is_cross_site or is_https(request)
        try:
            fields = request.headers.getall("cookie", [])
            request.ctx.session = await store.find(fields, secure=secure)
            if request.ctx.session is None:
                instance = await store.get_instance()
                session_id, request.ctx.session = store.create()
                request.ctx.new_cookie = cookie.format_header(
                    session_id,
                    instance,
                    secure=secure,
                    max_age_s=cookie_max_age_s,
                    is_cross_site=is_cross_site,
                )
        except UNAVAILABLE_ERRORS:
            if request.path != "/":  # the web UI loads without a session and shows the error
                raise

    async def set_cookie(request: Request, response: BaseHTTPResponse) -> None:
        # `new_cookie` is unset if Sanic rejected the request before `open_session` ran.
        if getattr(request.ctx, "new_cookie", None) and request.ctx.is_kept:
            response.headers.add("Set-Cookie", request.ctx.new_cookie)

    app.register_middleware(open_session, "request")
    app.register_middleware(set_cookie, "response")
