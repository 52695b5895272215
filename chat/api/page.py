"""Serve the web UI and the documentation of the API: their own files and three libraries.

Caches compare the contents of files (`ETag`), not their times. Another version, in an upgrade or a
rollback, may bring older times, and a page with files of two versions does not work.
"""

import re
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from sanic import HTTPResponse, Request, Sanic
from sanic.exceptions import NotFound
from sanic.response import BaseHTTPResponse, file

from chat.api.trust import proxies

FRONTEND = Path(__file__).parents[2] / "frontend"

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'self'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), usb=()",
}
"""Headers of every response."""

HSTS = "max-age=31536000"
"""Strict-Transport-Security (RFC 6797), in seconds: a year. Subdomains may use http."""


async def get_index(request: Request) -> HTTPResponse:
    """Return the web UI."""
    return await _get_file(request, FRONTEND / "index.html")


async def get_docs(request: Request) -> HTTPResponse:
    """Return the page that shows this documentation."""
    return await _get_file(request, FRONTEND / "docs.html")


async def get_document(request: Request) -> HTTPResponse:
    """Return this documentation as an OpenAPI document."""
    return HTTPResponse(request.app.ctx.openapi, content_type="application/json")


async def _get_file(
    request: Request, path: Path, content_type: str = "text/html; charset=utf-8"
) -> HTTPResponse:
    """Return a file, or 304 if the client has its content; raises NotFound."""
    try:
        response = await file(path, mime_type=content_type, last_modified=None)
    except FileNotFoundError as error:
        raise NotFound("a file is missing") from error
    tag = f'"{sha256(response.body or b"").hexdigest()}"'
    if _names(request.headers.getall("if-none-match", []), tag):
        response = HTTPResponse(status=304)
    response.headers["ETag"] = tag
    return response


def _names(conditions: list[str], tag: str) -> bool:
    """Return whether `If-None-Match` names a tag without commas (RFC 9110 §13.1.2)."""
    values = [value.strip() for value in ",".join(conditions).split(",")]
    return values == ["*"] or tag in (value.removeprefix("W/") for value in values)


def install(app: Sanic[Any, Any], openapi: bytes) -> None:
    """Register the pages, their files, and the security headers of all responses.

    `openapi` is the OpenAPI document.
    """
    app.ctx.openapi = openapi
    app.add_route(get_index, "/")
    app.add_route(get_docs, "/docs", strict_slashes=True)  # its links are relative
    app.add_route(get_document, "/docs/openapi.json")
    own = [*(FRONTEND / "styles").glob("*.css"), *(FRONTEND / "js").rglob("*.js")]
    libraries = FRONTEND / "node_modules"
    files = {
        "favicon.svg": FRONTEND / "favicon.svg",
        "vendor/marked.js": libraries / "marked" / "lib" / "marked.esm.js",
        "vendor/morphdom.js": libraries / "morphdom" / "dist" / "morphdom-esm.js",
        "vendor/purify.js": libraries / "dompurify" / "dist" / "purify.es.mjs",
        **{path.relative_to(FRONTEND).as_posix(): path for path in own},
    }
    types = {".css": "text/css", ".svg": "image/svg+xml"}
    for name, path in files.items():  # one route per file, so that no URL reaches another file
        content_type = types.get(path.suffix, "text/javascript") + "; charset=utf-8"
        get_file = partial(_get_file, path=path, content_type=content_type)
        app.route(f"/{name}", name=re.sub(r"\W", "_", name), static=True)(get_file)

    async def add_headers(request: Request, response: BaseHTTPResponse) -> None:
        for name, value in SECURITY_HEADERS.items():
            response.headers.setdefault(name, value)
        if proxies.get_scheme(request) == "https":
            response.headers.setdefault("Strict-Transport-Security", HSTS)
        is_private = request.path.startswith(("/api/", "/v1/"))
        response.headers.setdefault("Cache-Control", "no-store" if is_private else "no-cache")

    app.register_middleware(add_headers, "response")
