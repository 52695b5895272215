"""A viewer that reads one turn's stream as an EventSource does."""

import asyncio
from collections.abc import Callable

import httpx
from httpx_sse import aconnect_sse

from tests.streams import STREAM

_RETRY_S = 0.02
"""Delay before a reconnect; shorter than the stream's `retry:`, to save time."""


class Viewer:
    """One tab: it shows the text received so far, and resumes after its last frame.

    It fails if a frame arrives after the last one, or if `end` differs from the joined deltas.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        query: dict[str, str],
        *,
        retry_s: float = _RETRY_S,
        on_text: Callable[[], None] = lambda: None,
    ) -> None:
        self.text = ""
        self.discarded: list[str] = []
        """The texts that were shown before a `restart` or a reload."""
        self.failures: list[str] = []
        """The data of `failed` frames."""
        self.rejections: list[int] = []
        """The statuses of the responses that were not a stream."""
        self.begun = asyncio.Event()
        self.endings: list[str] = []
        self._client = client
        self._query = query
        self._retry_s = retry_s
        self._on_text = on_text
        self._last_id = ""
        self._connection: asyncio.Task[None] | None = None

    def connect(self) -> None:
        """Connect, unless connected, and resume after the last frame.

        Raise the error of an earlier connection, if it found one.
        """
        if self._connection is not None and self._connection.done():
            self._connection.result()
            self._connection = None
        if self._connection is None:
            self._connection = asyncio.create_task(self._read_stream())

    async def drop(self) -> None:
        """Drop the connection. Raise the error that it found, if any."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.cancel()
            await asyncio.wait([connection])
            if not connection.cancelled():
                connection.result()

    async def __aenter__(self) -> "Viewer":
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.drop()

    def reset(self) -> None:
        """Discard the text and the last id, as a page reload does."""
        self._discard()
        self._last_id = ""
        self.endings.clear()

    def _discard(self) -> None:
        self.discarded.append(self.text)
        self.text = ""

    async def wait_until(self, reached: asyncio.Event) -> None:
        """Reconnect, as an EventSource does, until this event is set."""
        while not reached.is_set():
            self.connect()
            assert self._connection is not None
            waiting = asyncio.create_task(reached.wait())
            await asyncio.wait([self._connection, waiting], return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if self._connection.done():
                self._connection.result()
                await asyncio.sleep(self._retry_s)

    async def read_to_end(self) -> None:
        """Reconnect, as an EventSource does, until the last frame has arrived."""
        while not self.endings:
            self.connect()
            assert self._connection is not None
            await self._connection
            await asyncio.sleep(self._retry_s)

    async def _read_stream(self) -> None:
        headers = {"Last-Event-ID": self._last_id} if self._last_id else {}
        try:
            async with aconnect_sse(
                self._client, "GET", STREAM, params=self._query, headers=headers
            ) as source:
                if source.response.status_code == 204:
                    assert self.endings
                    return
                if source.response.status_code != 200:
                    self.rejections.append(source.response.status_code)
                    return
                async for event in source.aiter_sse():
                    # httpx-sse yields a heartbeat as an empty message.
                    if event.event != "message" or event.data:
                        self._show(event.event, event.data)
                    self._last_id = event.id
        except httpx.TransportError:
            return  # the worker died

    def _show(self, name: str, data: str) -> None:
        assert not self.endings, "a frame arrived after the last one"
        if name == "message":
            self.text += data
            self._on_text()
        elif name == "restart":
            self._discard()
        elif name in ("end", "failed"):
            self.endings.append(name)
            if name == "failed":
                self.failures.append(data)
            else:
                assert data == self.text
        self.begun.set()
