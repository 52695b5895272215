"""Connections to an upstream: idle ones expire, stale ones are replaced, new ones have a limit."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import httpx2
import pytest
import uvloop

from chat.upstream.http import pool
from chat.upstream.http.parser import InvalidResponseError
from chat.upstream.http.transport import Transport
from tests.raw_server import END, Server, chunked, close_after, raw_server, respond

Run = Callable[[Coroutine[Any, Any, None]], None]

BOTH_LOOPS = pytest.mark.parametrize("run", [asyncio.run, uvloop.run])

KIND = socket.AF_INET, socket.SOCK_STREAM, 0

ANSWER = respond(chunked(b"answer") + END)


@contextlib.asynccontextmanager
async def connected(
    connections: int = 1, read_timeout_s: float = 20
) -> AsyncIterator[tuple[Server, httpx2.AsyncClient]]:
    """Yield a server and a client with this number of idle connections to it."""
    async with raw_server() as server:
        url = f"http://127.0.0.1:{server.port}"
        timeout = httpx2.Timeout(20, read=read_timeout_s)
        async with httpx2.AsyncClient(
            transport=Transport(), base_url=url, timeout=timeout
        ) as client:

            async def answer_together(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter
            ) -> None:
                while server.connections < connections:
                    await asyncio.sleep(0.01)
                await ANSWER(reader, writer)

            server.serve = answer_together
            await asyncio.gather(*(client.post("/") for _ in range(connections)))
            assert server.connections == connections
            server.serve = ANSWER
            yield server, client


def abort(writer: asyncio.StreamWriter) -> None:
    """Reset a connection."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def wait_for_ends(server: Server, connections: int) -> None:
    """Return when the client has closed so many connections."""
    async with asyncio.timeout(20):
        await asyncio.gather(*list(server.handling)[:connections])


@BOTH_LOOPS
@pytest.mark.parametrize("end", [asyncio.StreamWriter.close, abort])
def test_a_request_on_a_stale_connection_is_repeated_once_on_a_new_one(
    run: Run, end: Callable[[asyncio.StreamWriter], None]
) -> None:
    async def request() -> None:
        async with connected(connections=3) as (server, client):

            async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                if server.connections == 3:
                    end(writer)
                else:
                    await ANSWER(reader, writer)

            server.serve = serve
            assert (await client.post("/", content=b"question")).content == b"answer"
            assert server.connections == 4
            assert len(server.bodies) == 3 + 2, "no other stale connection is tried"
            assert server.bodies[-1] == b"question"

    run(request())


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has it")
@BOTH_LOOPS
def test_a_request_that_is_not_acknowledged_on_a_reused_connection_is_repeated(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A system whose buffers are full acknowledges no more, like a gateway that drops packets."""
    monkeypatch.setattr("chat.upstream.http.transport.ACKNOWLEDGE_S", 1.0)

    async def request() -> None:
        async with connected(connections=0) as (server, client):

            async def stop_reading(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter
            ) -> None:
                await ANSWER(reader, writer)
                writer.transport.pause_reading()  # type: ignore[attr-defined]

            server.serve = stop_reading
            await client.post("/")
            server.serve = ANSWER
            question = bytes(12 << 20)
            assert (await client.post("/", content=question)).content == b"answer"
            assert (server.connections, len(server.bodies)) == (2, 2)

    run(request())


@BOTH_LOOPS
def test_a_slow_server_on_a_reused_connection_receives_one_request(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chat.upstream.http.transport.ACKNOWLEDGE_S", 0.2)

    async def request() -> None:
        async with connected() as (server, client):

            async def answer_late(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter
            ) -> None:
                await asyncio.sleep(1.5)
                await ANSWER(reader, writer)

            server.serve = answer_late
            assert (await client.post("/")).content == b"answer"
            assert (server.connections, len(server.bodies)) == (1, 2)

    run(request())


async def test_a_silent_server_on_a_reused_connection_receives_one_request() -> None:
    async with connected(connections=3, read_timeout_s=0.5) as (server, client):
        server.serve = respond()
        with pytest.raises(httpx2.ReadTimeout):
            await client.post("/")
        assert (server.connections, len(server.bodies)) == (3, 4)
        server.serve = ANSWER
        assert (await client.post("/")).content == b"answer"
        assert server.connections == 4, "the connections that were idle for longer are closed"


async def test_a_new_connection_that_the_server_closes_is_not_repeated() -> None:
    async with connected(connections=0) as (server, client):
        server.serve = close_after(respond())
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.post("/")
        assert len(server.bodies) == 1


async def test_a_reused_connection_that_is_lost_inside_a_response_is_not_repeated() -> None:
    async with connected() as (server, client):
        server.serve = close_after(respond(b"HTTP/1.1 2"))
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.post("/")
        assert len(server.bodies) == 2


async def test_a_malformed_response_on_a_reused_connection_is_not_repeated() -> None:
    async with connected() as (server, client):
        server.serve = respond(b"SMTP ready\r\n\r\n")
        with pytest.raises(InvalidResponseError):
            await client.post("/")
        assert len(server.bodies) == 2


@BOTH_LOOPS
def test_an_idle_connection_is_closed_after_its_limit(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MAX_IDLE_S", 0.3)

    async def request() -> None:
        async with connected(connections=3) as (server, client):
            await wait_for_ends(server, 3)
            assert (await client.post("/")).content == b"answer"
            assert server.connections == 4
            await wait_for_ends(server, 4)  # the timer is set again

    run(request())


@BOTH_LOOPS
def test_every_connection_has_keepalive_and_a_reused_one_an_acknowledgement_timeout(
    run: Run,
) -> None:
    async def request() -> None:
        async with connected() as (server, client):
            received = asyncio.Event()

            async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await received.wait()
                await ANSWER(reader, writer)

            server.serve = wait
            connection = client._transport._pool._idle.popitem()[1][0]  # type: ignore[attr-defined]
            client._transport._pool.keep(connection)  # type: ignore[attr-defined]
            asking = asyncio.create_task(client.post("/"))
            while len(server.bodies) < 2:
                await asyncio.sleep(0.01)
            sock = connection.socket
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
            received.set()
            await asking
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0

    run(request())


@pytest.fixture
def blackhole() -> Iterator[int]:
    """Yield the port of a listener whose backlog is full: a connection is never made."""
    with contextlib.ExitStack() as sockets:
        listening = sockets.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]


@BOTH_LOOPS
def test_a_connection_that_is_not_made_in_time_raises_a_connect_timeout(
    run: Run, blackhole: int
) -> None:
    async def request() -> None:
        timeout = httpx2.Timeout(20, connect=0.5)
        async with httpx2.AsyncClient(transport=Transport(), timeout=timeout) as client:
            with pytest.raises(httpx2.ConnectTimeout) as raised:
                await client.post(f"http://127.0.0.1:{blackhole}/")
            assert raised.value.__cause__ is None

    run(request())


@BOTH_LOOPS
def test_an_unreachable_first_address_delays_a_connection_by_a_quarter_of_a_second(
    run: Run, blackhole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def request() -> None:
        async with raw_server() as server:
            server.serve = ANSWER

            resolve = asyncio.get_running_loop().getaddrinfo

            async def resolve_to_both(host: str, port: int, **options: Any) -> list[Any]:
                if host != "two.invalid":
                    return await resolve(host, port, **options)
                ports = (blackhole, server.port)
                return [(*KIND, "", ("127.0.0.1", port)) for port in ports]

            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve_to_both)
            timeout = httpx2.Timeout(20, connect=5)
            async with httpx2.AsyncClient(transport=Transport(), timeout=timeout) as client:
                assert (await client.post("http://two.invalid/")).content == b"answer"

    run(request())


@pytest.mark.parametrize("host", ["[::1]", "localhost"])
async def test_a_host_is_reached_by_either_address_family(host: str) -> None:
    address = "::1" if host == "[::1]" else "127.0.0.1"
    server = Server()
    server.serve = ANSWER
    try:
        listening = await asyncio.start_server(server.handle, address, 0)
    except OSError:
        pytest.skip("this machine has no IPv6")
    port = listening.sockets[0].getsockname()[1]
    async with httpx2.AsyncClient(transport=Transport(), timeout=20) as client:
        assert (await client.post(f"http://{host}:{port}/")).content == b"answer"
    assert f"\r\nhost: {host}:{port}\r\n".encode() in server.heads[0].lower()
    listening.close()
