"""HTTP/1.1 to the upstream over real sockets: complete, interrupted and missing responses."""

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import trustme
import uvloop

from chat.upstream.http import connection
from chat.upstream.http.transport import BODY, Body, Transport
from tests.processes import PATIENCE_S
from tests.raw_server import END, Serve, Server, chunked, close_after, raw_server, respond

Schedule = Callable[[Callable[[], None]], None]


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    async with raw_server() as started:
        yield started


@pytest_asyncio.fixture
async def client(server: Server) -> AsyncIterator[httpx2.AsyncClient]:
    url = f"http://127.0.0.1:{server.port}"
    async with httpx2.AsyncClient(transport=Transport(), base_url=url, timeout=20) as found:
        yield found


async def pull(
    client: httpx2.AsyncClient,
    take: Callable[[bytes], bool],
    schedule: Schedule = lambda read: read(),
    path: str = "/path?query=1",
) -> None:
    """Pull a body: pass its parts to `take` until it returns True; `schedule` plans each read."""
    async with client.stream("POST", path, content=b"question") as response:
        body: Body = response.extensions[BODY]

        def read() -> None:
            if part := body.take():
                if take(part):
                    body.end()
                elif not body._connection.is_over:
                    schedule(read)

        body.notify_when_ready(read)
        try:
            await body.wait()
        finally:
            if part := body.take():
                take(part)


async def test_a_request_is_sent_unchanged(client: httpx2.AsyncClient, server: Server) -> None:
    server.serve = respond(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Two: a\r\nX-Two: b\r\n\r\nok"
    )
    response = await client.post("/path?query=%20", content=b"question", headers={"X-Own": "value"})
    assert (response.status_code, response.content) == (200, b"ok")
    assert response.headers.get_list("x-two") == ["a", "b"]
    head = server.heads[0].lower()
    assert head.startswith(b"post /path?query=%20 http/1.1\r\n")
    assert b"\r\nx-own: value\r\n" in head
    assert b"\r\nhost: 127.0.0.1" in head
    assert server.bodies == [b"question"]


async def test_a_response_split_at_any_byte_is_decoded(
    client: httpx2.AsyncClient, server: Server
) -> None:
    response_bytes = chunked(b"one ", "zwölf ".encode(), b"three") + END
    for at in range(1, len(response_bytes)):
        server.serve = respond(response_bytes[:at], response_bytes[at:])
        assert (await client.post("/")).content == "one zwölf three".encode()
    assert server.connections == 1, "the connection is used again"


async def test_an_interim_response_is_skipped(client: httpx2.AsyncClient, server: Server) -> None:
    server.serve = respond(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        + chunked(b"real")
        + END
    )
    response = await client.post("/")
    assert (response.status_code, response.content) == (200, b"real")
    assert "link" not in response.headers


async def test_a_body_without_a_length_ends_with_its_connection(
    client: httpx2.AsyncClient, server: Server
) -> None:
    server.serve = close_after(respond(b"HTTP/1.0 200 OK\r\n\r\nall ", b"of it"))
    assert (await client.post("/")).content == b"all of it"
    assert (await client.post("/")).content == b"all of it"
    assert server.connections == 2


@pytest.mark.parametrize("status", [204, 304])
async def test_a_response_without_a_body_leaves_its_connection_reusable(
    client: httpx2.AsyncClient, server: Server, status: int
) -> None:
    server.serve = respond(b"HTTP/1.1 %d X\r\n\r\n" % status)
    assert (await client.post("/")).status_code == status
    assert (await client.post("/")).status_code == status
    assert server.connections == 1


async def test_a_connection_is_not_reused_after_connection_close(
    client: httpx2.AsyncClient, server: Server
) -> None:
    server.serve = respond(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx")
    await client.post("/")
    await client.post("/")
    assert server.connections == 2


async def test_a_pulled_body_is_taken_as_it_arrives_until_its_content_ends(
    client: httpx2.AsyncClient, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_LINGER_S", 2.0)
    received, has_ended, parts = asyncio.Event(), asyncio.Event(), list[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(b"first"))
        await received.wait()
        writer.write(chunked(b"second", b"[DONE]").partition(b"\r\n\r\n")[2])
        await writer.drain()
        await has_ended.wait()  # the end of the body has its own packet
        writer.write(END)

    def take(part: bytes) -> bool:
        parts.append(part)
        received.set()
        return part.endswith(b"[DONE]")

    server.serve = serve
    await pull(client, take)
    assert b"".join(parts) == b"firstsecond[DONE]"
    has_ended.set()
    async with asyncio.timeout(PATIENCE_S):  # the connection lingers until its body has ended
        while not client._transport._pool._idle:  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2.1)  # beyond the time for which a connection lingers
        writer.write(chunked(b"again") + END)

    server.serve = late
    assert (await client.post("/")).content == b"again"
    assert server.connections == 1


async def test_a_body_that_is_not_taken_blocks_the_server(
    client: httpx2.AsyncClient, server: Server
) -> None:
    taken, reads = 0, asyncio.Queue[Callable[[], None]]()
    total = 1 << 25
    written = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while written < total:
            writer.write(bytes(1 << 16))
            written += 1 << 16
            await writer.drain()

    def take(part: bytes) -> bool:
        nonlocal taken
        taken += len(part)
        return False

    server.serve = serve
    pulling = asyncio.create_task(pull(client, take, reads.put_nowait))
    read = await reads.get()
    before = -1
    while written != before:  # until the server stops writing
        before = written
        await asyncio.sleep(0.05)
    assert written < total
    assert taken <= 1 << 20

    async def may_continue() -> None:
        while True:
            (await reads.get())()

    reads.put_nowait(read)
    continuing = asyncio.create_task(may_continue())
    await pulling
    assert taken == total
    continuing.cancel()


class UntakenBody:
    """A body of which "head" and "first" were taken; `reads` has the call that reads the rest."""

    def __init__(self, client: httpx2.AsyncClient, server: Server, rest: Serve) -> None:
        self.parts: list[bytes] = []
        self.reads = asyncio.Queue[Callable[[], None]]()
        self._begun, self._rest = asyncio.Event(), rest
        server.serve = self._serve
        self.pulling = asyncio.create_task(pull(client, self._take, self._schedule))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(b"head"))
        await self._begun.wait()  # a body received with the headers is read immediately
        writer.write(b"5\r\nfirst\r\n")
        await self._rest(reader, writer)

    def _take(self, part: bytes) -> bool:
        self.parts.append(part)
        self._begun.set()
        return False

    def _schedule(self, read: Callable[[], None]) -> None:
        if b"".join(self.parts) == b"headfirst":
            self.reads.put_nowait(read)
        else:
            asyncio.get_running_loop().call_soon(read)


@pytest.mark.parametrize("ending", ["ends", "closes", "breaks"])
async def test_the_end_of_a_connection_is_reported_although_its_body_is_not_taken(
    client: httpx2.AsyncClient, server: Server, ending: str
) -> None:
    is_waiting, gone = asyncio.Event(), asyncio.Event()

    async def rest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await is_waiting.wait()
        writer.write(b"6\r\nsecond\r\n" + (END if ending == "ends" else b""))
        await writer.drain()
        if ending == "breaks":
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if ending != "ends":
            writer.transport.abort()
        gone.set()

    body = UntakenBody(client, server, rest)
    read = await body.reads.get()
    is_waiting.set()
    await gone.wait()
    await asyncio.sleep(0.05)  # until the loop has reported the end
    assert body.parts == [b"head", b"first"]
    read()
    while not body.pulling.done():
        next_read = asyncio.create_task(body.reads.get())
        await asyncio.wait([body.pulling, next_read], return_when=asyncio.FIRST_COMPLETED)
        if next_read.done():
            next_read.result()()
        next_read.cancel()
    assert b"".join(body.parts) == b"headfirstsecond"
    assert isinstance(
        body.pulling.exception(), type(None) if ending == "ends" else httpx2.TransportError
    )


async def test_a_closed_connection_is_not_read(client: httpx2.AsyncClient, server: Server) -> None:
    """The number of its socket may belong to another socket by then."""
    body = UntakenBody(client, server, respond())
    read = await body.reads.get()
    body.pulling.cancel()
    await asyncio.wait([body.pulling])
    async with asyncio.timeout(PATIENCE_S):
        await server.closed.wait()
    ours, theirs = socket.socketpair()  # the lowest free number: that of the closed connection
    ours.setblocking(False)
    theirs.send(b"not yours")
    read()
    assert ours.recv(9) == b"not yours"
    ours.close()
    theirs.close()


async def test_a_body_that_is_not_iterated_blocks_the_server(
    client: httpx2.AsyncClient, server: Server
) -> None:
    total = 1 << 25
    server.serve = respond(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total + bytes(total))
    async with client.stream("POST", "/") as response:
        connection = response.extensions[BODY]._connection
        await asyncio.sleep(0.1)
        assert len(connection.buffer) < total
        assert sum([len(part) async for part in response.aiter_bytes()]) == total


async def test_a_cancelled_stream_closes_its_connection_immediately(
    client: httpx2.AsyncClient, server: Server
) -> None:
    server.serve = respond(chunked(b"first"))
    received = asyncio.Event()

    def take(part: bytes) -> bool:
        received.set()
        return False

    pulling = asyncio.create_task(pull(client, take))
    await received.wait()
    pulling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pulling
    async with asyncio.timeout(PATIENCE_S):
        await server.closed.wait()


@pytest.mark.parametrize(
    ("serve", "kind"),
    [
        (close_after(respond()), httpx2.RemoteProtocolError),
        (close_after(respond(b"HTTP/1.1 200 OK\r\nContent-Le")), httpx2.RemoteProtocolError),
        (close_after(respond(chunked(b"half"))), httpx2.RemoteProtocolError),
        (
            close_after(respond(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")),
            httpx2.RemoteProtocolError,
        ),
        (respond(b"220 mail.example ESMTP\r\n"), httpx2.RemoteProtocolError),
        (
            respond(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"),
            httpx2.RemoteProtocolError,
        ),
        (
            respond(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
            ),
            httpx2.TransportError,
        ),
    ],
)
async def test_an_invalid_response_raises_a_transport_error(
    client: httpx2.AsyncClient, server: Server, serve: Serve, kind: type[Exception]
) -> None:
    server.serve = serve
    with pytest.raises(kind):
        await pull(client, lambda part: False)


async def test_a_server_that_sends_nothing_times_out_and_a_slow_one_does_not(
    server: Server,
) -> None:
    async with httpx2.AsyncClient(
        transport=Transport(),
        base_url=f"http://127.0.0.1:{server.port}",
        timeout=httpx2.Timeout(30, read=2),
    ) as client:
        server.serve = respond()
        with pytest.raises(httpx2.ReadTimeout):
            await client.post("/")
        server.serve = respond(chunked(b"first"))
        with pytest.raises(httpx2.ReadTimeout):
            await pull(client, lambda part: False)

        async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(chunked())
            for _ in range(8):
                await asyncio.sleep(0.4)
                writer.write(b"1\r\nx\r\n")
            writer.write(END)

        server.serve = slowly
        assert (await client.post("/")).content == b"x" * 8


@pytest.mark.parametrize(
    "trailing", [b"HTTP/1.1 408 x\r\nContent-Length: 6\r\n\r\nsecond", b"rubbish\r\n"]
)
async def test_bytes_after_a_response_are_discarded_with_the_connection(
    client: httpx2.AsyncClient, server: Server, trailing: bytes
) -> None:
    for again in (1, 2):
        server.serve = respond(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst" + trailing)
        response = await client.post("/")
        assert (response.status_code, response.content) == (200, b"first")
        assert server.connections == again, "the connection is not used again"


async def test_a_body_that_is_taken_late_does_not_time_out(server: Server) -> None:
    async with httpx2.AsyncClient(
        transport=Transport(),
        base_url=f"http://127.0.0.1:{server.port}",
        timeout=httpx2.Timeout(30, read=1),
    ) as client:
        parts, received = list[bytes](), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(chunked(b"first"))
            await received.wait()
            writer.write(b"6\r\nsecond\r\n" + END)

        def take(part: bytes) -> bool:
            parts.append(part)
            received.set()
            return False

        def read_later(read: Callable[[], None]) -> None:
            # Twice the timeout and more.
            asyncio.get_running_loop().call_later(2.5, read)

        server.serve = serve
        await pull(client, take, read_later)
        assert parts == [b"first", b"second"]


async def test_a_refused_connection_raises_a_connect_error(server: Server) -> None:
    async with httpx2.AsyncClient(transport=Transport(), timeout=20) as client:
        with pytest.raises(httpx2.ConnectError):
            await client.post("http://127.0.0.1:1/")
        with pytest.raises(httpx2.ConnectError):
            await client.post("http://no-such-host.invalid/")


async def test_tls_accepts_a_trusted_certificate_and_rejects_an_untrusted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    started = Server()
    started.serve = respond(chunked(b"in ", b"secret") + END)
    listening = await asyncio.start_server(started.handle, "127.0.0.1", 0, ssl=context)
    url = f"https://127.0.0.1:{listening.sockets[0].getsockname()[1]}/"
    async with httpx2.AsyncClient(transport=Transport(), timeout=20) as client:
        with pytest.raises(httpx2.ConnectError):
            await client.post(url)
    pem = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(pem)
    trusting = ssl.create_default_context(cafile=pem)
    monkeypatch.setattr(httpx2, "create_ssl_context", lambda: trusting)
    async with httpx2.AsyncClient(transport=Transport(), timeout=20) as client:
        parts: list[bytes] = []

        def take(part: bytes) -> bool:
            parts.append(part)
            return False

        await pull(client, take, path=url)
        assert b"".join(parts) == b"in secret"
    listening.close()


@pytest.fixture
def tls(monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """Return the context of a TLS server that the transport trusts."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    monkeypatch.setattr(httpx2, "create_ssl_context", lambda: trusting)
    return context


async def pull_slowly(
    listening: socket.socket, take: Callable[[bytes], bool], delay_s: float
) -> None:
    """Pull a TLS server's response, with a delay between two reads."""

    def read_later(read: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(delay_s, read)

    url = f"https://127.0.0.1:{listening.getsockname()[1]}"
    async with httpx2.AsyncClient(transport=Transport(), base_url=url, timeout=20) as client:
        await pull(client, take, read_later)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("reset", [False, True])
def test_a_tls_body_is_complete_if_the_connection_ends_before_it_is_taken(
    tls: ssl.SSLContext, run: Callable[[Coroutine[Any, Any, None]], None], reset: bool
) -> None:
    """A loop drops decrypted bytes if the connection ends while reading is paused."""
    listening = socket.create_server(("127.0.0.1", 0))
    taken = threading.Semaphore(0)

    def serve() -> None:
        tcp, _ = listening.accept()
        with tls.wrap_socket(tcp, server_side=True) as sock:
            sock.recv(65_536)
            sock.sendall(chunked(b"first"))
            taken.acquire()
            sock.sendall(b"6\r\nsecond\r\n")  # after which nothing is read for a while
            taken.acquire()
            sock.sendall(b"5\r\nthird\r\n" + END)
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def request() -> None:
        parts: list[bytes] = []

        def take(part: bytes) -> bool:
            parts.append(part)
            taken.release()
            return False

        await pull_slowly(listening, take, 0.3)
        assert b"".join(parts) == b"firstsecondthird"

    serving = threading.Thread(target=serve)
    serving.start()
    run(request())
    serving.join()
    listening.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_tls_body_larger_than_the_buffer_is_complete(
    tls: ssl.SSLContext, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    part, times = bytes(range(256)) * 64, 128  # 2 MiB

    def serve() -> None:
        tcp, _ = listening.accept()
        with tls.wrap_socket(tcp, server_side=True) as sock:
            sock.recv(65_536)
            sock.sendall(chunked())
            for _ in range(times):
                sock.sendall(b"%x\r\n%b\r\n" % (len(part), part))
            sock.sendall(END)
            sock.recv(1)

    async def request() -> None:
        received = bytearray()

        def take(part: bytes) -> bool:
            received.extend(part)
            return False

        await pull_slowly(listening, take, 0.05)
        assert received == part * times

    serving = threading.Thread(target=serve)
    serving.start()
    run(request())
    serving.join()
    listening.close()
