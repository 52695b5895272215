"""A table of the behaviours of hostile or broken upstreams.

Each behaviour writes raw bytes to a real socket, and ends when the client closes the connection.
"""

import asyncio
import gzip
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.raw_server import Serve
from tests.raw_upstream import DONE, STOP, delta, event

CONTINUE_MAX = 1
YEAR_S = 365 * 86400

SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
OPEN = SSE + b"\r\n"
"""The head of a body that ends with its connection."""
CHUNKED = SSE + b"Transfer-Encoding: chunked\r\n\r\n"
HELLO = event(delta("Hello"))
WORLD = event(delta(" world"))
WHOLE = HELLO + WORLD + event(STOP) + DONE
COMPLETE = "Hello world"


def say(*parts: bytes) -> Serve:
    """Send these bytes and close the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.writelines(parts)
        await writer.drain()
        writer.close()

    return serve


def hold(*parts: bytes) -> Serve:
    """Send these bytes, and nothing more, until the client closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.writelines(parts)
        await reader.read()

    return serve


def flood(begin: bytes, part: bytes) -> Serve:
    """Send `begin`, and then `part` as fast as the client reads, until it closes."""
    block = part * max(1, (64 << 10) // len(part))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        while True:
            writer.write(block)
            await writer.drain()

    return serve


def drip(begin: bytes, part: bytes, every_s: float = 0.2) -> Serve:
    """Send `begin`, and then `part` again and again, slowly, until the client closes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        closed = asyncio.create_task(reader.read())
        while not closed.done():
            writer.write(part)
            await asyncio.wait([closed], timeout=every_s)  # the rate is the behaviour under test

    return serve


async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reset the connection."""
    writer.transport.abort()


def fail(status: int, body: bytes, *headers: bytes) -> bytes:
    """Return the bytes of a response with an error."""
    lines = [b"HTTP/1.1 %d X" % status, *headers, b"Content-Length: %d" % len(body), b"", body]
    return b"\r\n".join(lines)


def words(message: str) -> bytes:
    return json.dumps({"error": {"message": message}}).encode()


def chunk(part: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(part), part)


def sized(length: int | bytes, body: bytes) -> bytes:
    """Return a response that states any length of its body."""
    stated = length if isinstance(length, bytes) else b"%d" % length
    return SSE + b"Content-Length: %b\r\n\r\n%b" % (stated, body)


def packed(*, body: bytes, coding: bytes = b"gzip", status: int = 200) -> bytes:
    head = b"HTTP/1.1 %d X\r\nContent-Encoding: %b\r\n" % (status, coding)
    return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def begin_gzip(text: bytes) -> bytes:
    """Return a text in gzip without an end: blocks may follow, such as EMPTY_BLOCK."""
    packer = zlib.compressobj(wbits=31)
    return packer.compress(text) + packer.flush(zlib.Z_SYNC_FLUSH)


EMPTY_BLOCK = b"\x00\x00\x00\xff\xff"


def bomb(filling: bytes, begin: bytes = b"") -> bytes:
    """Return 64 MiB in gzip: about 64 KiB."""
    packer = zlib.compressobj(9, wbits=31)
    parts = [packer.compress(begin), *(packer.compress(filling) for _ in range(64))]
    return b"".join([*parts, packer.flush()])


MIB = 1 << 20
SPACES = bomb(b" " * MIB)
ENDLESS_EVENT = bomb(b"x" * MIB, b'data: {"choices": [{"delta": {"content": "')
NESTED = b"[" * 200_000
WIDE = b'data: {"choices": [], "x": [' + b"[]," * (MIB - 100) + b"[]]}\n\n"
LONG_CALL = {"index": 0, "function": {"name": "f", "arguments": "x" * 1000}}
NUMBERS: dict[str, Any] = {"prompt_tokens": -5, "completion_tokens": 10**400, "total_tokens": "9e9"}
SLOW_WORDS = [
    "(" * 60_000,
    "a." * 30_000,
    "/a" * 30_000,
    "a" * 60_000,
    ":" * 60_000,
    "1 2" * 20_000,
]


@dataclass(frozen=True)
class Row:
    """A behaviour, and what it may cause.

    `ending` is the type of the failure, or the finish reason. `text` is what the client gets of the
    answer; None stands for any text. `requests` is the number of requests that the turn costs.
    """

    name: str
    serve: Serve
    ending: str
    text: str | None = ""
    requests: int = 1
    message: str = ""


ROWS: Sequence[Row] = [
    # Redirects
    Row("a redirect to itself", say(fail(307, b"", b"Location: /tenant-4711/v1/chat/completions")), "not_found", message="redirects"),
    Row("a redirect that makes the question a GET", say(fail(303, b"", b"Location: /")), "not_found"),
    Row("a redirect to another host", say(fail(301, b"", b"Location: http://other.invalid/")), "not_found"),
    Row("a redirect without an address", say(fail(308, b"", b"Location: http://[")), "not_found"),
    Row("a redirect with an endless body", flood(b"HTTP/1.1 302 X\r\nLocation: /x\r\n\r\n", b"x"), "not_found"),

    # Errors
    Row("an endless error", flood(b"HTTP/1.1 500 X\r\n\r\n", b"x"), "upstream"),
    Row("an error that drips", drip(b"HTTP/1.1 400 X\r\n\r\n", b"x"), "refused"),
    Row("an error in gzip that is a bomb", say(packed(body=bomb(bytes(MIB)), status=400)), "refused"),
    Row("an error in gzip within gzip", say(packed(body=gzip.compress(bomb(b" " * MIB)), coding=b"gzip, gzip", status=400)), "refused"),
    Row("an error in an unknown encoding", say(packed(body=b"\x28\xb5\x2f\xfd" * 99, coding=b"zstd", status=400)), "refused"),
    Row("an error of nested JSON", say(fail(400, NESTED)), "refused"),
    Row("an error of other nested JSON", say(fail(422, b'{"error":' * 9000)), "refused"),
    *(Row(f"an error of {text[:3]!r} again and again", say(fail(400, words(text))), "refused") for text in SLOW_WORDS),
    Row("a quota until next year", say(fail(429, b"", b"Retry-After: %d" % YEAR_S)), "rate_limited"),
    Row("a quota until minus one", say(fail(429, b"", b"Retry-After: -1")), "rate_limited", requests=2),
    Row("a quota until a date without an end", say(fail(429, b"", b"Retry-After: Mon, 99 " + b"9" * 60_000)), "rate_limited", requests=2),
    Row("an overload until infinity", say(fail(503, b"", b"Retry-After: 1e999")), "upstream", requests=2),
    Row("status 999", say(fail(999, b"")), "upstream"),
    Row("status 204", say(b"HTTP/1.1 204 No Content\r\n\r\n"), "no_answer"),
    Row("status 304", say(b"HTTP/1.1 304 Not Modified\r\n\r\n"), "not_found"),

    # Heads
    Row("a request that is never answered", hold(), "timeout"),
    Row("a connection that is closed", say(), "connection_lost"),
    Row("a connection that is reset", reset, "connection_lost"),
    Row("another protocol", hold(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), "invalid_response"),
    Row("an upgrade", hold(b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), "invalid_response"),
    Row("endless headers", flood(SSE, b"X-A: b\r\n"), "invalid_response"),
    Row("one endless header", flood(SSE + b"X-A: ", b"b"), "invalid_response"),
    Row("an endless reason", flood(b"HTTP/1.1 200 ", b"OK"), "invalid_response"),
    Row("headers that drip", drip(SSE, b"X-A: b\r\n"), "timeout"),
    Row("endless interim responses", flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "invalid_response"),
    Row("interim responses that drip", drip(b"", b"HTTP/1.1 102 Processing\r\n\r\n"), "timeout"),
    Row("a negative length", hold(sized(-1, WHOLE)), "invalid_response"),
    Row("an absurd length", hold(sized(10**40, WHOLE)), "invalid_response"),
    Row("two lengths", hold(sized(b"5\r\nContent-Length: 6", WHOLE)), "invalid_response"),
    Row("an unknown encoding", say(packed(body=WHOLE, coding=b"br")), "invalid_response"),

    # Framing
    Row("a length that is too large", say(sized(10**6, WHOLE)), "stop", COMPLETE),
    Row("a length that is too large, and no end", say(sized(10**6, HELLO)), "connection_lost", None, 1 + CONTINUE_MAX),
    Row("a length that is too small", say(sized(len(HELLO) + 9, WHOLE)), "connection_lost", None, 1 + CONTINUE_MAX),
    Row("a length of zero", say(sized(0, WHOLE)), "no_answer"),
    Row("a chunk of 2**64 bytes", hold(CHUNKED + b"1" + b"0" * 16 + b"\r\n" + WHOLE), "invalid_response"),
    Row("a chunk of 2**62 bytes", hold(CHUNKED + b"4" + b"0" * 15 + b"\r\n" + WHOLE), "stop", COMPLETE),
    Row("a chunk of minus one byte", hold(CHUNKED + b"-1\r\n" + WHOLE), "invalid_response"),
    Row("an endless chunk extension", flood(CHUNKED + chunk(HELLO) + b"5;", b"x"), "invalid_response", "Hello"),
    Row("an endless trailer", flood(CHUNKED + chunk(HELLO) + b"0\r\nX-A: ", b"x"), "invalid_response", "Hello"),
    Row("endless chunks of one byte", flood(CHUNKED, chunk(b":")), "invalid_response"),

    # Bodies
    Row("an answer that drips", drip(OPEN + HELLO, event(delta("."))), "too_slow", None),
    Row("one event that drips", drip(OPEN + b"data: ", b"x"), "timeout"),
    Row("comments that drip", drip(OPEN, b": wait\n\n"), "timeout"),
    Row("comments after the answer began", drip(OPEN + HELLO, b": wait\n\n"), "timeout", None, 1 + CONTINUE_MAX),
    Row("endless comments", flood(OPEN, b": wait\n\n"), "timeout"),
    Row("endless empty lines", flood(OPEN, b"\n"), "timeout"),
    Row("endless white space", flood(OPEN, b" "), "timeout"),
    Row("an endless answer in tiny deltas", flood(OPEN, event(delta("x"))), "too_slow", None),
    Row("an endless answer in large deltas", flood(OPEN, event(delta("x" * 300_000))), "too_long", None),
    Row("endless reasoning", flood(OPEN, event(delta(reasoning_content="hm" * 999))), "too_long"),
    Row("endless empty deltas", flood(OPEN, event(delta(""))), "timeout"),
    Row("an endless event", flood(OPEN + b"data: ", b"x"), "invalid_response"),
    Row("an endless event of short lines", flood(OPEN, b"data: x\n"), "invalid_response"),
    Row("an endless name of an event", flood(OPEN + b"event: ", b"x"), "invalid_response"),
    Row("an endless web page", flood(OPEN + b"<html>", b"x"), "invalid_response"),
    Row("an endless object", flood(OPEN + b'{"choices": "', b"x"), "invalid_response"),
    Row("an answer of nested JSON", say(OPEN + b"data: " + NESTED + b"\n\n"), "invalid_response"),
    Row("an object of nested JSON", say(OPEN + b'{"a":' * 99_999), "invalid_response"),
    Row("a million lists", say(OPEN + WIDE + WHOLE), "stop", COMPLETE),
    Row("a tool call without an end", flood(OPEN, event(delta(tool_calls=[LONG_CALL]))), "timeout"),
    Row("gzip that is a bomb of white space", say(packed(body=SPACES)), "no_answer"),
    Row("gzip that is a bomb in one event", say(packed(body=ENDLESS_EVENT)), "invalid_response"),
    Row("gzip within gzip", say(packed(body=gzip.compress(SPACES), coding=b"gzip, gzip")), "invalid_response"),
    Row("gzip that is broken", say(packed(body=b"\x1f\x8b\x08\0" * 99)), "invalid_response"),
    Row("another content type", say(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n" + WHOLE), "stop", COMPLETE),
    Row("NUL and half surrogate pairs", say(OPEN + event(r'{"choices": [{"delta": {"content": "He\u0000llo\ud800 world\udc00"}}]}') + event(STOP)), "stop", "Hello� world�"),
    Row("bytes that are not UTF-8", say(OPEN + WHOLE.replace(b"Hello", b"H\xff\xfello")), "stop", "H��llo world"),
    Row("absurd numbers of tokens", say(OPEN + HELLO + WORLD + event({**STOP, "usage": NUMBERS}) + DONE), "stop", COMPLETE),
    Row("NaN and infinity", say(OPEN + WHOLE.replace(b'"index": 0', b'"index": NaN, "x": -Infinity')), "stop", COMPLETE),
    Row("a finish reason of nested lists", say(OPEN + HELLO + WORLD + event(delta(finish=[[[]]] * 99)) + DONE), "stop", COMPLETE),
    Row("comments after the end", drip(OPEN + HELLO + WORLD + event(STOP), b": more\n\n"), "stop", COMPLETE),
    Row("endless comments after the end", flood(OPEN + HELLO + WORLD + event(STOP), b": more\n\n"), "stop", COMPLETE),
    Row("an endless answer after the end", flood(OPEN + event(STOP), event(delta("x" * 9000))), "too_long", None),
    Row("bytes after [DONE]", flood(OPEN + WHOLE, b"x"), "stop", COMPLETE),
]  # fmt: skip
