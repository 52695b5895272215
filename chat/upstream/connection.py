"""One connection to an upstream: a request out, a response in, as the callbacks of the socket bring it."""

import asyncio
import os
from collections.abc import Callable
from typing import cast

import httptools
import httpx2

Origin = tuple[bytes, str, int]
"""Scheme, host, port."""

Sink = Callable[[bytes], bool]
"""Takes what has come of a body, and says whether that was all that is wanted of it."""

Pace = Callable[[Callable[[], None]], None]
"""Takes a function, and calls it when there is reason to read on."""

_HEAD_MAX = 64 << 10
_BUFFER_MAX = 256 << 10
"""Bytes of a body that may wait to be iterated before the socket is read no further."""

_LINGER_S = 1.0

_came = bytearray(256 << 10)
"""Where sockets are read into, one after the other: to make room for each read costs more than the read."""


class Connection(asyncio.Protocol):
    """One connection, with one response at a time."""

    # In a dict of its own, as without them, each connection took 1.4 KiB more.
    __slots__ = (
        "_came_size", "_closed", "_failure", "_fd", "_halted", "_head_came", "_head_size", "_headers",
        "_heard_at", "_kept_alive", "_loop", "_on_complete", "_pace", "_parser", "_paused", "_sink", "_sized",
        "_status", "_timer", "_transport", "_waiter", "buffer", "complete", "origin", "satisfied",
    )  # fmt: skip

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.buffer = bytearray()
        self.complete = True
        self.satisfied = False
        self._transport: asyncio.Transport
        self._fd = -1
        self._parser: httptools.HttpResponseParser
        self._sink: Sink | None = None
        self._pace: Pace | None = None
        self._status = 0
        self._headers: list[tuple[bytes, bytes]] = []
        self._came_size = 0
        self._head_size = 0
        self._head_came = False
        self._sized = False
        self._kept_alive = False
        self._halted = False
        self._paused = False
        self._closed = False
        self._failure: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._on_complete: Callable[[], None] | None = None
        self._heard_at = 0.0
        # Kept, since asking for the running one is a system call on Python 3.11.
        self._loop = asyncio.get_running_loop()

    # What the transport and the body ask for

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent."""
        return self.complete and not self._closed and not self._transport.is_closing()

    def send(self, request: httpx2.Request, content: bytes) -> None:
        """Send a request, which must be the only one under way."""
        self.buffer.clear()
        self.complete = self.satisfied = self._head_came = self._sized = self._halted = False
        self._failure = self._sink = self._pace = self._on_complete = None
        self._status, self._headers = 0, []
        self._came_size = self._head_size = 0
        self._parser = httptools.HttpResponseParser(self)
        lines = [b"%s %s HTTP/1.1\r\n" % (request.method.encode(), request.url.raw_path)]
        lines += [b"%s: %s\r\n" % pair for pair in request.headers.raw]
        self._transport.write(b"".join([*lines, b"\r\n", content]))

    async def head(self, timeout_s: float | None) -> tuple[int, list[tuple[bytes, bytes]]]:
        """The response's status and headers."""
        while not self._head_came:
            await self.wait(timeout_s)
        headers, self._headers = self._headers, []
        return self._status, headers

    def begin(self, sink: Sink, pace: Pace) -> None:
        """Give `sink` what has come and what comes, each read when `pace` says so, until it is satisfied."""
        self._sink, self._pace = sink, pace
        self._pour()
        self.resume()

    def take(self) -> bytes:
        """What of the body waits to be iterated."""
        waiting = bytes(self.buffer)
        self.buffer.clear()
        return waiting

    async def wait(self, timeout_s: float | None) -> None:
        """Return when something has happened; raises what went wrong, ReadTimeout after a silence."""
        if self._failure is None and not self.complete:
            self._waiter = waiter = self._loop.create_future()
            self._heard_at = self._loop.time()
            if timeout_s is not None:
                self._timer = self._loop.call_later(timeout_s, self._look, timeout_s)
            try:
                await waiter
            finally:
                self._waiter = None
                if self._timer:
                    self._timer.cancel()
        if self._failure is not None:
            raise self._failure

    def halt(self) -> None:
        """Give the sink nothing for now; what comes waits in the kernel, or with TLS in the buffer.

        For with TLS what has come is lost when the connection ends while its reading is paused.
        """
        self._halted = True
        if self.origin[0] != b"https":
            self._pause()

    def read_on(self) -> None:
        """Give the sink what has come by now, and what comes next as it comes.

        The socket is read here and now, without having the loop watch it and then watch it no more.
        """
        self._heard_at = self._loop.time()
        if (
            not self._paused or self.origin[0] == b"https"
        ):  # in a socket of TLS stands what is not for us
            self.resume()
        elif not self._transport.is_closing():
            try:
                size = os.readv(self._fd, (_came,))
            except BlockingIOError:
                self.resume()
            except OSError as error:
                self._fail(httpx2.ReadError(str(error)))
            else:
                self._halted = False
                if size:
                    self.data_received(memoryview(_came)[:size])
                else:  # of the end the loop tells
                    self.resume()

    def resume(self) -> None:
        """Read on."""
        self._halted = False
        self._heard_at = self._loop.time()
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()
        if self._sink and self.buffer:
            self._hear()

    def _pause(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def release(self, keep: Callable[["Connection"], None]) -> None:
        """Let go of the response: give the connection to `keep` if it can be used again, or close it.

        Where the sink was satisfied, the little that ends the body may be on its way yet, and is waited for.
        """
        if self._timer:
            self._timer.cancel()
        if self.complete:
            if self._failure is None and self._kept_alive and not self._closed:
                self._sink = self._pace = None
                self.resume()
                keep(self)
            else:
                self.close()
        elif self.satisfied and self._failure is None:
            self.resume()
            self._sink, self._pace, self.satisfied = self._refuse, None, False
            self._on_complete = lambda: self.release(keep)
            self._timer = self._loop.call_later(_LINGER_S, self.close)
        else:
            self.close()

    def close(self) -> None:
        """Close the connection at once."""
        self._closed = True
        self._sink = self._pace = self._on_complete = None
        self._transport.abort()

    def wake(self) -> None:
        """Have `wait` return."""
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has another parent
        self._fd = transport.get_extra_info("socket").fileno()

    def data_received(self, data: bytes | memoryview) -> None:
        if self.complete:  # nobody asked for this
            self.close()
            return
        if not self._head_came:
            self._came_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            self._misread(error.__context__ or error)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._misread(httpx2.RemoteProtocolError("that is not the HTTP that was asked for"))
        if not self._head_came and self._came_size > 2 * _HEAD_MAX:  # a header that does not end
            self._fail(httpx2.RemoteProtocolError("the response's head is too large"))
        if not self._halted or self.complete or self._failure:
            self._hear()

    def _hear(self) -> None:
        try:
            self._pour()
        except Exception as error:
            self._fail(error)
        if self.complete and self._on_complete:
            self._on_complete()
        elif self.complete or self.satisfied or self._sink is None:
            self.wake()
        elif self._pace:
            self.halt()
            self._pace(self.read_on)

    def _refuse(self, part: bytes) -> bool:
        self.close()
        return True

    def _pour(self) -> None:
        if self._sink and self.buffer and not self.satisfied:
            self.satisfied = self._sink(self.take())

    def connection_lost(self, error: Exception | None) -> None:
        self._closed = True
        if self.complete:
            return
        self._hear()
        if error is None and self._head_came and not self._sized:
            self.on_message_complete()  # a body that ends with its connection
        elif error is None:
            self._fail(httpx2.RemoteProtocolError("the server closed the connection"))
        else:
            self._fail(httpx2.ReadError(str(error)))
        self.wake()

    # What the parser calls

    def on_message_begin(self) -> None:
        if self.complete:
            raise httpx2.RemoteProtocolError("a second response, which nobody asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value)
        if self._head_size > _HEAD_MAX:
            raise httpx2.RemoteProtocolError("the response's head is too large")
        self._headers.append((name, value))
        self._sized = self._sized or name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        self._status = self._parser.get_status_code()
        if self._status < 200:  # an interim response: the real one follows
            self._headers = []
            return
        self._head_came = True

    def on_body(self, part: bytes) -> None:
        self.buffer += part
        if (self._sink is None or self._halted) and len(self.buffer) > _BUFFER_MAX:
            self._pause()

    def on_message_complete(self) -> None:
        if self._head_came:
            self.complete = True
            self._kept_alive = not self._closed and self._parser.should_keep_alive()

    def _look(self, timeout_s: float) -> None:
        """A silence is measured from the last read; the timer is set anew only when it has run out."""
        if self._waiter is None:
            return
        left = (
            timeout_s
            if self._halted or self._paused
            else self._heard_at + timeout_s - self._loop.time()
        )
        if left > 0:
            self._timer = self._loop.call_later(left, self._look, timeout_s)
        else:
            self._fail(httpx2.ReadTimeout("the server stayed silent"))

    def _misread(self, error: BaseException) -> None:
        if (
            self.complete
        ):  # what comes behind the response is no part of it, but spoils the connection
            self._kept_alive = False
        else:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error
        self.wake()
        self._transport.abort()
