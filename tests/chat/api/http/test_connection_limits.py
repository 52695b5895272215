"""Limits of connections: from one address, in total, and the reserve for health checks."""

import asyncio
import resource
import sys
from contextlib import AsyncExitStack
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from chat.api.http.connection_limits import RESERVE, ConnectionLimits, Place
from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S, Server, holdline
from tests.streams import ask

HALF_HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"


class Door:
    """Admits connections, and notes which are closed in favour of others."""

    def __init__(self, per_address: int, total: int) -> None:
        self.limits = ConnectionLimits(per_address, total, [ip_network("10.0.0.0/8")])
        self.closed: list[str] = []

    def admit(self, name: str, address: str = "192.0.2.1") -> Place | None:
        return self.limits.admit((address, 1), lambda: self.closed.append(name))


async def test_at_the_total_the_connection_that_waits_longest_is_closed_for_a_new_one() -> None:
    door = Door(100, 3)
    places = {name: door.admit(name) for name in "abc"}
    first = places["a"]
    assert first
    door.limits.begin(first)
    door.limits.wait(first)  # a has waited for a shorter time now
    assert door.admit("d")
    assert door.closed == ["b"]


async def test_a_connection_with_a_request_is_never_closed_for_a_new_one() -> None:
    door = Door(100, 2)
    for name in "ab":
        place = door.admit(name)
        assert place
        door.limits.begin(place)
    for number in range(RESERVE):
        extra = door.admit(f"extra {number}")
        assert extra
        assert extra.is_extra
    assert door.closed == []
    assert door.admit("one more")  # in favour of the first extra one, which waits
    assert door.closed == ["extra 0"]


@pytest.mark.parametrize(
    ("path", "is_served"),
    [("/healthz", True), ("/readyz/", True), ("/", False), ("/api/info", False)],
)
async def test_the_reserve_serves_health_checks_only(path: str, is_served: bool) -> None:
    door = Door(100, 1)
    assert door.limits.allows_extra(path) is is_served


async def test_a_connection_beyond_the_reserve_is_rejected() -> None:
    door = Door(100, 1)
    last = None
    for number in range(1 + RESERVE):
        last = door.admit(str(number))
        assert last
        door.limits.begin(last)
    assert last
    assert door.admit("one more") is None
    door.limits.leave(last)
    assert door.admit("one more")


@pytest.mark.parametrize(
    ("first", "second", "are_one"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("fe80::1%eth0", "fe80::1%eth1", True),
        ("10.0.0.1", "10.0.0.1", False),  # a trusted proxy
    ],
)
async def test_the_limit_per_address_counts_an_ipv4_address_or_a_64_bit_prefix(
    first: str, second: str, are_one: bool
) -> None:
    door = Door(1, 100)
    place = door.admit("first", first)
    assert place
    door.limits.begin(place)
    assert (door.admit("second", second) is None) is are_one
    door.limits.leave(place)
    door.limits.leave(place)
    assert door.admit("third", second)


async def test_an_address_at_its_limit_closes_its_own_waiting_connection() -> None:
    door = Door(2, 100)
    door.admit("other", "192.0.2.9")
    for name in "abc":
        assert door.admit(name)
    assert door.closed == ["a"]


async def test_addresses_without_connections_are_forgotten() -> None:
    door = Door(1, 100)
    for number in range(50):
        place = door.admit("x", f"192.0.2.{number}")
        assert place
        door.limits.leave(place)
    assert not door.limits._groups


async def test_a_request_of_a_connection_that_was_closed_for_another_keeps_no_address() -> None:
    door = Door(100, 1)
    places = [door.admit("x", f"192.0.2.{number}") for number in range(50)]
    for place in places:
        assert place
        door.limits.begin(place)
        door.limits.wait(place)
        door.limits.leave(place)
    assert not door.limits._groups


async def get(server: Server, path: str) -> httpx.Response:
    """Request a path on a new connection."""
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client:
        return await client.get(path)


async def open_many(stack: AsyncExitStack, server: Server, count: int, sent: bytes) -> None:
    """Open connections that send `sent` and then nothing."""
    address = urlsplit(server.url)
    for _ in range(count):
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        stack.callback(writer.close)
        writer.write(sent)


@pytest.mark.parametrize("sent", [b"", HALF_HEAD], ids=["idle", "half a head"])
async def test_1100_idle_connections_at_1024_descriptors_keep_nobody_out(
    redis_url: str,
    upstream: ScriptedUpstream,
    question: str,
    sent: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limited = tmp_path / "python"
    limited.write_text(f'#!/bin/sh\nulimit -n 1024\nexec "{sys.executable}" "$@"\n')
    limited.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(limited))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    model = {"OPENAI_BASE_URL": upstream.base_url, "CHAT_MODEL": "m"}
    async with (
        holdline(REDIS_URL=redis_url, **model) as server,
        AsyncExitStack() as stack,
    ):
        await open_many(stack, server, 1100, sent)
        async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S) as client:
            for path in ("/healthz", "/readyz"):
                assert (await client.get(path)).status_code == 200
            await ask(client, upstream, question, "an answer")
        log = server.read_log()
    assert "1024" in log
    assert log.count("closed a connection that waited for a request") == 1  # more are counted


async def test_an_address_that_uses_all_its_connections_does_not_keep_others_out(
    redis_url: str,
) -> None:
    settings = {"TRUSTED_PROXIES": "none", "CONNECTIONS_MAX": "3,100"}
    async with holdline(REDIS_URL=redis_url, **settings) as server, AsyncExitStack() as stack:
        address = urlsplit(server.url)
        for _ in range(3):
            client = await stack.enter_async_context(httpx.AsyncClient(base_url=server.url))
            await client.get("/")
            await stack.enter_async_context(client.stream("GET", "/api/events/"))
        with pytest.raises(httpx.HTTPError):
            await get(server, "/healthz")
        reader, writer = await asyncio.open_connection(
            address.hostname, address.port, local_addr=("127.0.0.2", 0)
        )
        writer.write(HALF_HEAD + b"\r\n")
        assert (await reader.readline()).split()[1] == b"200"
        writer.close()
        log = server.read_log()
    assert "rejected a connection: its address has as many as CONNECTIONS_MAX allows" in log


async def test_a_server_full_of_requests_answers_health_checks_only(redis_url: str) -> None:
    async with (
        holdline(REDIS_URL=redis_url, CONNECTIONS_MAX="10,2") as server,
        AsyncExitStack() as stack,
    ):
        for _ in range(2):
            client = await stack.enter_async_context(httpx.AsyncClient(base_url=server.url))
            await client.get("/")
            await stack.enter_async_context(client.stream("GET", "/api/events/"))
        for path in ("/healthz", "/readyz"):
            response = await get(server, path)
            assert response.status_code == 200
            assert response.headers["connection"] == "close"
        with pytest.raises(httpx.HTTPError):
            await get(server, "/api/info")
        log = server.read_log()
    assert "rejected a connection: as many as CONNECTIONS_MAX are open" in log
    assert "Traceback" not in log


async def test_half_sent_heads_cause_no_errors_at_a_stop(redis_url: str) -> None:
    async with (
        holdline(REDIS_URL=redis_url, LOG_LEVEL="debug") as server,
        AsyncExitStack() as stack,
    ):
        await open_many(stack, server, 50, b"GET /?message=secret HTTP/1.1\r\nHost: localhost\r\n")
        assert (await get(server, "/healthz")).status_code == 200
        assert await server.stop() == 0
        log = server.read_log()
    assert "Traceback" not in log
    assert "Error" not in log
    assert "secret" not in log
