"""Attacks on connections: too many, too slow, and requests that two parsers read differently."""

import asyncio
import contextlib
import time

import httpx

from tests.attack.target import Outcome, Target, exchange_raw, is_served, status_of, wait_until
from tests.streams import STREAM

_HEADERS_S = 10
_BODY_S = 30
_SLACK_S = 5

_OTHER_ADDRESS = "127.0.0.77"
"""Another client's address: all of 127.0.0.0/8 is this machine."""


async def _open(target: Target, count: int) -> list[asyncio.StreamWriter]:
    """Open connections that send nothing; return those that the server has not refused."""
    opened: list[asyncio.StreamWriter] = []
    for _ in range(count):
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1):
                _, writer = await asyncio.open_connection(*target.address)
            opened.append(writer)
    return opened


async def open_idle_connections(target: Target) -> Outcome:
    """Open 1,100 idle connections to a server with 1,024 descriptors."""
    opened = await _open(target, 1100)
    other = httpx.AsyncHTTPTransport(local_address=_OTHER_ADDRESS)
    served = await is_served(target, transport=other)
    healthy = 0
    with contextlib.suppress(httpx.HTTPError):
        async with target.open_client(
            transport=httpx.AsyncHTTPTransport(local_address=_OTHER_ADDRESS), timeout=5
        ) as client:
            healthy = (await client.get("/healthz")).status_code
    for writer in opened:
        writer.transport.abort()
    recovered = await is_served(target)
    return Outcome(
        served and healthy == 200 and recovered,
        f"{len(opened)} opened; others {'served' if served else 'not served'}, /healthz: "
        f"{healthy or 'no answer'}; afterwards {'served' if recovered else 'not served'}",
    )


async def _drip(target: Target, head: bytes, piece: bytes, limit_s: float) -> Outcome:
    """Send a request in small pieces; return when the server has ended the connection."""
    reader, writer = await asyncio.open_connection(*target.address)
    begun = time.monotonic()
    writer.write(head)

    async def drip() -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await asyncio.sleep(0.5)
                writer.write(piece)
                await writer.drain()

    dripping = asyncio.create_task(drip())
    first = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with asyncio.timeout(limit_s + _SLACK_S):
            first = await reader.read(100)
            while await reader.read(65536):
                pass
    passed = time.monotonic() - begun
    dripping.cancel()
    await asyncio.wait([dripping])
    writer.transport.abort()
    ended = passed < limit_s + _SLACK_S
    return Outcome(
        ended, f"{'ended' if ended else 'still open'} after {passed:.0f} s, {status_of(first)}"
    )


async def send_slow_headers(target: Target) -> Outcome:
    """Send a header every half second."""
    head = f"GET /healthz HTTP/1.1\r\nHost: {target.url[7:]}\r\n".encode()
    return await _drip(target, head, b"X-Slow: 1\r\n", _HEADERS_S)


async def send_a_slow_request_line(target: Target) -> Outcome:
    """Send a request line byte by byte."""
    return await _drip(target, b"GET /", b"a", _HEADERS_S)


async def send_a_slow_body(target: Target) -> Outcome:
    """Send a body byte by byte."""
    head = (
        f"POST {STREAM} HTTP/1.1\r\nHost: {target.url[7:]}\r\nUser-Agent: x\r\n"
        "Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n{"
    ).encode()
    return await _drip(target, head, b" ", _BODY_S)


async def send_a_slow_chunk(target: Target) -> Outcome:
    """Send a chunk of a body byte by byte."""
    head = (
        f"POST {STREAM} HTTP/1.1\r\nHost: {target.url[7:]}\r\nUser-Agent: x\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n{"
    ).encode()
    return await _drip(target, head, b" ", _BODY_S)


async def _send_each(target: Target, requests: dict[str, bytes]) -> Outcome:
    """Send each request; all must be rejected."""
    accepted = []
    for name, request in requests.items():
        status = status_of(await exchange_raw(target, request))
        if status and status < 400:
            accepted.append(name)
    served = await is_served(target)
    return Outcome(
        not accepted and served,
        f"{len(requests)} requests; accepted: {', '.join(accepted) or 'none'}",
    )


async def send_ambiguous_hosts(target: Target) -> Outcome:
    """Send two `Host` fields, none, or one that is not a host."""
    host = target.url[7:].encode()
    end = b"Connection: close\r\n\r\n"
    return await _send_each(
        target,
        {
            "two Host": b"GET /healthz HTTP/1.1\r\nHost: %b\r\nHost: other\r\n" % host + end,
            "two equal Host": b"GET /healthz HTTP/1.1\r\nHost: %b\r\nHost: %b\r\n" % (host, host)
            + end,
            "no Host": b"GET /healthz HTTP/1.1\r\n" + end,
            "empty Host": b"GET /healthz HTTP/1.1\r\nHost:\r\n" + end,
            "Host with spaces": b"GET /healthz HTTP/1.1\r\nHost: a b\r\n" + end,
            "Host with a path": b"GET /healthz HTTP/1.1\r\nHost: %b/x\r\n" % host + end,
            "Host after U+00A0": b"GET /healthz HTTP/1.1\r\nHost:\xc2\xa0%b\r\n" % host + end,
        },
    )


async def send_control_characters(target: Target) -> Outcome:
    """Send bare CR, NUL and other control characters in heads."""
    head = b"GET /healthz HTTP/1.1\r\nHost: %b\r\n" % target.url[7:].encode()
    end = b"Connection: close\r\n\r\n"
    return await _send_each(
        target,
        {
            "bare CR in a header": head + b"X-A: a\rX-B: b\r\n" + end,
            "bare CR before a name": head + b"\rX-A: a\r\n" + end,
            "NUL in a header": head + b"X-A: a\0b\r\n" + end,
            "NUL in a name": head + b"X\0A: a\r\n" + end,
            "NUL in the path": head.replace(b"/healthz", b"/healthz\0") + end,
            "escape in the path": head.replace(b"/healthz", b"/healthz\x1b") + end,
            "bare LF": head.replace(b"\r\n", b"\n") + b"Connection: close\n\n",
            "folded header": head + b"X-A: a\r\n b\r\n" + end,
            "space in a name": head + b"X A: a\r\n" + end,
            "no colon": head + b"X-A\r\n" + end,
        },
    )


async def send_ambiguous_bodies(target: Target) -> Outcome:
    """Send lengths and chunks that another parser reads differently."""
    head = (
        f"POST /api/conversations/ HTTP/1.1\r\nHost: {target.url[7:]}\r\nUser-Agent: x\r\n"
        "Content-Type: application/json\r\nConnection: close\r\n"
    ).encode()
    chunked = head + b"Transfer-Encoding: chunked\r\n"
    return await _send_each(
        target,
        {
            "Content-Length : 2": head + b"Content-Length : 2\r\n\r\n{}",
            "Content-Length: +2": head + b"Content-Length: +2\r\n\r\n{}",
            "Content-Length: 0x2": head + b"Content-Length: 0x2\r\n\r\n{}",
            "Content-Length: 2_0": head + b"Content-Length: 2_0\r\n\r\n{}" + b" " * 18,
            "Content-Length: -2": head + b"Content-Length: -2\r\n\r\n{}",
            "two Content-Length": head + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
            "length and chunks": chunked + b"Content-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            "chunk size 0x2": chunked + b"\r\n0x2\r\n{}\r\n0\r\n\r\n",
            "chunk size +2": chunked + b"\r\n+2\r\n{}\r\n0\r\n\r\n",
            "chunk size -2": chunked + b"\r\n-2\r\n{}\r\n0\r\n\r\n",
            "chunk size with a space": chunked + b"\r\n 2 \r\n{}\r\n0\r\n\r\n",
            "chunk size ended by LF": chunked + b"\r\n2\n{}\r\n0\r\n\r\n",
            "chunk ended by LF": chunked + b"\r\n2\r\n{}\n0\r\n\r\n",
            "chunk longer than its size": chunked + b"\r\n1\r\n{}\r\n0\r\n\r\n",
            "chunk of 2^70": chunked + b"\r\n%x\r\n{}\r\n0\r\n\r\n" % (1 << 70),
            "Transfer-Encoding: xchunked": head
            + b"Transfer-Encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked, gzip": head
            + b"Transfer-Encoding: chunked, gzip\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            "Transfer-Encoding : chunked": head
            + b"Transfer-Encoding : chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            "Content-Length after U+0085": head + b"Content-Length:\xc2\x852\r\n\r\n{}",
            "Transfer-Encoding after U+2003": head
            + b"Transfer-Encoding:\xe2\x80\x83chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
            "HTTP/1.0 with chunks": chunked.replace(b"HTTP/1.1", b"HTTP/1.0")
            + b"\r\n2\r\n{}\r\n0\r\n\r\n",
            "HTTP/2.0": head.replace(b"HTTP/1.1", b"HTTP/2.0") + b"Content-Length: 2\r\n\r\n{}",
        },
    )


async def smuggle_a_request(target: Target) -> Outcome:
    """Hide a second request in a body that the server may read in two ways."""
    host = target.url[7:]
    hidden = f"GET /healthz HTTP/1.1\r\nHost: {host}\r\nX-Hidden: 1\r\n\r\n"
    requests = [
        f"POST /api/conversations/ HTTP/1.1\r\nHost: {host}\r\nUser-Agent: x\r\n"
        f"Content-Type: application/json\r\n{field}\r\n\r\n{body}"
        for field, body in (
            (
                f"Content-Length: {5 + len(hidden)}\r\nTransfer-Encoding: chunked",
                f"0\r\n\r\n{hidden}",
            ),
            (f"Content-Length: 2\r\nContent-Length: {2 + len(hidden)}", "{}" + hidden),
            (f"Transfer-Encoding: xchunked\r\nContent-Length: {2 + len(hidden)}", "{}" + hidden),
            (f"Transfer-Encoding:\x0bchunked\r\nContent-Length: {2 + len(hidden)}", "{}" + hidden),
        )
    ]
    counts = [
        (await exchange_raw(target, request.encode())).count(b"HTTP/1.1 200")
        for request in requests
    ]
    return Outcome(not any(counts), f"{sum(counts)} hidden requests were executed")


async def reject_quietly(target: Target) -> Outcome:
    """Cause 2,500 rejected requests, and send 500 bodies that nobody reads.

    The log may grow by a few lines only, and has no user text.
    """
    before = len(target.server.read_log().splitlines())
    async with target.open_client(headers={"User-Agent": "Mozilla/5.0"}) as client:
        for number in range(500):
            await client.get(STREAM, params={"message": f"saffron {number}"})
            page = {"Host": f"saffron{number}.example", "Accept": "text/html"}
            await client.get("/", headers=page)
    async with target.open_client() as client:
        for number in range(500):
            await client.get("/api/info", headers={"Host": f"saffron{number}.example"})
            await client.request("GET", "/api/info", content="saffron ")
            await client.get(STREAM, params={"message": f"saffron {number}"})
            await client.post(STREAM, json={"message": "saffron" * 5000})
    log = target.server.read_log()
    lines = len(log.splitlines()) - before
    secret = "saffron " in log or "saffronsaffron" in log
    return Outcome(
        1 <= lines <= 200 and not secret,
        f"{lines} lines for 3,000 requests; {'with' if secret else 'without'} user text",
    )


async def leave_connections_behind(target: Target) -> Outcome:
    """Open and abandon 2,000 connections in the middle of a request: no descriptor may stay."""
    (worker,) = target.list_workers()
    before = worker.num_fds()
    for _ in range(20):
        opened = await _open(target, 100)
        for writer in opened:
            writer.write(b"GET /api/info HTTP/1.1\r\nHost: a")
        await asyncio.sleep(0.01)
        for writer in opened:
            writer.transport.abort()
    passed = await wait_until(lambda: worker.num_fds() <= before + 20, 15)
    left = worker.num_fds() - before
    return Outcome(passed < 15, f"{max(left, 0)} descriptors left after {passed:.1f} s")
