"""A line between browser and server that goes dead as lines do while a computer sleeps: without a word."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.processes import Server


class Line:
    """Carries the bytes of every connection to a server and back."""

    def __init__(self, server: Server) -> None:
        self.url = ""
        self._port = int(server.url.rpartition(":")[2])
        self._dead = asyncio.Event()

    def go_dead(self) -> None:
        """Let nothing more come from the server on the connections there are, which stay open.

        Whoever sends on one is hung up on, as by a router that has forgotten it; new connections work.
        """
        self._dead.set()
        self._dead = asyncio.Event()

    async def carry(self, browser: asyncio.StreamReader, to_browser: asyncio.StreamWriter) -> None:
        """Carry one connection until an end of it hangs up."""
        dead = self._dead
        server, to_server = await asyncio.open_connection("127.0.0.1", self._port)

        async def there() -> None:
            while (data := await browser.read(1 << 16)) and not dead.is_set():
                to_server.write(data)
            raise ConnectionResetError

        async def back() -> None:
            while data := await server.read(1 << 16):
                if not dead.is_set():
                    to_browser.write(data)
            raise ConnectionResetError

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(there())
                group.create_task(back())
        except* ConnectionError:
            pass  # one end hung up: the other is hung up on below
        finally:
            to_browser.close()
            to_server.transport.abort()


@asynccontextmanager
async def line_to(server: Server) -> AsyncIterator[Line]:
    """A line to the server on a free port of its own."""
    line = Line(server)
    listener = await asyncio.start_server(line.carry, "127.0.0.1", 0)
    line.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    try:
        yield line
    finally:
        listener.close()
