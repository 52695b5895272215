"""Reject requests that another site, a navigation or a prefetch causes.

A browser sends the cookie also with requests that other sites cause, and a GET that begins a turn
costs money. Browsers report a request's origin in Fetch Metadata (W3C), `Sec-Purpose` and
`Origin`. Clients other than browsers send none of these headers and are accepted.
"""

from sanic import Request

from chat.errors import Forbidden


def check(request: Request) -> None:
    """Raise Forbidden unless the web UI or a client other than a browser sent the request."""
    headers = request.headers
    if headers.get("sec-fetch-site", "none") in ("cross-site", "same-site"):
        raise Forbidden("Another site sent this request (Sec-Fetch-Site). Send it from the web UI.")
    if headers.get("sec-fetch-mode") == "navigate":
        raise Forbidden("This URL cannot be opened as a page. Open `/` instead.")
    if "prefetch" in (headers.get("sec-purpose", "") + headers.get("purpose", "")).lower():
        raise Forbidden("This URL cannot be prefetched.")
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        raise Forbidden("`Origin` differs from `Host`. Send the request from the web UI.")
