"""A web site of another origin: pages that a test adds, and the packages that they import."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from tests.browser.tcp_link import tls_context
from tests.processes import ROOT

MARKED = ROOT / "frontend" / "node_modules" / "marked" / "lib" / "marked.umd.js"
_PACKAGES = ROOT / "tests" / "clients" / "node_modules"
_IMPORTS = {
    "@microsoft/fetch-event-source": "/packages/@microsoft/fetch-event-source/lib/esm/index.js",
    "deep-chat": "/packages/deep-chat/dist/deepChat.bundle.js",
}


class Site:
    """A site on loopback, which the hosts `localhost` and `127.0.0.1` reach."""

    def __init__(self) -> None:
        self.origins = ("", "")
        """An origin of the same site as Holdline, and one of another site."""
        self._pages: dict[str, str] = {}

    def add_page(self, name: str, html: str) -> str:
        """Serve a page and return its path."""
        self._pages[name] = html
        return f"/{name}"

    def add_program(self, name: str, language: str, program: str) -> str:
        """Serve a page with a program of docs/clients.md, in HTML or JavaScript."""
        if language == "js":
            program = f'<p id="answer"></p>\n<script type="module">\n{program}</script>'
        imports = f'<script type="importmap">{json.dumps({"imports": _IMPORTS})}</script>'
        return self.add_page(name, f"<!doctype html>\n{imports}\n{program}")

    async def show_page(self, request: web.Request) -> web.Response:
        html = self._pages.get(request.match_info["name"])
        if html is None:
            raise web.HTTPNotFound
        return web.Response(text=html, content_type="text/html")

    async def show_package(self, request: web.Request) -> web.FileResponse:
        """Serve a file of a package, whose imports may omit `.js`."""
        path = _PACKAGES / request.match_info["path"]
        return web.FileResponse(path if path.suffix else path.with_suffix(".js"))


@asynccontextmanager
async def web_site(certificate: Path | None) -> AsyncIterator[Site]:
    """Run a site on a free port, with TLS if there is a certificate, and yield it."""

    async def show_marked(request: web.Request) -> web.FileResponse:
        return web.FileResponse(MARKED)

    site = Site()
    app = web.Application()
    app.router.add_get("/marked.js", show_marked)
    app.router.add_get("/packages/{path:.+}", site.show_package)
    app.router.add_get("/{name}", site.show_page)
    runner = web.AppRunner(app)
    await runner.setup()
    context = tls_context(certificate, "http/1.1") if certificate else None
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    port = runner.addresses[0][1]
    site.origins = (f"http://127.0.0.1:{port}", f"http://localhost:{port}")
    if certificate:
        site.origins = (f"https://localhost:{port}", f"https://127.0.0.1:{port}")
    try:
        yield site
    finally:
        await runner.cleanup()
