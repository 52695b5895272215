"""The model's stand-in: an OpenAI-compatible server cheap enough not to be what is measured.

The question says what it wants: `n=400 r=50` is an answer of 400 tokens at 50 a second, `r=0` one that comes
as fast as it is taken. Every chunk was encoded beforehand; a token is ` #0000017`, so that a reader can tell
whether one is missing. One thread, one epoll, and one timer for all streams.

    python -m bench.upstream        prints its port on a line of its own and serves until it is killed
"""

import json
import re
import selectors
import socket
import sys
import time
from collections import deque

CHUNK_BYTES = 264
"""Size of one event, as OpenAI's are with their fingerprint and padding."""

_TOKENS_MAX = 20_000
_TICK_S = 0.001
"""Streams that are due within one tick are served in one go: no stream is later than this."""

_WANTED = re.compile(rb"n=(\d+) r=(\d+)")
_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
    b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def token(number: int) -> str:
    """The text of an answer's token."""
    return f" #{number:07d}"


def _event(choices: list[dict[str, object]], **more: object) -> bytes:
    """One event of exactly CHUNK_BYTES, in an HTTP chunk of its own."""
    body: dict[str, object] = {
        "id": "chatcmpl-BenchBenchBenchBenchBench0000",
        "object": "chat.completion.chunk",
        "created": 1_760_000_000,
        "model": "bench",
        "choices": choices,
        **more,
        "obfuscation": "",
    }
    bare = len(json.dumps(body, separators=(",", ":"))) + len("data: \n\n")
    body["obfuscation"] = "x" * (CHUNK_BYTES - bare)
    event = f"data: {json.dumps(body, separators=(',', ':'))}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(event), event)


def _delta(content: str, finish: str | None = None) -> list[dict[str, object]]:
    return [{"index": 0, "delta": {"content": content}, "finish_reason": finish}]


_FIRST = _event(_delta(""))
_TOKENS = [_event(_delta(token(number))) for number in range(_TOKENS_MAX)]
_FINISH = _event(_delta("", "stop"))
_DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def _usage(tokens: int) -> bytes:
    usage = {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": tokens + 9}
    return _event([], usage=usage)


class _Line:
    """One connection, and the answer that it is in the middle of."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.asked = b""
        self.unsent = b""
        self.waits = False
        self.next = 0
        self.tokens = 0
        self.due = 0.0
        self.last = b""
        self.open = True


class Upstream:
    """Serves until its process ends."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.EpollSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        # Streams of one rate fall due in the order in which they were served last: a queue is a timer.
        self._paced: dict[int, deque[_Line]] = {}

    def run(self) -> None:
        """Serve."""
        while True:
            streaming = any(self._paced.values())
            for key, events in self._selector.select(_TICK_S if streaming else None):
                if key.fileobj is self._listener:
                    self._accept()
                elif events & selectors.EVENT_READ:
                    self._read(key.data)
                elif key.data.open:
                    self._write(key.data, b"")
            for rate, lines in self._paced.items():
                self._serve_due(rate, lines)

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._selector.register(sock, selectors.EVENT_READ, _Line(sock))

    def _read(self, line: _Line) -> None:
        try:
            data = line.sock.recv(1 << 20)
        except ConnectionResetError:
            data = b""
        if not data:
            self._close(line)
            return
        line.asked += data
        head, separator, body = line.asked.partition(b"\r\n\r\n")
        if not separator:
            return
        length = re.search(rb"(?i)^content-length: *(\d+)", head, re.MULTILINE)
        if length is not None and len(body) >= int(length[1]):
            line.asked = b""
            self._begin(line, body)

    def _begin(self, line: _Line, body: bytes) -> None:
        wanted = _WANTED.findall(body)[-1]
        line.tokens, rate = int(wanted[0]), int(wanted[1])
        line.next = 0
        line.last = _FINISH + (_usage(line.tokens) if b"include_usage" in body else b"") + _DONE
        if rate == 0:
            self._write(line, b"".join([_HEAD, _FIRST, *_TOKENS[: line.tokens], line.last]))
            return
        self._write(line, _HEAD + _FIRST)
        line.due = time.monotonic()
        # What is due now goes now, ahead of its place in the queue, which it takes from then on.
        self._serve(line, 1 / rate)
        if line.open and line.next <= line.tokens:
            self._paced.setdefault(rate, deque()).append(line)

    def _serve_due(self, rate: int, lines: deque[_Line]) -> None:
        now, interval_s = time.monotonic(), 1 / rate
        while lines and lines[0].due <= now:
            line = lines.popleft()
            if line.open:
                self._serve(line, interval_s)
            if line.open and line.next <= line.tokens:
                lines.append(line)

    def _serve(self, line: _Line, interval_s: float) -> None:
        """Send the line's next token, or what comes after the last."""
        self._write(line, _TOKENS[line.next] if line.next < line.tokens else line.last)
        line.next += 1
        line.due += interval_s

    def _write(self, line: _Line, data: bytes) -> None:
        if line.unsent:
            data, line.unsent = line.unsent + data, b""
        try:
            sent = line.sock.send(data)
        except BlockingIOError:
            sent = 0
        except (ConnectionResetError, BrokenPipeError):
            self._close(line)
            return
        line.unsent = data[sent:]
        if bool(line.unsent) != line.waits:
            line.waits = not line.waits
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if line.waits else 0)
            self._selector.modify(line.sock, wanted, line)

    def _close(self, line: _Line) -> None:
        line.open = False
        self._selector.unregister(line.sock)
        line.sock.close()


if __name__ == "__main__":
    upstream = Upstream()
    sys.stdout.write(f"{upstream.port}\n")
    sys.stdout.flush()
    upstream.run()
