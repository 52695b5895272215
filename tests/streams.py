"""Read a turn's stream with an independent client library, httpx-sse."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator, AsyncIterator

import httpx
from httpx_sse import EventSource, ServerSentEvent, aconnect_sse

from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S

STREAM = "/api/chat_stream/"


class EventsWithData(EventSource):
    """The events of a stream, without those that httpx-sse makes of heartbeats.

    A comment after a frame with an id becomes an empty event there; a browser dispatches none.
    """

    async def aiter_sse(self) -> AsyncGenerator[ServerSentEvent, None]:
        async for event in super().aiter_sse():
            if event.data or event.event != "message":
                yield event


@contextlib.asynccontextmanager
async def asking(
    client: httpx.AsyncClient, headers: dict[str, str] | None = None, **query: str
) -> AsyncIterator[EventSource]:
    """Open a stream and yield its events as they arrive; raise on an HTTP error."""
    async with aconnect_sse(client, "GET", STREAM, params=query, headers=headers or {}) as source:
        source.response.raise_for_status()
        yield EventsWithData(source.response)


async def read(
    client: httpx.AsyncClient, headers: dict[str, str] | None = None, **query: str
) -> list[ServerSentEvent]:
    """Return every event of a stream, once the server has closed it."""
    events: list[ServerSentEvent] = []
    await read_into(events, client, headers, **query)
    return events


async def read_into(
    events: list[ServerSentEvent],
    client: httpx.AsyncClient,
    headers: dict[str, str] | None = None,
    **query: str,
) -> None:
    """Append every event of a stream as it arrives, until the server closes it."""
    async with asking(client, headers, **query) as source:
        async for event in source.aiter_sse():
            events.append(event)  # noqa: PERF401 (`extend` would wait for the end)


async def wait_for_text(viewers: list[list[ServerSentEvent]]) -> None:
    """Return when each of several viewers has received text, which is durable then."""
    async with asyncio.timeout(PATIENCE_S):
        while not all(text_of(events) for events in viewers):
            await asyncio.sleep(0.01)


def cookie_of(client: httpx.AsyncClient) -> str:
    """Return the session cookie of a client, as `<name>=<value>`."""
    (found,) = client.cookies.jar
    return f"{found.name}={found.value}"


def text_of(events: list[ServerSentEvent]) -> str:
    """Return the joined deltas of the answer."""
    return "".join(event.data for event in events if event.event == "message")


def names_of(events: list[ServerSentEvent]) -> list[str]:
    """Return the frames' names; neighbours of one name count once: they can share a frame."""
    return [name for name, _ in itertools.groupby(event.event for event in events)]


async def ask(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, *texts: str, **query: str
) -> list[ServerSentEvent]:
    """Send a question, answer it as the upstream, and return every event of the stream."""
    number = len(upstream.find_requests(question)) + 1
    reading = asyncio.create_task(read(client, None, message=question, **query))
    await (await upstream.exchange(question, number)).answer(*texts)
    return await reading
