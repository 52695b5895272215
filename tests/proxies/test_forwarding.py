"""Proxies forward a request once, with its origin, and end it when the client disconnects."""

import asyncio
import itertools
import re
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.processes import PATIENCE_S
from tests.proxies.configurations import BALANCING, SHIPPED
from tests.proxies.conftest import require
from tests.proxies.curl import PROTOCOLS, request
from tests.proxies.fronts import start_front
from tests.raw_server import END, Serve, chunked, raw_server, respond
from tests.streams import STREAM

LIMITING = {
    "nginx": ("limit_conn holdline_clients 200;", "limit_conn holdline_clients 2;"),
    "haproxy": ("sc_conn_cur(0) gt 200", "sc_conn_cur(0) gt 2"),
}
"""The proxies that limit the requests of a client, and the change that makes the limit two."""

shipped = pytest.mark.parametrize("name", SHIPPED)
protocols = pytest.mark.parametrize("protocol", PROTOCOLS)
ONCE = sorted(
    set(itertools.product(SHIPPED, PROTOCOLS, (False, True)))
    - {("haproxy", "http1.1", True), ("haproxy", "http2", False), ("haproxy", "http2", True)}
    - {("apache", "http1.1", True)}
)
"""Proxy, protocol, and whether the connection is reused. In the omitted cases the proxy sends the
request once, and then no response, so that the client sends the request again."""


@shipped
@protocols
async def test_a_request_keeps_its_host_address_and_scheme_and_reuses_a_connection(
    name: str, protocol: str, certificate: Path
) -> None:
    require(name)
    async with raw_server() as origin, start_front(name, certificate, origin.port) as front:
        origin.serve = respond(chunked(b"ok") + END)
        async with request(front, protocol, "/{one,two}") as response:  # two requests, in order
            assert await response.read_to_end() == 0
        for path, head in zip(("/one", "/two"), origin.heads, strict=True):
            lines = head.decode().lower().split("\r\n")
            assert lines[0] == f"get {path} http/1.1"
            assert f"host: {front.url.removeprefix('https://')}" in lines
            assert "x-forwarded-for: 127.0.0.1" in lines
            assert "x-forwarded-proto: https" in lines
            assert "connection: close" not in lines
        assert origin.connections == 1


@shipped
@protocols
async def test_a_client_cannot_forge_its_address_scheme_or_host(
    name: str, protocol: str, certificate: Path
) -> None:
    require(name)
    forged = {
        "X-Forwarded-For": "192.0.2.66",
        "X-Forwarded-Proto": "gopher",
        "X-Forwarded-Host": "evil.example",
    }
    async with raw_server() as origin, start_front(name, certificate, origin.port) as front:
        origin.serve = respond(chunked(b"ok") + END)
        async with request(front, protocol, "/", forged) as response:
            assert await response.read_to_end() == 0
        lines = [line.partition(": ") for line in origin.heads[0].decode().lower().split("\r\n")]
        sent = {
            field: [
                one.strip() for key, _, value in lines if key == field for one in value.split(",")
            ]
            for field in map(str.lower, forged)
        }
        assert sent["x-forwarded-for"][-1] == "127.0.0.1"
        assert sent["x-forwarded-proto"] == ["https"]
        assert sent["x-forwarded-host"][-1] == front.url.removeprefix("https://")


@shipped
@protocols
async def test_a_url_of_15500_bytes_is_forwarded(
    name: str, protocol: str, certificate: Path
) -> None:
    require(name)
    async with raw_server() as origin, start_front(name, certificate, origin.port) as front:
        origin.serve = respond(chunked(b"ok") + END)
        path = "/?message=".ljust(15_500, "x")
        async with request(front, protocol, path) as response:
            assert await response.read_to_end() == 0
        assert response.body == b"ok"
        assert path.encode() in origin.heads[0]


@shipped
@protocols
async def test_a_body_of_20_mib_is_forwarded(name: str, protocol: str, certificate: Path) -> None:
    require(name)
    async with raw_server() as origin, start_front(name, certificate, origin.port) as front:
        origin.serve = respond(chunked(b"ok") + END)
        body = "x" * ((20 << 20) - 2)
        async with request(front, protocol, "/v1/chat/completions", body=body) as response:
            assert await response.read_to_end() == 0
        assert response.body == b"ok"
        assert [len(received) for received in origin.bodies] == [20 << 20]


@shipped
async def test_plain_http_is_redirected_to_https(name: str, certificate: Path) -> None:
    require(name)
    async with raw_server() as origin, start_front(name, certificate, origin.port) as front:
        async with request(front, "http1.1", "/path?a=b", url=front.plain_url) as response:
            assert await response.read_to_end() == 0
        assert response.status == 308
        # The ports are those of the test.
        location = re.sub(r"(localhost):\d+", r"\1", response.headers["location"])
        assert location == "https://localhost/path?a=b"
        assert origin.heads == []


@pytest.mark.parametrize(("name", "protocol", "is_reused"), ONCE)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", STREAM),
        ("GET", f"/chat{STREAM}"),
        ("POST", STREAM),
        ("POST", "/v1/chat/completions"),
    ],
)
async def test_a_question_that_was_sent_is_never_sent_again(
    name: str, protocol: str, method: str, path: str, is_reused: bool, certificate: Path
) -> None:
    """Holdline dies before it responds. Another server could receive the request."""
    require(name)
    body = {"message": "question"} if method == "POST" else None
    async with raw_server() as origin, AsyncExitStack() as stack:
        servers = [origin.port] * (2 if name in BALANCING else 1)
        front = await stack.enter_async_context(start_front(name, certificate, *servers))
        close = origin.serve

        async def answer_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(chunked(b"ok") + END)
            origin.serve = close

        if is_reused:
            origin.serve = answer_one
            path += "?[1-2]"  # two requests, in order
        async with request(front, protocol, path, body=body) as response:
            await response.read_to_end()
        assert is_reused == (response.status == 200)
        assert is_reused == (re.search(rb"HTTP/[12.]+ 50[02]", response.body) is not None)
        assert response.status in (200, 500, 502)
        assert len(origin.heads) == 1 + is_reused


@pytest.mark.parametrize(
    ("name", "protocol"),
    [(name, one) for name in ("nginx", "apache") for one in PROTOCOLS] + [("haproxy", "http1.1")],
)
async def test_a_response_that_holdline_cuts_is_incomplete_for_the_client(
    name: str, protocol: str, certificate: Path
) -> None:
    """Caddy, and HAProxy with HTTP/2, end it as if it were complete."""
    require(name)
    async with raw_server() as origin, start_front(name, certificate, origin.port) as front:
        received = asyncio.Event()

        async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(chunked(b"before"))
            await received.wait()
            writer.close()

        origin.serve = cut
        async with request(front, protocol, STREAM) as response:
            await response.read_until(lambda body: body == b"before")
            received.set()
            assert await response.read_to_end() != 0


@shipped
@protocols
async def test_a_client_that_disconnects_ends_the_request_to_holdline(
    name: str, protocol: str, certificate: Path
) -> None:
    """Apache httpd notices the disconnect by the next heartbeats; the others need none."""
    require(name)
    async with raw_server() as origin, start_front(name, certificate, origin.port) as front:
        origin.serve = stream_forever(heartbeat_s=0.1 if name == "apache" else 3600)
        async with request(front, protocol, STREAM) as response:
            await response.read_until(lambda body: b"one" in body)
            assert not origin.closed.is_set()
        async with asyncio.timeout(PATIENCE_S):
            await origin.closed.wait()


def stream_forever(heartbeat_s: float) -> Serve:
    """Send a frame and then heartbeats, until the client closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(b"data: one\n\n"))
        closed = asyncio.create_task(reader.read())
        while not closed.done():
            await asyncio.wait([closed], timeout=heartbeat_s)
            writer.write(b"3\r\n:\n\n\r\n")
        closed.result()
        raise ConnectionResetError

    return serve


@pytest.mark.parametrize("name", LIMITING)
@protocols
async def test_a_client_with_too_many_requests_is_rejected_until_others_end(
    name: str, protocol: str, certificate: Path
) -> None:
    require(name)
    accept, events = {"Accept": "text/event-stream"}, "/api/events/"
    async with (
        raw_server() as origin,
        start_front(name, certificate, origin.port, edit=LIMITING[name]) as front,
        AsyncExitStack() as stack,
    ):
        origin.serve = respond(chunked(b"begun"))
        for _ in range(2):
            held = await stack.enter_async_context(request(front, protocol, events, accept))
            await held.read_until(b"begun".__eq__)
        for path, headers, expected in (
            (events, accept, (200, b"retry: 1000\n")),
            ("/", {}, (503, None)),
        ):
            async with request(front, protocol, path, headers) as response:
                assert await response.read_to_end() == 0
                assert response.status == expected[0]
                assert expected[1] in (None, response.body)
        assert len(origin.heads) == 2
        await stack.aclose()
        async with asyncio.timeout(PATIENCE_S):
            while True:
                async with request(front, protocol, events, accept) as response:
                    await response.read_until(lambda body: len(body) >= len(b"begun"))
                    if response.body == b"begun":
                        break
                await asyncio.sleep(0.05)
