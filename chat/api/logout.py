"""End a session: `POST /api/logout`."""

from sanic import Blueprint, HTTPResponse, Request
from sanic.response import empty

from chat.api import guard
from chat.api.state import get_state
from sessions.middleware import get_session

logout = Blueprint("logout")


@logout.post("/api/logout")
async def end_session(request: Request) -> HTTPResponse:
    """End the session: its cookie opens nothing any more, and its conversations stay unreachable.

    The browser deletes what the page has stored (Clear-Site-Data), but no cookies: that would sign
    the user out of other applications on the same domain. Under BASE_PATH, the origin has others.
    """
    guard.reject_navigation(request)
    await get_state(request).session_store.end(get_session(request))
    cleared = '"cache"' if request.app.config.BASE_PATH else '"cache", "storage"'
    return empty(headers={"Clear-Site-Data": cleared})
