"""Reading a turn's stream as an independent client does (httpx-sse)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx
from httpx_sse import EventSource, ServerSentEvent, aconnect_sse

from tests.fake_upstream import ScriptedUpstream

STREAM = "/api/chat_stream/"


@contextlib.asynccontextmanager
async def asking(
    client: httpx.AsyncClient, headers: dict[str, str] | None = None, **query: str
) -> AsyncIterator[EventSource]:
    """An open stream."""
    async with aconnect_sse(client, "GET", STREAM, params=query, headers=headers or {}) as source:
        source.response.raise_for_status()
        yield source


async def read(
    client: httpx.AsyncClient, headers: dict[str, str] | None = None, **query: str
) -> list[ServerSentEvent]:
    """Every event of a stream until it closes."""
    async with asking(client, headers, **query) as source:
        return [event async for event in source.aiter_sse()]


def text_of(events: list[ServerSentEvent]) -> str:
    """The answer's deltas, joined."""
    return "".join(event.data for event in events if event.event == "message")


async def ask(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str, *texts: str, **query: str
) -> list[ServerSentEvent]:
    """Ask, have the upstream answer, and read the whole stream."""
    number = len(upstream.asked(question)) + 1
    reading = asyncio.create_task(read(client, None, message=question, **query))
    await (await upstream.exchange(question, number)).answer(*texts)
    return await reading
