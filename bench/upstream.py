"""Serve a fake OpenAI-compatible API that is cheap enough not to distort the measurement.

The question selects the answer: `n=400 r=50` requests 400 tokens at 50 per second, and `r=0` as
fast as the client reads. All chunks are encoded at startup. A token is ` #0000017`, so that the
load can detect a missing one. One thread, one epoll and one timer serve all streams.

    python -m bench.upstream        prints its port on one line and serves until it is killed
"""

import json
import re
import selectors
import socket
import sys
import time
from collections import deque

EVENT_BYTES = 264
"""Size of one event, as OpenAI's are with their fingerprint and padding."""

_MAX_TOKENS = 20_000
_TICK_S = 0.001
"""Streams that are due within one tick are served together: the largest delay of a token."""

_PARAMETERS = re.compile(rb"n=(\d+) r=(\d+)")
_HEADERS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def format_token(number: int) -> str:
    """Return the text of an answer's token."""
    return f" #{number:07d}"


def _encode_event(choices: list[dict[str, object]], **more: object) -> bytes:
    """Encode one event of exactly EVENT_BYTES as one HTTP chunk."""
    body: dict[str, object] = {
        "id": "chatcmpl-BenchBenchBenchBenchBench0000",
        "object": "chat.completion.chunk",
        "created": 1_760_000_000,
        "model": "bench",
        "choices": choices,
        **more,
        "obfuscation": "",
    }
    unpadded = len(json.dumps(body, separators=(",", ":"))) + len("data: \n\n")
    body["obfuscation"] = "x" * (EVENT_BYTES - unpadded)
    event = f"data: {json.dumps(body, separators=(',', ':'))}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(event), event)


def _make_choices(content: str, finish: str | None = None) -> list[dict[str, object]]:
    return [{"index": 0, "delta": {"content": content}, "finish_reason": finish}]


_FIRST = _encode_event(_make_choices(""))
_TOKENS = [_encode_event(_make_choices(format_token(number))) for number in range(_MAX_TOKENS)]
_FINISH = _encode_event(_make_choices("", "stop"))
_DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def _encode_usage(tokens: int) -> bytes:
    usage = {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": tokens + 9}
    return _encode_event([], usage=usage)


class _Connection:
    """One client connection, and the answer being sent on it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = b""
        self.unsent = b""
        self.is_blocked = False
        self.next_token = 0
        self.tokens = 0
        self.due_at = 0.0
        self.ending = b""
        self.is_open = True

    @property
    def has_more(self) -> bool:
        """Whether tokens or the ending must still be sent."""
        return self.is_open and self.next_token <= self.tokens


class Upstream:
    """Serves until its process is killed."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.EpollSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        # Streams of one rate fall due in the order of their last token: a queue is a timer.
        self._paced: dict[int, deque[_Connection]] = {}

    def run(self) -> None:
        """Serve all connections."""
        while True:
            is_streaming = any(self._paced.values())
            for key, events in self._selector.select(_TICK_S if is_streaming else None):
                if key.fileobj is self._listener:
                    self._accept()
                elif events & selectors.EVENT_READ:
                    self._read(key.data)
                elif key.data.is_open:
                    self._write(key.data, b"")
            for rate, queue in self._paced.items():
                self._send_due(rate, queue)

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(sock, selectors.EVENT_READ, _Connection(sock))

    def _read(self, connection: _Connection) -> None:
        try:
            data = connection.sock.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        if not data:
            self._close(connection)
            return
        connection.received += data
        headers, separator, body = connection.received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = re.search(rb"(?i)^content-length: *(\d+)", headers, re.MULTILINE)
        if length is not None and len(body) >= int(length[1]):
            connection.received = b""
            self._begin(connection, body)

    def _begin(self, connection: _Connection, body: bytes) -> None:
        tokens, rate = map(int, _PARAMETERS.findall(body)[-1])
        usage = _encode_usage(tokens) if b"include_usage" in body else b""
        connection.tokens, connection.next_token = tokens, 0
        connection.ending = _FINISH + usage + _DONE
        if rate == 0:
            answer = [_HEADERS, _FIRST, *_TOKENS[:tokens], connection.ending]
            self._write(connection, b"".join(answer))
            return
        self._write(connection, _HEADERS + _FIRST)
        connection.due_at = time.monotonic()
        # The first token is due now: send it before the connection joins the end of the queue.
        self._send_next(connection, 1 / rate)
        if connection.has_more:
            self._paced.setdefault(rate, deque()).append(connection)

    def _send_due(self, rate: int, queue: deque[_Connection]) -> None:
        now, interval_s = time.monotonic(), 1 / rate
        while queue and queue[0].due_at <= now:
            connection = queue.popleft()
            if connection.is_open:
                self._send_next(connection, interval_s)
            if connection.has_more:
                queue.append(connection)

    def _send_next(self, connection: _Connection, interval_s: float) -> None:
        """Send the next token, or the ending after the last one."""
        number = connection.next_token
        self._write(
            connection, _TOKENS[number] if number < connection.tokens else connection.ending
        )
        connection.next_token += 1
        connection.due_at += interval_s

    def _write(self, connection: _Connection, data: bytes) -> None:
        if connection.unsent:
            data, connection.unsent = connection.unsent + data, b""
        try:
            sent = connection.sock.send(data)
        except BlockingIOError:
            sent = 0
        except (ConnectionResetError, BrokenPipeError):
            self._close(connection)
            return
        connection.unsent = data[sent:]
        if bool(connection.unsent) != connection.is_blocked:
            connection.is_blocked = not connection.is_blocked
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if connection.is_blocked else 0)
            self._selector.modify(connection.sock, events, connection)

    def _close(self, connection: _Connection) -> None:
        connection.is_open = False
        self._selector.unregister(connection.sock)
        connection.sock.close()


if __name__ == "__main__":
    upstream = Upstream()
    sys.stdout.write(f"{upstream.port}\n")
    sys.stdout.flush()
    upstream.run()
