"""HTTP/1.1 to the upstream over real sockets: how a response can come, break off or stay away."""

import asyncio
import contextlib
import gzip
import re
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
import trustme
import uvloop

from chat.upstream import connection
from chat.upstream.transport import BODY, Body, Transport

Schedule = Callable[[Callable[[], None]], None]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Server:
    """Answers each request with what the test says; counts connections and keeps the requests' heads."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.closed = asyncio.Event()
        self.serve: Serve = self._nothing

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                named = re.search(rb"content-length: (\d+)", head.lower())
                self.heads.append(head)
                self.bodies.append(await reader.readexactly(int(named[1]) if named else 0))
                await self.serve(reader, writer)
                await writer.drain()
        self.closed.set()
        writer.close()

    async def _nothing(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    served = Server()
    listening = await asyncio.start_server(served.handle, "127.0.0.1", 0, limit=1 << 24)
    served.port = listening.sockets[0].getsockname()[1]
    yield served
    listening.close()


@pytest_asyncio.fixture
async def client(server: Server) -> AsyncIterator[httpx2.AsyncClient]:
    url = f"http://127.0.0.1:{server.port}"
    async with httpx2.AsyncClient(transport=Transport(), base_url=url, timeout=20) as found:
        yield found


def says(*parts: bytes) -> Serve:
    """Sends these bytes, each in a packet of its own as far as the socket lets it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)

    return serve


def then_closes(serve: Serve) -> Serve:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(reader, writer)
        writer.close()

    return closing


def chunked(*parts: bytes) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body


END = b"0\r\n\r\n"


async def pull(
    client: httpx2.AsyncClient,
    take: Callable[[bytes], bool],
    schedule: Schedule = lambda read: read(),
    path: str = "/path?query=1",
) -> None:
    """Pull a body: give `take` its parts until it returns True; `schedule` calls for the next read."""
    async with client.stream("POST", path, content=b"question") as response:
        body: Body = response.extensions[BODY]

        def read() -> None:
            if part := body.take():
                if take(part):
                    body.end()
                elif not body._connection.is_over:
                    schedule(read)

        body.pull(read)
        try:
            await body.wait()
        finally:
            if part := body.take():
                take(part)


async def test_a_request_goes_out_as_it_is(client: httpx2.AsyncClient, server: Server) -> None:
    server.serve = says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Two: a\r\nX-Two: b\r\n\r\nok")
    response = await client.post("/path?query=%20", content=b"question", headers={"X-Own": "value"})
    assert (response.status_code, response.content) == (200, b"ok")
    assert response.headers.get_list("x-two") == ["a", "b"]
    head = server.heads[0].lower()
    assert head.startswith(b"post /path?query=%20 http/1.1\r\n")
    assert b"\r\nx-own: value\r\n" in head
    assert b"\r\nhost: 127.0.0.1" in head
    assert server.bodies == [b"question"]


async def test_a_response_that_is_cut_anywhere_is_the_same(
    client: httpx2.AsyncClient, server: Server
) -> None:
    whole = chunked(b"one ", "zwölf ".encode(), b"three") + END
    for cut in range(1, len(whole)):
        server.serve = says(whole[:cut], whole[cut:])
        assert (await client.post("/")).content == "one zwölf three".encode()
    assert server.connections == 1, "a connection is used again"


async def test_an_interim_response_is_passed_over(
    client: httpx2.AsyncClient, server: Server
) -> None:
    server.serve = says(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        + chunked(b"real")
        + END
    )
    response = await client.post("/")
    assert (response.status_code, response.content) == (200, b"real")
    assert "link" not in response.headers


async def test_a_body_may_end_with_its_connection(
    client: httpx2.AsyncClient, server: Server
) -> None:
    server.serve = then_closes(says(b"HTTP/1.0 200 OK\r\n\r\nall ", b"of it"))
    assert (await client.post("/")).content == b"all of it"
    assert (await client.post("/")).content == b"all of it"
    assert server.connections == 2


@pytest.mark.parametrize("status", [204, 304])
async def test_a_response_without_a_body_is_one(
    client: httpx2.AsyncClient, server: Server, status: int
) -> None:
    server.serve = says(b"HTTP/1.1 %d X\r\n\r\n" % status)
    assert (await client.post("/")).status_code == status
    assert (await client.post("/")).status_code == status
    assert server.connections == 1


async def test_a_server_that_wants_to_close_is_not_asked_again_on_that_connection(
    client: httpx2.AsyncClient, server: Server
) -> None:
    server.serve = says(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx")
    await client.post("/")
    await client.post("/")
    assert server.connections == 2


async def test_what_is_poured_comes_as_it_arrives_and_ends_when_enough_has_come(
    client: httpx2.AsyncClient, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_LINGER_S", 0.2)
    going, parts = asyncio.Event(), list[bytes]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(b"first"))
        await going.wait()
        writer.write(chunked(b"second", b"[DONE]").partition(b"\r\n\r\n")[2])
        await writer.drain()
        await asyncio.sleep(0.05)  # the end of the body comes in a packet of its own
        writer.write(END)

    def take(part: bytes) -> bool:
        parts.append(part)
        going.set()
        return part.endswith(b"[DONE]")

    server.serve = serve
    await pull(client, take)
    assert b"".join(parts) == b"firstsecond[DONE]"
    server.closed.clear()
    for _ in range(200):  # the connection lingers until its body has ended
        if client._transport._idle:  # type: ignore[attr-defined]
            break
        await asyncio.sleep(0.01)

    async def late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.3)  # beyond the time for which a connection lingers
        writer.write(chunked(b"again") + END)

    server.serve = late
    assert (await client.post("/")).content == b"again"
    assert server.connections == 1


async def test_nothing_is_read_until_there_is_reason_to(
    client: httpx2.AsyncClient, server: Server
) -> None:
    taken, held = 0, asyncio.Queue[Callable[[], None]]()
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
    pouring = asyncio.create_task(pull(client, take, held.put_nowait))
    read_on = await held.get()
    before = -1
    while written != before:  # the server comes to a halt
        before = written
        await asyncio.sleep(0.05)
    assert written < total
    assert taken <= 1 << 20

    async def may_continue() -> None:
        while True:
            (await held.get())()

    held.put_nowait(read_on)
    going_on = asyncio.create_task(may_continue())
    await pouring
    assert taken == total
    going_on.cancel()


class Halted:
    """A body of which "head" and "first" were poured; the rest waits for what `held` gives to be called."""

    def __init__(self, client: httpx2.AsyncClient, server: Server, rest: Serve) -> None:
        self.parts: list[bytes] = []
        self.held = asyncio.Queue[Callable[[], None]]()
        self._begun, self._rest = asyncio.Event(), rest
        server.serve = self._serve
        self.pouring = asyncio.create_task(pull(client, self._take, self._schedule))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(b"head"))
        await self._begun.wait()  # what comes with the head waits for no pace
        writer.write(b"5\r\nfirst\r\n")
        await self._rest(reader, writer)

    def _take(self, part: bytes) -> bool:
        self.parts.append(part)
        self._begun.set()
        return False

    def _schedule(self, read: Callable[[], None]) -> None:
        if b"".join(self.parts) == b"headfirst":
            self.held.put_nowait(read)
        else:
            asyncio.get_running_loop().call_soon(read)


@pytest.mark.parametrize("how", ["ends", "closes", "breaks"])
async def test_how_a_line_ends_while_nothing_is_read_is_heard(
    client: httpx2.AsyncClient, server: Server, how: str
) -> None:
    halted, gone = asyncio.Event(), asyncio.Event()

    async def rest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await halted.wait()
        writer.write(b"6\r\nsecond\r\n" + (END if how == "ends" else b""))
        await writer.drain()
        if how == "breaks":
            line = writer.get_extra_info("socket")
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how != "ends":
            writer.transport.abort()
        gone.set()

    body = Halted(client, server, rest)
    read_on = await body.held.get()
    halted.set()
    await gone.wait()
    await asyncio.sleep(0.05)  # whatever the loop has to tell of it, it has told
    assert body.parts == [b"head", b"first"]
    read_on()
    while not body.pouring.done():
        reads_on = asyncio.create_task(body.held.get())
        await asyncio.wait([body.pouring, reads_on], return_when=asyncio.FIRST_COMPLETED)
        if reads_on.done():
            reads_on.result()()
        reads_on.cancel()
    assert b"".join(body.parts) == b"headfirstsecond"
    assert isinstance(
        body.pouring.exception(), type(None) if how == "ends" else httpx2.TransportError
    )


async def test_a_line_that_was_closed_is_not_read(
    client: httpx2.AsyncClient, server: Server
) -> None:
    """For the number of its socket may be another's by then."""
    body = Halted(client, server, says())
    read_on = await body.held.get()
    body.pouring.cancel()
    await asyncio.wait([body.pouring])
    async with asyncio.timeout(30):
        await server.closed.wait()
    ours, theirs = socket.socketpair()  # the lowest number that is free: the line's
    ours.setblocking(False)
    theirs.send(b"not yours")
    read_on()
    assert ours.recv(9) == b"not yours"
    ours.close()
    theirs.close()


async def test_an_iterator_that_nobody_reads_holds_up_the_server(
    client: httpx2.AsyncClient, server: Server
) -> None:
    total = 1 << 25
    server.serve = says(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total + bytes(total))
    async with client.stream("POST", "/") as response:
        connection = response.extensions[BODY]._connection
        await asyncio.sleep(0.1)
        assert len(connection.buffer) < total
        assert sum([len(part) async for part in response.aiter_bytes()]) == total


async def test_leaving_a_stream_closes_its_connection_at_once(
    client: httpx2.AsyncClient, server: Server
) -> None:
    server.serve = says(chunked(b"first"))
    came = asyncio.Event()

    def take(part: bytes) -> bool:
        came.set()
        return False

    pouring = asyncio.create_task(pull(client, take))
    await came.wait()
    pouring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pouring
    async with asyncio.timeout(30):
        await server.closed.wait()


@pytest.mark.parametrize(
    ("serve", "kind"),
    [
        (then_closes(says()), httpx2.RemoteProtocolError),
        (then_closes(says(b"HTTP/1.1 200 OK\r\nContent-Le")), httpx2.RemoteProtocolError),
        (then_closes(says(chunked(b"half"))), httpx2.RemoteProtocolError),
        (
            then_closes(says(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")),
            httpx2.RemoteProtocolError,
        ),
        (says(b"220 mail.example ESMTP\r\n"), httpx2.RemoteProtocolError),
        (
            says(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"),
            httpx2.RemoteProtocolError,
        ),
        (
            says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
            httpx2.TransportError,
        ),
    ],
)
async def test_a_response_that_is_none_is_said_to_be_so(
    client: httpx2.AsyncClient, server: Server, serve: Serve, kind: type[Exception]
) -> None:
    server.serve = serve
    with pytest.raises(kind):
        await pull(client, lambda part: False)


async def test_silence_ends_in_a_timeout_but_slowness_does_not(server: Server) -> None:
    async with httpx2.AsyncClient(
        transport=Transport(),
        base_url=f"http://127.0.0.1:{server.port}",
        timeout=httpx2.Timeout(30, read=2),
    ) as client:
        server.serve = says()
        with pytest.raises(httpx2.ReadTimeout):
            await client.post("/")
        server.serve = says(chunked(b"first"))
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
    "behind", [b"HTTP/1.1 408 x\r\nContent-Length: 6\r\n\r\nsecond", b"rubbish\r\n"]
)
async def test_what_comes_behind_a_response_is_no_part_of_it(
    client: httpx2.AsyncClient, server: Server, behind: bytes
) -> None:
    for again in (1, 2):
        server.serve = says(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst" + behind)
        response = await client.post("/")
        assert (response.status_code, response.content) == (200, b"first")
        assert server.connections == again, "such a connection is used no more"


async def test_a_silence_of_our_own_making_is_no_timeout(server: Server) -> None:
    async with httpx2.AsyncClient(
        transport=Transport(),
        base_url=f"http://127.0.0.1:{server.port}",
        timeout=httpx2.Timeout(30, read=1),
    ) as client:
        parts, going = list[bytes](), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(chunked(b"first"))
            await going.wait()
            writer.write(b"6\r\nsecond\r\n" + END)

        def take(part: bytes) -> bool:
            parts.append(part)
            going.set()
            return False

        def pace(read_on: Callable[[], None]) -> None:
            asyncio.get_running_loop().call_later(
                2.5, read_on
            )  # longer than the timeout, twice over

        server.serve = serve
        await pull(client, take, pace)
        assert parts == [b"first", b"second"]


async def test_nobody_there_is_an_error_of_connecting(server: Server) -> None:
    async with httpx2.AsyncClient(transport=Transport(), timeout=20) as client:
        with pytest.raises(httpx2.ConnectError):
            await client.post("http://127.0.0.1:1/")
        with pytest.raises(httpx2.ConnectError):
            await client.post("http://no-such-host.invalid/")


async def test_a_compressed_body_is_decoded_when_it_is_iterated(
    client: httpx2.AsyncClient, server: Server
) -> None:
    packed = gzip.compress(b"as it was")
    server.serve = says(
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
        + packed
    )
    assert (await client.post("/")).content == b"as it was"


async def test_tls_is_spoken_and_a_certificate_that_nobody_vouches_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    served = Server()
    served.serve = says(chunked(b"in ", b"secret") + END)
    listening = await asyncio.start_server(served.handle, "127.0.0.1", 0, ssl=context)
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
    """What a server of TLS needs that the transport trusts."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    monkeypatch.setattr(httpx2, "create_ssl_context", lambda: trusting)
    return context


async def poured_slowly(
    listening: socket.socket, take: Callable[[bytes], bool], delay_s: float
) -> None:
    """Pull what a server of TLS says, reading on so long after each read."""

    def pace(read_on: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(delay_s, read_on)

    url = f"https://127.0.0.1:{listening.getsockname()[1]}"
    async with httpx2.AsyncClient(transport=Transport(), base_url=url, timeout=20) as client:
        await pull(client, take, pace)


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
@pytest.mark.parametrize("reset", [False, True])
def test_over_tls_nothing_is_lost_when_the_end_comes_while_nothing_is_read(
    tls: ssl.SSLContext, run: Callable[[Coroutine[Any, Any, None]], None], reset: bool
) -> None:
    """A loop that decrypts drops what it has decrypted when the line ends while its reading is paused."""
    listening = socket.create_server(("127.0.0.1", 0))
    poured_into = threading.Semaphore(0)

    def serve() -> None:
        line, _ = listening.accept()
        with tls.wrap_socket(line, server_side=True) as sock:
            sock.recv(65_536)
            sock.sendall(chunked(b"first"))
            poured_into.acquire()
            sock.sendall(b"6\r\nsecond\r\n")  # after which nothing is read for a while
            poured_into.acquire()
            sock.sendall(b"5\r\nthird\r\n" + END)
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def ask() -> None:
        parts: list[bytes] = []

        def take(part: bytes) -> bool:
            parts.append(part)
            poured_into.release()
            return False

        await poured_slowly(listening, take, 0.3)
        assert b"".join(parts) == b"firstsecondthird"

    serving = threading.Thread(target=serve)
    serving.start()
    run(ask())
    serving.join()
    listening.close()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_over_tls_more_than_is_read_at_once_comes_whole(
    tls: ssl.SSLContext, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    part, times = bytes(range(256)) * 64, 128  # 2 MiB

    def serve() -> None:
        line, _ = listening.accept()
        with tls.wrap_socket(line, server_side=True) as sock:
            sock.recv(65_536)
            sock.sendall(chunked())
            for _ in range(times):
                sock.sendall(b"%x\r\n%b\r\n" % (len(part), part))
            sock.sendall(END)
            sock.recv(1)

    async def ask() -> None:
        came = bytearray()

        def take(part: bytes) -> bool:
            came.extend(part)
            return False

        await poured_slowly(listening, take, 0.05)
        assert came == part * times

    serving = threading.Thread(target=serve)
    serving.start()
    run(ask())
    serving.join()
    listening.close()
