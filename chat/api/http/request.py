"""Requests: served under a path prefix, such as `/chat`, and freed with their responses."""

from contextvars import ContextVar
from typing import Any, cast

from sanic import HTTPResponse, Request, Sanic
from sanic.response import redirect


class _NoCurrentRequest:
    """Replaces the context variable in which Sanic keeps the current request.

    Each task, and each connection to Redis or to an upstream, copies the context in which it is
    created. It would keep the request with its body for as long as it lives. No part of Holdline
    asks for the current request; Sanic's private `_current` is replaced here alone.
    """

    def get(self, default: None = None) -> None:
        """Return the default, as outside of any request."""
        return default

    def set(self, request: Request[Any, Any]) -> None:
        """Keep nothing."""


class PrefixedRequest(Request[Any, Any]):
    """A request whose path may begin with BASE_PATH; the routes do not contain it.

    A path without the prefix is served too: load balancers ask for `/healthz` directly, and some
    proxies remove the prefix.
    """

    _current = cast(ContextVar[Request[Any, Any]], _NoCurrentRequest())

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
