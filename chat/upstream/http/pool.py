"""Keep idle connections to upstreams, and open new ones."""

import asyncio
import socket
import ssl
from collections import deque

import aiohappyeyeballs
import httpx2

from chat.upstream.http.connection import Connection, Origin

MAX_IDLE_S = 4.0
"""Seconds for which an idle connection is kept.

Node, uvicorn (vLLM, SGLang, LiteLLM) and llama-server close an idle connection after 5 s, an AWS
load balancer after 60 s and nginx after 75 s. NAT gateways drop it silently after some minutes. A
client that closes first never sends a request on a connection that the server is about to close.
"""

ACKNOWLEDGE_S = 10.0
"""Seconds in which TCP must acknowledge a request on a reused connection."""

_MAX_IDLE = 100

_NEXT_ADDRESS_S = 0.25
"""Seconds after which the next address of a host is tried as well (RFC 8305)."""

_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}
"""Seconds of silence before a probe, between probes, and unanswered probes until the connection is
lost. A gateway counts the probes as traffic, and does not drop the connection of a slow response.
macOS has TCP_KEEPALIVE instead of TCP_KEEPIDLE."""


class Pool:
    """Idle connections to any number of origins, each kept for `MAX_IDLE_S`."""

    def __init__(self) -> None:
        self._idle: dict[Origin, deque[Connection]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._tls: ssl.SSLContext | None = None

    def take(self, origin: Origin) -> Connection | None:
        """Return the most recently used idle connection; None if there is none."""
        idle = self._idle.get(origin, ())
        while idle:
            connection = idle.pop()
            if connection.is_reusable:
                return connection
        return None

    def keep(self, connection: Connection) -> None:
        """Keep a connection whose response is complete."""
        idle = self._idle.setdefault(connection.origin, deque())
        if len(idle) == _MAX_IDLE:
            idle.popleft().close()
        loop = asyncio.get_running_loop()
        connection.idle_since = loop.time()
        idle.append(connection)
        if self._timer is None:
            self._timer = loop.call_later(MAX_IDLE_S, self._close_expired)

    def close_older(self, connection: Connection) -> None:
        """Close the connections that were idle for longer than a stale one: they are stale too."""
        _close_until(self._idle.get(connection.origin), connection.idle_since)

    def close(self) -> None:
        """Close the idle connections."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
        for idle in self._idle.values():
            _close_until(idle, float("inf"))

    async def open(self, origin: Origin, timeout_s: float | None) -> Connection:
        """Return a new connection. Raises httpx2.ConnectTimeout and httpx2.ConnectError."""
        scheme, host, port = origin
        tls = self._load_tls() if scheme == b"https" else None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_s):
                addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                sock = await aiohappyeyeballs.start_connection(
                    addresses, happy_eyeballs_delay=_NEXT_ADDRESS_S, socket_factory=create_socket
                )
                try:
                    _, connection = await loop.create_connection(
                        lambda: Connection(origin),
                        sock=sock,
                        ssl=tls,
                        server_hostname=host if tls else None,
                    )
                except BaseException:
                    sock.close()
                    raise
        except TimeoutError:
            # The cause would be the cancellation by which asyncio.timeout works.
            raise httpx2.ConnectTimeout("no connection in time") from None
        except OSError as error:  # an unknown name, a refusal, an untrusted certificate
            raise httpx2.ConnectError(str(error)) from error
        return connection

    def _load_tls(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = httpx2.create_ssl_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    def _close_expired(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for idle in self._idle.values():
            _close_until(idle, loop.time() - MAX_IDLE_S + 0.01)  # a timer may fire early
        if oldest := [idle[0].idle_since for idle in self._idle.values() if idle]:
            self._timer = loop.call_at(min(oldest) + MAX_IDLE_S, self._close_expired)


def limit_acknowledgement(connection: Connection, timeout_s: float) -> None:
    """Fail if sent bytes are not acknowledged in time; 0 restores TCP's limit of many minutes.

    Only Linux supports this. A slow server is not affected, because its kernel acknowledges.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT") and connection.is_open:
        milliseconds = int(timeout_s * 1000)
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)


def create_socket(address: aiohappyeyeballs.AddrInfoType) -> socket.socket:
    """Return a socket with TCP keepalive."""
    family, kind, protocol, *_ = address
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return sock


def _close_until(idle: deque[Connection] | None, idle_since: float) -> None:
    """Close the connections that became idle at `idle_since` or earlier; the oldest is first."""
    while idle and idle[0].idle_since <= idle_since:
        idle.popleft().close()
