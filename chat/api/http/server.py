"""Run an application's HTTP server in the current event loop, and end its connections in order."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, cast

from sanic import Sanic
from sanic.application.state import ApplicationServerInfo
from sanic.http import Stage
from sanic.http.constants import HTTP

from chat.api.http.connection import Protocol
from chat.api.http.connection_limits import ConnectionLimits
from chat.api.trust.proxies import Network

_BACKLOG = 4096
"""Sanic calls listen() again, by default with a backlog of 100."""

_POLL_INTERVAL_S = 0.05


def choose_event_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the constructor of uvloop's event loop if it is installed, else of asyncio's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


class HttpServer:
    """The server of one worker.

    It replaces `app.run`, which gives no access to the connections. `app.run` also removes its
    signal handlers before its stop listeners run, so that a second SIGTERM would end a draining
    worker.
    """

    def __init__(
        self, app: Sanic[Any, Any], per_address: int, total: int, trusted: Sequence[Network]
    ) -> None:
        self.app = app
        limits = ConnectionLimits(per_address, total, trusted)
        self._protocol = partial(Protocol, limits=limits)
        self._server: Any = None

    async def start(self, listener: socket.socket) -> None:
        """Run the application's start listeners, then accept connections."""
        # Only `app.run` states the version of HTTP. Without it, each response has an empty Alt-Svc.
        settings = {"version": HTTP.VERSION_1, "host": None, "port": None}
        self.app.state.server_info.append(ApplicationServerInfo(settings))
        self._server = await self.app.create_server(
            sock=listener,
            protocol=cast(type[Protocol], self._protocol),
            backlog=_BACKLOG,
            asyncio_server_kwargs={"start_serving": False},
        )
        await self._server.startup()
        await self._server.before_start()
        await self._server.start_serving()

    def announce_close(self) -> None:
        """Send `Connection: close` with every response that begins from now on."""
        self.app.config.KEEP_ALIVE = False  # for requests whose headers have not been read yet
        for connection in self._server.connections:
            if connection.http and connection.http.stage is Stage.HANDLER:
                connection.http.keep_alive = False

    async def stop(self) -> None:
        """Accept no more connections, let responses end, and run the application's stop listeners.

        Idle connections are closed, and after GRACEFUL_SHUTDOWN_TIMEOUT seconds all others.
        """
        self._server.close()
        connections = self._server.connections
        with suppress(TimeoutError):
            async with asyncio.timeout(self.app.config.GRACEFUL_SHUTDOWN_TIMEOUT):
                while connections:
                    # A connection accepted just now may be about to send its request.
                    await asyncio.sleep(_POLL_INTERVAL_S)
                    for connection in list(connections):
                        connection.close_if_idle()
        for connection in list(connections):
            connection.abort()
        await self._server.after_stop()
