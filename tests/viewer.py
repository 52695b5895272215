"""A tab of a browser, as far as its stream goes."""

import asyncio

import httpx
from httpx_sse import aconnect_sse

from tests.streams import STREAM


class Viewer:
    """One tab: it shows what comes, remembers where it was, and may lose its line."""

    def __init__(self, client: httpx.AsyncClient, query: dict[str, str]) -> None:
        self.text = ""
        self.begun = asyncio.Event()
        self.endings: list[str] = []
        self._client = client
        self._query = query
        self._last_id = ""
        self._line: asyncio.Task[None] | None = None

    def connect(self) -> None:
        """Open the line, where there is none, and go on where it was."""
        if self._line is not None and self._line.done():
            self._line.result()  # raises what was wrong with what it saw
            self._line = None
        if self._line is None:
            self._line = asyncio.create_task(self._watch())

    async def drop(self) -> None:
        """Lose the line."""
        line, self._line = self._line, None
        if line is not None:
            line.cancel()
            await asyncio.wait([line])
            if not line.cancelled():
                line.result()

    async def __aenter__(self) -> "Viewer":
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.drop()

    def forget(self) -> None:
        """Be as a reloaded page: nothing is shown, and no id is known."""
        self.text, self._last_id = "", ""
        self.endings.clear()

    async def wait_until(self, reached: asyncio.Event) -> None:
        """Stay connected until something has come, as an EventSource does."""
        while not reached.is_set():
            self.connect()
            assert self._line is not None
            waiting = asyncio.create_task(reached.wait())
            await asyncio.wait([self._line, waiting], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if self._line.done():
                self._line.result()
                await asyncio.sleep(0.02)  # its `retry:`, in a hurry

    async def see_it_end(self) -> None:
        """Stay connected, as an EventSource does, until the last frame has come."""
        while not self.endings:
            self.connect()
            assert self._line is not None
            await self._line
            await asyncio.sleep(0.02)

    async def _watch(self) -> None:
        headers = {"Last-Event-ID": self._last_id} if self._last_id else {}
        try:
            async with aconnect_sse(
                self._client, "GET", STREAM, params=self._query, headers=headers
            ) as source:
                if source.response.status_code == 204:
                    assert self.endings
                    return
                async for event in source.aiter_sse():
                    if (
                        event.event != "message" or event.data
                    ):  # httpx-sse takes a heartbeat for one
                        self._take(event.event, event.data)
                    self._last_id = event.id
        except httpx.TransportError:
            return  # the worker died, and the line with it

    def _take(self, name: str, data: str) -> None:
        assert not self.endings, "something came after the end"
        if name == "message":
            self.text += data
        elif name == "restart":
            self.text = ""
        elif name in ("end", "failed"):
            self.endings.append(name)
            assert name == "failed" or data == self.text
        self.begun.set()
