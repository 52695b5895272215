"""Requests that strict servers accept, and errors, redirects and encodings with a limit."""

import asyncio
import gzip
import tomllib
import zlib
from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio

from chat.errors import UpstreamError
from chat.upstream.client import Upstream
from chat.upstream.http import client as http_client
from chat.upstream.http.client import create_http_client
from chat.upstream.http.parser import InvalidResponseError
from chat.upstream.response.completion import Timeouts
from tests.processes import ROOT
from tests.raw_server import END, Server, chunked, raw_server, respond

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer"


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    async with raw_server() as started:
        yield started


@pytest.fixture(params=["direct", "proxied"])
def base_url(
    request: pytest.FixtureRequest, server: Server, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Return the server's address, or another one whose proxy is the server."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    address = f"http://127.0.0.1:{server.port}"
    if request.param == "direct":
        return f"{address}/v1"
    monkeypatch.setenv("HTTP_PROXY", address)
    return "http://upstream.invalid/v1"


@pytest_asyncio.fixture
async def client(base_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    url = httpx2.URL(base_url)
    async with create_http_client(url.host, url.scheme) as client:
        client.base_url = url
        client.timeout = httpx2.Timeout(20)
        yield client


async def ask(base_url: str, key: str | None) -> None:
    """Ask a question whose answer is an error."""
    upstream = Upstream(name="u", base_url=base_url, api_key=key, timeouts=Timeouts(20, 20))
    with pytest.raises(UpstreamError):
        async with upstream.request([{"role": "user", "content": "question"}], "model"):
            pass
    await upstream.close()


@pytest.mark.parametrize("key", [None, "sk-test"])
async def test_a_request_has_holdlines_headers_and_none_of_the_package(
    base_url: str, server: Server, key: str | None
) -> None:
    server.serve = respond(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    await ask(base_url, key)
    head = server.heads[0].decode().lower()
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\r\nuser-agent: holdline/{version}\r\n" in head
    assert "x-stainless" not in head
    assert "none" not in head
    assert ("\r\nauthorization: bearer sk-test\r\n" in head) == (key is not None)
    assert head.count("\r\nhost: ") == head.count("\r\ncontent-length: ") == 1


ERROR = b"HTTP/1.1 400 Bad Request\r\n"


async def test_the_body_of_an_error_is_complete_up_to_its_limit(
    client: httpx2.AsyncClient, server: Server
) -> None:
    packed = gzip.compress(b'{"error": "why"}')
    server.serve = respond(
        ERROR + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
    )
    response = await client.post("/")
    assert (response.status_code, response.json()) == (400, {"error": "why"})


@pytest.mark.parametrize(
    "coding", [b"", b"Content-Encoding: gzip\r\n"], ids=["plain", "compressed"]
)
async def test_an_endless_error_is_read_up_to_64_kib(
    client: httpx2.AsyncClient, server: Server, coding: bytes
) -> None:
    part = gzip.compress(bytes(1 << 24)) if coding else b"x" * 10_000

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(ERROR + b"Transfer-Encoding: chunked\r\n" + coding + b"\r\n")
        while True:
            writer.write(b"%x\r\n%b\r\n" % (len(part), part))
            await writer.drain()

    server.serve = serve
    response = await client.post("/")
    assert (response.status_code, len(response.content)) == (400, 64 << 10)
    async with asyncio.timeout(20):
        await server.closed.wait()


@pytest.mark.parametrize("ending", ["silence", "end"])
async def test_an_interrupted_error_body_keeps_the_words_that_arrived(
    client: httpx2.AsyncClient, server: Server, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_client, "_ERROR_TIMEOUT_S", 0.5)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(ERROR + b"Content-Length: 100\r\n\r\ntoo many tokens")
        if ending == "end":
            writer.close()

    server.serve = serve
    response = await client.post("/")
    assert (response.status_code, response.text) == (400, "too many tokens")
    assert len(server.bodies) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location", ["/v1/chat/", "http://{other}/v1/chat", "https://{other}/", "", "http://["]
)
async def test_a_redirect_is_an_error_and_is_not_followed(
    client: httpx2.AsyncClient, server: Server, status: int, location: str
) -> None:
    async with raw_server() as other:
        address = location.format(other=f"127.0.0.1:{other.port}")
        server.serve = respond(
            f"HTTP/1.1 {status} X\r\nLocation: {address}\r\nContent-Length: 5\r\n\r\n".encode()
            + b"moved"
        )
        response = await client.post("/chat", content=b"question")
        assert (response.status_code, response.text) == (status, "moved")
        assert (len(server.bodies), other.connections) == (1, 0)


async def test_a_cookie_of_the_upstream_is_not_kept(
    client: httpx2.AsyncClient, server: Server
) -> None:
    server.serve = respond(
        b"HTTP/1.1 200 OK\r\nSet-Cookie: user=1; Path=/\r\nContent-Length: 6\r\n\r\nanswer"
    )
    for _ in range(2):
        assert (await client.post("/")).text == "answer"
    assert not client.cookies
    assert b"\r\ncookie:" not in server.heads[1].lower()


@pytest.mark.parametrize("coding", ["br", "zstd", "gzip, gzip", "gzip, deflate", "x", "gzip\x01"])
async def test_an_encoding_that_was_not_offered_is_an_invalid_response(
    client: httpx2.AsyncClient, server: Server, coding: str
) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\nContent-Length: 3\r\n\r\n"
    server.serve = respond(head.encode() + b"\x0b\x02\x80")
    with pytest.raises(httpx2.TransportError):
        await client.post("/")
    assert b"\r\naccept-encoding: gzip, deflate\r\n" in server.heads[0].lower()
    assert len(server.bodies) == 1


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip", "deflate", "raw deflate"])
async def test_a_compressed_body_is_decompressed_in_small_pieces(
    client: httpx2.AsyncClient, server: Server, coding: str
) -> None:
    window = {"deflate": zlib.MAX_WBITS, "raw deflate": -15}.get(coding, zlib.MAX_WBITS | 16)
    packer = zlib.compressobj(9, wbits=window)
    packed = packer.compress(bytes(1 << 24)) + packer.flush()
    head = f"Content-Encoding: {coding.split()[-1]}\r\nContent-Length: {len(packed)}\r\n\r\n"
    server.serve = respond(b"HTTP/1.1 200 OK\r\n" + head.encode() + packed)
    async with client.stream("POST", "/") as response:
        sizes = [len(part) async for part in response.aiter_bytes()]
    assert (sum(sizes), max(sizes)) == (1 << 24, 64 << 10)


@pytest.mark.parametrize("change", ["broken", "other"])
async def test_a_body_that_cannot_be_decompressed_is_invalid(
    client: httpx2.AsyncClient, server: Server, change: str
) -> None:
    packed = gzip.compress(b"answer " * 99)
    changed = {"broken": packed[:10] + b"\xff" * 20, "other": b"answer"}[change]
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    server.serve = respond(head % len(changed) + changed)
    with pytest.raises(InvalidResponseError):
        await client.post("/")
    assert len(server.bodies) == 1


async def test_a_malformed_response_is_invalid(client: httpx2.AsyncClient, server: Server) -> None:
    server.serve = respond(b"220 mail.example ESMTP\r\n")
    with pytest.raises(InvalidResponseError):
        await client.post("/")
    assert len(server.bodies) == 1


async def test_a_stream_is_received_as_it_arrives(
    client: httpx2.AsyncClient, server: Server
) -> None:
    received = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(b"first"))
        await received.wait()
        writer.write(b"6\r\nsecond\r\n" + END)

    server.serve = serve
    parts = []
    async with client.stream("POST", "/") as response:
        async for part in response.aiter_bytes():
            parts.append(part)
            received.set()
    assert parts == [b"first", b"second"]
    server.serve = respond(OK)
    assert (await client.post("/")).text == "answer"
    assert server.connections == 1


async def test_a_stream_that_is_cut_or_silent_raises_a_transport_error(
    client: httpx2.AsyncClient, server: Server
) -> None:
    client.timeout = httpx2.Timeout(20, read=0.5)
    server.serve = respond(chunked(b"first"))
    with pytest.raises(httpx2.ReadTimeout):
        await client.post("/")

    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(chunked(b"first"))
        writer.close()

    server.serve = cut
    with pytest.raises(httpx2.TransportError):
        await client.post("/")


async def test_a_proxy_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with create_http_client("upstream.invalid", "http") as client:
        with pytest.raises(httpx2.ProxyError, match=r"127\.0\.0\.1"):
            await client.post("http://upstream.invalid/v1")


async def test_a_proxy_receives_its_password_and_rejects_a_wrong_one(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:word@127.0.0.1:{server.port}")
    monkeypatch.setenv("HTTP_PROXY", f"user:word@127.0.0.1:{server.port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    rejection = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    server.serve = respond(rejection)
    async with create_http_client("upstream.invalid", "https") as client:
        with pytest.raises(httpx2.ProxyError, match="407"):
            await client.post("https://upstream.invalid/v1")
        assert (await client.post("http://upstream.invalid/v1")).status_code == 407
    assert server.heads[0].startswith(b"CONNECT upstream.invalid:443 ")
    assert server.heads[1].startswith(b"POST http://upstream.invalid/v1 ")
    for head in server.heads:
        assert b"\r\nproxy-authorization: basic dxnlcjp3b3jk\r\n" in head.lower()
