"""Streams survive a silence of 70 s. All streams of this file are silent at the same time."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from tests.fake_upstream import Exchange, ScriptedUpstream
from tests.processes import Server
from tests.proxies.configurations import FRONTS, SHIPPED, TEN_SECONDS
from tests.proxies.conftest import find_port, require
from tests.proxies.curl import PROTOCOLS, Response, request
from tests.proxies.doors import ALL_DOORS, Door, ask
from tests.proxies.fronts import Front, find_missing, start_front
from tests.raw_server import END, chunked, raw_server

SILENCE_S = 70

Case = tuple[str, str, bool, str]
"""A proxy, a protocol, whether the proxy cuts after 10 s, and a door.

Without a door, the proxy forwards to a server that sends no heartbeats, instead of Holdline.
"""


@pytest_asyncio.fixture(scope="module")
async def responses(
    server: Server, upstream: ScriptedUpstream, certificate: Path
) -> AsyncIterator[Mapping[Case, Response]]:
    """Yield all responses, which ended after the silence."""
    found: dict[Case, Response] = {}
    exchanges: list[Exchange] = []
    async with AsyncExitStack() as stack:
        origin = await stack.enter_async_context(raw_server())
        is_over = asyncio.Event()

        async def stay_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(chunked(b"before"))
            await is_over.wait()
            writer.write(b"5\r\nafter\r\n" + END)

        async def open_stream(front: Front, case: Case, door: Door) -> None:
            question = f"silence {case}"
            found[case] = await stack.enter_async_context(ask(front, case[1], door, question))
            exchange = await upstream.exchange(question)
            await exchange.send_text("before ")
            exchanges.append(exchange)

        origin.serve = stay_silent
        for name, is_cut in itertools.product(FRONTS, (False, True)):
            if find_missing(name):
                continue
            edit = TEN_SECONDS[name] if is_cut else None
            front, raw = [
                await stack.enter_async_context(start_front(name, certificate, port, edit=edit))
                for port in (find_port(server), origin.port)
            ]
            async with asyncio.TaskGroup() as group:
                for protocol in PROTOCOLS:
                    response = await stack.enter_async_context(request(raw, protocol, "/"))
                    found[name, protocol, is_cut, ""] = response
                    for door in ALL_DOORS:
                        case = (name, protocol, is_cut, door.name)
                        group.create_task(open_stream(front, case, door))
        await asyncio.sleep(SILENCE_S)
        is_over.set()
        for exchange in exchanges:
            await exchange.answer("after")
        for response in found.values():
            await response.read_to_end()
        yield found


def check(response: Response, door: Door) -> None:
    """Fail unless the response is complete."""
    assert response.process.returncode == 0
    assert door.decode(response.body) == "before after"


SURVIVING = [
    (name, door)
    for name in FRONTS
    for door in ALL_DOORS
    # Without heartbeats, an nginx that is not configured cuts after 60 s.
    if door.has_heartbeats or name in SHIPPED
]


@pytest.mark.parametrize(
    ("name", "door"), SURVIVING, ids=lambda value: getattr(value, "name", value)
)
@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_stream_survives_70_s_without_text(
    name: str, protocol: str, door: Door, responses: Mapping[Case, Response]
) -> None:
    require(name)
    check(responses[name, protocol, False, door.name], door)


@pytest.mark.parametrize(
    "door", [door for door in ALL_DOORS if door.has_heartbeats], ids=lambda door: door.name
)
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", FRONTS)
async def test_heartbeats_keep_a_stream_open_that_the_proxy_would_cut_after_10_s(
    name: str, protocol: str, door: Door, responses: Mapping[Case, Response]
) -> None:
    require(name)
    check(responses[name, protocol, True, door.name], door)
    assert b"after" not in responses[name, protocol, True, ""].body  # without heartbeats, it cuts


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", SHIPPED)
async def test_a_response_without_heartbeats_survives_70_s_of_silence(
    name: str, protocol: str, responses: Mapping[Case, Response]
) -> None:
    require(name)
    assert responses[name, protocol, False, ""].body == b"beforeafter"
