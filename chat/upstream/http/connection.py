"""One HTTP/1.1 connection to an upstream: a request out, a response in.

The body of a stream is pulled: `take` returns the bytes received so far. A plain socket that gave
bytes is read at the next `take`; the event loop watches only a socket that gave none. Watching it
for every read would cost two system calls (epoll_ctl) per read.
"""

import asyncio
import os
import socket
from collections.abc import Callable
from typing import cast

import httptools
import httpx2

from chat.upstream.http.parser import Headers, InvalidResponseError, create_parser, find_length

Origin = tuple[bytes, str, int]
"""Scheme, host, port."""

MAX_BUFFER_BYTES = 256 << 10
"""Received bytes that may wait to be taken before the socket is read no further."""

_MAX_HEADER_BYTES = 64 << 10

_LINGER_S = 1.0
"""Seconds to wait for the end of an HTTP body whose content has ended, such as by `[DONE]`."""

_read_buffer = bytearray(256 << 10)
"""The buffer for all reads, one after the other: allocating one costs more than a read."""


class Connection(asyncio.Protocol):
    """A connection with one response at a time."""

    # Without slots, the dict of each connection would take 1.4 KiB.
    __slots__ = (
        "_failure", "_fd", "_framing_bytes", "_has_length", "_has_two_lengths", "_header_bytes",
        "_headers", "_headers_received", "_is_closed", "_is_lingering", "_is_paused", "_is_plain",
        "_keep_alive", "_last_read_at", "_loop", "_on_complete", "_on_ready", "_parser",
        "_status", "_timer", "_transport", "_waiter", "buffer", "idle_since",
        "is_complete", "origin",
    )  # fmt: skip

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.buffer = bytearray()
        self.is_complete = True
        self._is_plain = origin[0] != b"https"
        self._transport: asyncio.Transport
        self._fd = -1
        self._parser: httptools.HttpResponseParser
        self._on_ready: Callable[[], None] | None = None
        self._status = 0
        self._headers: Headers = []
        self._header_bytes = self._framing_bytes = 0
        self._headers_received = False
        self._has_length = self._has_two_lengths = False
        self._keep_alive = False
        self._is_paused = False
        self._is_lingering = False
        self._is_closed = False
        self._failure: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._on_complete: Callable[[], None] | None = None
        self._last_read_at = self.idle_since = 0.0
        # Stored, because asking for the running loop is a system call on Python 3.11.
        self._loop = asyncio.get_running_loop()

    # Called by the transport and the body

    @property
    def is_reusable(self) -> bool:
        """Return whether another request may be sent."""
        return self.is_complete and self.is_open

    @property
    def is_over(self) -> bool:
        """Return whether no more bytes will be received."""
        return self.is_complete or self._failure is not None

    @property
    def is_open(self) -> bool:
        """Return whether the socket can be used."""
        return not self._is_closed and not self._transport.is_closing()

    @property
    def has_received(self) -> bool:
        """Return whether any byte of the response was received."""
        return self._headers_received or self._framing_bytes > 0

    @property
    def socket(self) -> socket.socket:
        """Return the connection's socket, to set its options."""
        return cast(socket.socket, self._transport.get_extra_info("socket"))

    def send(self, request: httpx2.Request, content: bytes) -> None:
        """Send a request; the previous response must be complete."""
        self.buffer.clear()
        self.is_complete = self._headers_received = self._has_length = self._is_lingering = False
        self._failure = self._on_ready = self._on_complete = None
        self._status, self._headers = 0, []
        self._header_bytes = self._framing_bytes = 0
        self._parser = create_parser(self)
        lines = [b"%s %s HTTP/1.1\r\n" % (request.method.encode(), request.url.raw_path)]
        lines += [b"%s: %s\r\n" % pair for pair in request.headers.raw]
        self._transport.write(b"".join([*lines, b"\r\n", content]))

    async def receive_headers(self, timeout_s: float | None) -> tuple[int, Headers]:
        """Return the response's status and headers."""
        while not self._headers_received:
            await self.wait(timeout_s)
        return self._status, self._headers

    def notify_when_ready(self, on_ready: Callable[[], None]) -> None:
        """Call `on_ready` when the body has bytes or ends, and again after each empty `take`."""
        self._on_ready = on_ready
        if self.buffer or self.is_over:
            self._signal()

    def take(self) -> bytes:
        """Return the received bytes of the body; if there are none, let the loop wait for some."""
        is_pulled = self._is_plain and self._on_ready is not None
        if is_pulled and self._is_paused and not self.is_complete and self._failure is None:
            self._read_socket()
        data = bytes(self.buffer)
        self.buffer.clear()
        if data and not self._is_plain:  # the data may have been buffered here for long
            self._last_read_at = self._loop.time()
        if self._is_paused and not (data and is_pulled):
            self._resume()
        return data

    async def wait(self, timeout_s: float | None) -> None:
        """Return when something has happened; raise the failure, or ReadTimeout without data."""
        if not self.is_over:
            self._waiter = waiter = self._loop.create_future()
            self._last_read_at = self._loop.time()
            if timeout_s is not None:
                self._timer = self._loop.call_later(timeout_s, self._check_timeout, timeout_s)
            try:
                await waiter
            finally:
                self._waiter = None
                if self._timer:
                    self._timer.cancel()
        if self._failure is not None:
            raise self._failure

    def wake(self) -> None:
        """Make `wait` return."""
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def release(self, keep: Callable[["Connection"], None], *, has_ended: bool = False) -> None:
        """End the response: give the connection to `keep` if it can be used again, or close it.

        If the content `has_ended`, the few bytes that end the HTTP body may still be on their way:
        the connection waits for them.
        """
        if self._timer:
            self._timer.cancel()
        is_sent = not self._transport.get_write_buffer_size()  # the response may have come first
        if self.is_reusable and self._failure is None and self._keep_alive and is_sent:
            self._on_ready = None
            self._resume()
            keep(self)
        elif has_ended and not self.is_over:
            self._on_ready, self._is_lingering = None, True
            self._on_complete = lambda: self.release(keep)
            self._timer = self._loop.call_later(_LINGER_S, self.close)
            self._resume()
        else:
            self.close()

    def close(self) -> None:
        """Close the connection immediately."""
        self._is_closed, self._on_ready, self._on_complete = True, None, None
        self._transport.abort()

    # Called by asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has another parent
        self._fd = transport.get_extra_info("socket").fileno()

    def data_received(self, data: bytes | memoryview) -> None:
        self._parse(data)
        self._signal()

    def connection_lost(self, error: Exception | None) -> None:
        self._is_closed = True
        if self.is_complete:
            return
        if error is None and self._headers_received and not self._has_length:
            self.on_message_complete()  # a body that ends with its connection
        elif error is None:
            self._fail(httpx2.RemoteProtocolError("the server closed the connection"))
        else:
            self._fail(httpx2.ReadError(str(error)))
        self._signal()

    # Called by the parser

    def on_message_begin(self) -> None:
        if self.is_complete:
            raise httpx2.RemoteProtocolError("a second response, without a request")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > _MAX_HEADER_BYTES:
            raise InvalidResponseError("the response's headers are too large")
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        if self._status < 200:  # an interim response: the final one follows
            self._headers = []
            return
        self._headers_received = True
        self._has_length, self._has_two_lengths = find_length(self._headers)

    def on_body(self, part: bytes) -> None:
        self._framing_bytes = 0
        self.buffer += part
        if len(self.buffer) > MAX_BUFFER_BYTES:
            self._pause()

    def on_message_complete(self) -> None:
        if self._headers_received:
            self.is_complete = True
            is_kept = not (self._is_closed or self._has_two_lengths)
            self._keep_alive = is_kept and self._parser.should_keep_alive()

    # Reading

    def _read_socket(self) -> None:
        """Read a plain socket that the loop does not watch."""
        if self._transport.is_closing():  # its descriptor may be another's by now
            return
        try:
            size = os.readv(self._fd, (_read_buffer,))
        except BlockingIOError:
            return
        except OSError as error:
            self._fail(httpx2.ReadError(str(error)))
            return
        if size:
            self._parse(memoryview(_read_buffer)[:size])
            if self.is_complete or self._failure is not None:
                self.wake()
        else:  # the loop reports the end of the connection
            self._resume()

    def _parse(self, data: bytes | memoryview) -> None:
        if self.is_complete:  # nothing was requested
            self.close()
            return
        self._last_read_at = self._loop.time()
        self._framing_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self._on_parse_error(error.__context__ or error)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._on_parse_error(InvalidResponseError("the response is not HTTP/1.1"))
        # Headers, or a trailer or a chunk's extension, of which the parser keeps every byte.
        if self._framing_bytes > 2 * _MAX_HEADER_BYTES and not self.is_complete:
            self._fail(InvalidResponseError("the response's headers are too large"))

    def _signal(self) -> None:
        """Report that bytes were received, or that the response is over."""
        if self.is_complete and self._on_complete:
            self._on_complete()
        elif self._is_lingering and self.buffer:
            self.close()
        else:
            if self._on_ready is None or self.is_over:
                self.wake()
            if self._on_ready and (self.buffer or self.is_over):
                if self._is_plain and not self.is_over:
                    self._pause()
                self._on_ready()

    def _pause(self) -> None:
        if not self._is_paused and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._is_paused and not self._transport.is_closing():
            self._is_paused = False
            self._last_read_at = self._loop.time()
            self._transport.resume_reading()

    def _check_timeout(self, timeout_s: float) -> None:
        """Fail if no data was read in time; the timer is only reset when it has expired."""
        if self._waiter is None:
            return
        left = self._last_read_at + timeout_s - self._loop.time()
        if self._is_paused or self.buffer:  # this side is not reading
            left = timeout_s
        if left > 0:
            self._timer = self._loop.call_later(left, self._check_timeout, timeout_s)
        else:
            self._fail(httpx2.ReadTimeout("the server sent nothing"))

    def _on_parse_error(self, error: BaseException) -> None:
        if self.is_complete:  # bytes after the response: the connection cannot be reused
            self._keep_alive = False
        else:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        self.wake()
        self._transport.abort()
