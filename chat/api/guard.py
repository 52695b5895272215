"""Reject requests that another site, a navigation or a prefetch causes.

A page of another site can make a browser send requests, and the browser may add our cookie. Reading
the response is forbidden to that page (cors.py), but a GET that begins a turn costs money, and a
response can replace the cookie. So a request must prove where it comes from, by the first of:

1. Fetch Metadata (W3C), which browsers send to https and loopback origins, says `same-origin`, or
   `none`: the user typed the URL. No page can forge it, so a proxy may have changed `Host`.
2. The header `Origin`, or else `Referer`, names an origin in CORS_ORIGINS. Without Fetch Metadata,
   it may also name this host.
3. Without any of these headers, the request has a method or a content type that a page of another
   site can send only after a preflight.
4. The header `User-Agent` is not a browser's. A page cannot set it.
"""

import re
from typing import Any
from urllib.parse import urlsplit

from sanic import Request, Sanic

from chat.api.state import get_state
from chat.api.trust.proxies import get_scheme, is_from_trusted_proxy
from chat.errors import Forbidden

_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def install(app: Sanic[Any, Any]) -> None:
    """Reject requests for `/api/` that do not prove their origin, before a session is opened."""

    async def check_path(request: Request) -> None:
        if request.path.startswith("/api/"):
            check_source(request)

    app.register_middleware(check_path, "request")


def check_source(request: Request) -> None:
    """Raise Forbidden unless the request proves that no page of another origin caused it."""
    headers = request.headers
    site = headers.get("sec-fetch-site")
    if site in ("same-origin", "none"):
        return
    origin = headers.get("origin") or _get_origin(headers.get("referer"))
    if origin in get_state(request).allowed_origins:
        return
    if site is not None:
        raise Forbidden(
            "A page of another origin caused this request (Sec-Fetch-Site). Send it from the web "
            "UI, or add the page's origin to CORS_ORIGINS."
        )
    if origin is not None and not _is_own(request, origin):
        asked = f"{get_scheme(request)}://{headers.get('host', '')}"
        raise Forbidden(
            f"The origin of the page is {_quote(origin)}, but the request is for {_quote(asked)} "
            "by its `Host`. Send the request from the web UI, let the proxy pass `Host`, or add "
            "the page's origin to CORS_ORIGINS."
        )
    if origin is None and not _is_preflighted(request) and _is_browser(request):
        raise Forbidden(
            "The request does not prove its origin. From a browser, send `Origin` or `Referer`; "
            "from a program, send a `User-Agent` that does not contain `Mozilla/`."
        )


def reject_navigation(request: Request) -> None:
    """Raise Forbidden if a navigation or a prefetch would begin or change something."""
    mode = request.headers.get("sec-fetch-mode")
    if mode == "navigate" or (mode is None and _looks_like_navigation(request)):
        raise Forbidden(
            "This URL cannot be opened in the browser: open the web UI, or use POST or fetch."
        )
    if _is_prefetch(request):
        raise Forbidden("This URL cannot be prefetched.")


def needs_session(request: Request) -> bool:
    """Return whether a request may open a session: one for the API, or the load of the web UI.

    A foreign page can request `/` as an image, in a frame, or by a form. Its response must not
    replace the cookie, which the browser does not send with such a request.
    """
    if request.path.startswith("/api/"):
        return request.method != "OPTIONS"
    headers = request.headers
    is_load = (
        request.method in ("GET", "HEAD")
        and headers.get("sec-fetch-dest", "document") == "document"
        and "origin" not in headers
        and not _is_prefetch(request)
    )
    return request.path == "/" and is_load


def _get_origin(url: str | None) -> str | None:
    """Return the origin of a URL in `Referer`; None without one."""
    if not url:
        return None
    try:
        parts = urlsplit(url)
    except ValueError:
        return "null"
    return f"{parts.scheme}://{parts.netloc}"


def _is_own(request: Request, origin: str) -> bool:
    """Return whether an origin is this host, or the host that a trusted proxy was asked for.

    A port is compared too; a missing one is that of the origin's scheme. A page on http is not of
    the origin of a server on https.
    """
    scheme, _, host = origin.partition("://")
    if scheme not in _DEFAULT_PORTS or (scheme == "http" and get_scheme(request) == "https"):
        return False
    hosts = request.headers.getall("host", [])
    if is_from_trusted_proxy(request):
        hosts += request.headers.getall("x-forwarded-host", [])
    port = _DEFAULT_PORTS[scheme]
    own = {one.strip().lower().removesuffix(port) for value in hosts for one in value.split(",")}
    return host.lower().removesuffix(port) in own - {""}


def _quote(value: str) -> str:
    """Return a header's value for a message or the log: short, and without special characters."""
    return "`" + re.sub(r"[^A-Za-z0-9._:/@\[\]-]", "?", value[:100]) + "`"


def _is_preflighted(request: Request) -> bool:
    """Return whether a browser sends such a request to another site only after a preflight."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return request.method not in ("GET", "HEAD", "POST") or content_type == "application/json"


def _is_browser(request: Request) -> bool:
    """Return whether a browser may have sent the request; a missing `User-Agent` proves nothing."""
    return "Mozilla/" in (request.headers.get("user-agent") or "Mozilla/")


def _looks_like_navigation(request: Request) -> bool:
    """Return whether a browser without Fetch Metadata opens the URL as a page."""
    return _is_browser(request) and "text/html" in request.headers.get("accept", "")


def _is_prefetch(request: Request) -> bool:
    headers = request.headers
    return "prefetch" in (headers.get("sec-purpose", "") + headers.get("purpose", "")).lower()
