"""Who may make the server do something: only our own page, and clients that are no browser at all.

A cookie travels with requests that other sites cause, and a GET that asks a model costs money. So what
changes anything is refused when the browser says that it comes from elsewhere, is a navigation, or is a
prefetch (Fetch Metadata, W3C; `Sec-Purpose`).
"""

from sanic import Request

from chat.errors import Forbidden


def check(request: Request) -> None:
    """Raise Forbidden for a request that another site or no person at all caused."""
    headers = request.headers
    if headers.get("sec-fetch-site", "none") in ("cross-site", "same-site"):
        raise Forbidden("This request comes from another site.")
    if headers.get("sec-fetch-mode") == "navigate":
        raise Forbidden("This address is for the page's own requests, not to be opened by itself.")
    if "prefetch" in (headers.get("sec-purpose", "") + headers.get("purpose", "")).lower():
        raise Forbidden("A prefetch may not ask a question.")
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        raise Forbidden("This request comes from another origin.")
