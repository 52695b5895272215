"""Attacks that hold what a server has few of: memory for responses, and connections."""

import asyncio
from contextlib import AsyncExitStack

import httpx

from tests.attack.target import Outcome, Target, gather_bounded, is_served, summarise
from tests.streams import STREAM

_MB = 1_000_000
_LONGEST = "😀" * 32_000


async def leave_responses_unread(target: Target) -> Outcome:
    """Request a conversation of 4.5 MB on 60 connections, and read nothing."""
    async with target.open_client() as client:
        await client.get("/")
        for number in range(36):
            answered = await client.post(STREAM, json={"message": _LONGEST[number:]})
            assert answered.status_code == 200
        created = (await client.get("/api/conversations/")).json()["conversations"][0]["id"]
        cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    before = target.count_resident_bytes()
    request = (
        f"GET /api/conversations/{created} HTTP/1.1\r\nHost: {target.url.partition('//')[2]}\r\n"
        f"User-Agent: attack\r\nCookie: {cookie}\r\n\r\n"
    ).encode()

    async def send(connections: AsyncExitStack) -> None:
        _, writer = await asyncio.open_connection(*target.address, limit=1024)
        connections.callback(lambda: writer.transport.abort())  # which keeps the writer
        writer.write(request)
        await writer.drain()

    async with AsyncExitStack() as connections:
        await gather_bounded([send(connections) for _ in range(60)])
        await asyncio.sleep(3)  # the responses are written, or wait
        grown = (target.count_resident_bytes() - before) / _MB
        served = await is_served(target)
    return Outcome(
        grown < 100 and served,
        f"the worker grew by {grown:.0f} MB; others {'served' if served else 'not served'}",
    )


async def hold_events_without_a_cookie(target: Target) -> Outcome:
    """Open the event channel on all connections of a worker, behind a trusted proxy."""
    headers = {"X-Forwarded-For": "203.0.113.7"}
    options = {"limits": httpx.Limits(max_connections=None), "timeout": 5, "headers": headers}

    async def watch(client: httpx.AsyncClient, held: AsyncExitStack) -> int:
        stream = client.stream("GET", "/api/events/")
        return (await held.enter_async_context(stream)).status_code

    async with target.open_uncookied_client(**options) as client, AsyncExitStack() as held:
        statuses = await gather_bounded([watch(client, held) for _ in range(60)])
        served = await is_served(target)
    return Outcome(served, f"{summarise(statuses)}; others {'served' if served else 'not served'}")
