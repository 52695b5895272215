"""A TCP link between client and server that freezes, as while a computer sleeps, or is cut."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.processes import Server


class TcpLink:
    """Forward the bytes of every connection to a server, in both directions."""

    def __init__(self, server: Server, certificate: Path | None = None) -> None:
        self.url = ""
        self._certificate = certificate
        self._port = int(server.url.rpartition(":")[2])
        self._frozen = asyncio.Event()
        self._last_bytes = b""
        self._cut = asyncio.Event()

    def freeze(self) -> None:
        """Deliver no more bytes from the server on the current connections, which stay open.

        A connection on which the browser sends is reset, as by a router that has dropped its
        state. New connections work.
        """
        self._frozen.set()
        self._frozen = asyncio.Event()

    def move(self, server: Server) -> None:
        """Forward new connections to another server, as a proxy in front of both does."""
        self._port = int(server.url.rpartition(":")[2])

    def cut_after(self, last_bytes: bytes) -> asyncio.Event:
        """Close the connection that delivers these bytes, right after them; once.

        The event is set when it is closed. New connections work.
        """
        self._last_bytes, self._cut = last_bytes, asyncio.Event()
        return self._cut

    def _find_cut(self, recent: bytes, data: bytes) -> int | None:
        """Return how many bytes of `data` to deliver before the cut; None if it is not in them."""
        if not self._last_bytes:
            return None
        before = recent[1 - len(self._last_bytes) :]  # the bytes may arrive in two pieces
        found = (before + data).find(self._last_bytes)
        return None if found < 0 else found + len(self._last_bytes) - len(before)

    async def _connect(
        self, to_browser: asyncio.StreamWriter
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the server; with TLS, use the protocol that the browser has negotiated."""
        if not self._certificate:
            return await asyncio.open_connection("127.0.0.1", self._port)
        protocol = to_browser.get_extra_info("ssl_object").selected_alpn_protocol()
        context = ssl.create_default_context(cafile=self._certificate / "ca.pem")
        context.set_alpn_protocols([protocol or "http/1.1"])
        return await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=context, server_hostname="localhost"
        )

    async def forward(
        self, browser: asyncio.StreamReader, to_browser: asyncio.StreamWriter
    ) -> None:
        """Forward one connection until one side closes it."""
        frozen = self._frozen
        server, to_server = await self._connect(to_browser)

        async def send() -> None:
            while (data := await browser.read(1 << 16)) and not frozen.is_set():
                to_server.write(data)
            raise ConnectionResetError

        async def receive() -> None:
            recent = b""
            while data := await server.read(1 << 16):
                if frozen.is_set():
                    continue
                end = self._find_cut(recent, data)
                to_browser.write(data[:end])
                if end is not None:
                    self._last_bytes = b""
                    self._cut.set()
                    break
                recent = (recent + data)[-(1 << 10) :]
            raise ConnectionResetError

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(send())
                group.create_task(receive())
        except* OSError:
            pass  # one side closed the connection; the other one is closed below
        finally:
            to_browser.close()
            to_server.transport.abort()


@asynccontextmanager
async def tcp_link(server: Server, certificate: Path | None = None) -> AsyncIterator[TcpLink]:
    """Listen on a free port and yield a link to the server.

    With a folder of a certificate for localhost, both sides of the link use TLS.
    """
    link = TcpLink(server, certificate)
    context = tls_context(certificate, "h2", "http/1.1") if certificate else None
    listener = await asyncio.start_server(link.forward, "127.0.0.1", 0, ssl=context)
    origin = "https://localhost" if certificate else "http://127.0.0.1"
    link.url = f"{origin}:{listener.sockets[0].getsockname()[1]}"
    try:
        yield link
    finally:
        listener.close()


def tls_context(certificate: Path, *protocols: str) -> ssl.SSLContext:
    """Return the context of a server with this certificate and these protocols of HTTP."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate / "holdline.crt", certificate / "holdline.key")
    context.set_alpn_protocols(protocols)
    return context
