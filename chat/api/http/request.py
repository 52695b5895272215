"""Serve an application under a path prefix, such as `/chat`."""

from typing import Any

from sanic import HTTPResponse, Request, Sanic
from sanic.response import redirect


class PrefixedRequest(Request[Any, Any]):
    """A request whose path may begin with BASE_PATH; the routes do not contain it.

    A path without the prefix is served too: load balancers ask for `/healthz` directly, and some
    proxies remove the prefix.
    """

    @property
    def path(self) -> str:
        """Return the path without the prefix."""
        path, base_path = super().path, self.app.config.BASE_PATH
        return path.removeprefix(base_path) if path.startswith(f"{base_path}/") else path


def install_redirect(app: Sanic[Any, Any], base_path: str) -> None:
    """Redirect the prefix without a final `/`, where the web UI's relative URLs would be wrong."""

    @app.get(base_path, strict_slashes=True)
    async def add_slash(request: Request) -> HTTPResponse:
        return redirect(f"{base_path.rpartition('/')[2]}/", status=308)
