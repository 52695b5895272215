"""The viewers: opens streams by raw sockets, keeps what comes with its time, and judges it when all is over.

While it measures it does nothing but receive: what was received is taken apart only afterwards, and every
frame must be there, whole and in order. It also reads the clocks of the processes that it loads, at the very
moments between which it counts frames.

    python -m bench.load        takes a Job as JSON on its standard input and prints an Outcome
"""

import bisect
import itertools
import os
import re
import selectors
import socket
import sys
import time
from collections.abc import Iterator

import msgspec

from bench import cpu
from bench.upstream import token
from chat.event_stream import Event, EventDecoder

_LAST_CHUNK = b"\r\n0\r\n\r\n"
LAST_ID = "@LAST_ID@"
_MARK = b"#"
"""Stands in every token once, and nowhere else in a head or a frame."""


class Ask(msgspec.Struct):
    """One stream to open: the request's bytes, when (seconds after the start), how many tokens must come.

    A viewer that comes back has `viewed` so many tokens of the stream `resumes` (its place among the asks),
    and those with which its last frame goes on; that frame's id takes the place of LAST_ID in the request.
    """

    request: str
    at_s: float
    tokens: int
    viewed: int = 0
    resumes: int | None = None


class Job(msgspec.Struct):
    """What to ask, of whom; which processes' clocks to read; `window` bounds the steady part, in seconds.

    Of the last `probes` asks, and of them alone, the Outcome's times tell; `one_by_one` has each of them wait
    until the one before it has ended. Without any, the times are those of all. `weighs`: to read what the
    relay's memory holds takes tens of milliseconds, so that the times of such a job are not to be trusted.
    """

    port: int
    asks: list[Ask]
    relay: list[int]
    upstream: list[int]
    window: tuple[float, float] = (0, 0)
    probes: int = 0
    one_by_one: bool = False
    patience_s: float = 60
    weighs: bool = False


class Span(msgspec.Struct):
    """What was used and delivered between two moments; CPU in seconds.

    `waited_s` is how long the viewers and the model's stand-in waited for their core.
    """

    wall_s: float
    tokens: int
    relay_s: float
    store_s: float
    upstream_s: float
    load_s: float
    waited_s: float


class Outcome(msgspec.Struct):
    """What the viewers saw. Times are sorted, and counted from the moment each viewer knocks.

    A gap is the time between two reads with tokens. `memory` is what the relay and its Redis held, in bytes,
    before the first ask and at the end of the window, if the job wants to know.
    """

    whole: Span
    steady: Span
    first_byte_ms: list[float]
    first_ms: list[float]
    last_ms: list[float]
    gaps_ms: list[float]
    others_gaps_ms: list[float]
    memory: list[tuple[int, int]]


class Undelivered(Exception):
    """A stream was not what it must be; the message says which and how."""


class _Stream:
    """One stream: its socket, and what came when."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.sock: socket.socket
        self.sent = 0.0
        self.unsent = b""
        self.parts: list[bytes] = []
        self.times: list[float] = []
        self.tail = b""


class Viewers:
    """Runs one job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._streams = [_Stream(ask) for ask in job.asks]
        self._selector = selectors.EpollSelector()
        self._open: set[_Stream] = set()
        self._marks: list[tuple[float, list[float]]] = []
        self._memory: list[tuple[int, int]] = []

    def run(self) -> Outcome:
        """Open, receive and judge; raises Undelivered, and TimeoutError when the streams do not end."""
        begun = time.monotonic()
        moments = [begun + moment for moment in self._job.window]
        self._mark()
        opened = marked = 0
        while opened < len(self._streams) or self._open or marked < len(moments):
            now = time.monotonic()
            if now > begun + self._job.patience_s:
                raise TimeoutError(f"{len(self._open)} of {len(self._streams)} streams did not end")
            while opened < len(self._streams) and self._may_open(opened, now - begun):
                self._connect(self._streams[opened])
                opened += 1
                self._receive(0)
            if marked < len(moments) and moments[marked] <= now:
                self._mark()
                marked += 1
            coming = [begun + stream.ask.at_s for stream in self._streams[opened : opened + 1]]
            coming = [moment for moment in coming if moment > now] + moments[marked : marked + 1]
            self._receive(max(0.0, min([*coming, now + 1.0]) - time.monotonic()))
        self._mark()
        return self._judge()

    def _may_open(self, number: int, elapsed_s: float) -> bool:
        if self._streams[number].ask.at_s > elapsed_s:
            return False
        alone = self._job.one_by_one and number > len(self._streams) - self._job.probes
        return not (alone and self._streams[number - 1] in self._open)

    def _mark(self) -> None:
        if self._job.weighs:
            held = [cpu.memory_bytes(pid) for pid in self._job.relay]
            self._memory.append(
                (int(sum(kept for kept, _ in held)), int(sum(kept for _, kept in held)))
            )
        spent = [cpu.spent_s(pid) for pid in self._job.relay]
        ours, store = sum(used for used, _ in spent), sum(used for _, used in spent)
        upstream = sum(cpu.spent_s(pid)[0] for pid in self._job.upstream)
        waited = sum(map(cpu.waited_s, [os.getpid(), *self._job.upstream]))
        self._marks.append((time.monotonic(), [ours, store, upstream, time.process_time(), waited]))

    def _connect(self, stream: _Stream) -> None:
        request = stream.ask.request
        if stream.ask.resumes is not None:
            last_id, stream.ask.viewed = self._seen(stream.ask.resumes, stream.ask.viewed)
            request = request.replace(LAST_ID, last_id)
        stream.unsent = request.encode("latin-1")
        stream.sock = socket.socket()
        stream.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A server that is slow to accept holds up this viewer and no other.
        stream.sock.setblocking(False)
        stream.sent = time.monotonic()
        stream.sock.connect_ex(("127.0.0.1", self._job.port))
        self._selector.register(stream.sock, selectors.EVENT_WRITE, stream)
        self._open.add(stream)

    def _ask(self, stream: _Stream) -> None:
        """Send the request of a stream that is connected, or as much of it as goes."""
        stream.unsent = stream.unsent[stream.sock.send(stream.unsent) :]
        if not stream.unsent:
            self._selector.modify(stream.sock, selectors.EVENT_READ, stream)

    def _seen(self, number: int, viewed: int) -> tuple[str, int]:
        """The id of the frame with the last of a stream's first `viewed` tokens, and how many it makes."""
        frame = rb"id: (\S+)\ndata: ([^\n]*%b[^\n]*)\n" % token(viewed - 1).encode()
        found = re.search(frame, b"".join(self._streams[number].parts))
        if found is None:
            raise Undelivered(
                f"stream {number} has not shown {viewed} tokens in time to be resumed"
            )
        return found[1].decode(), viewed + found[2].partition(token(viewed - 1).encode())[2].count(
            _MARK
        )

    def _receive(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            stream: _Stream = key.data
            if stream.unsent:
                self._ask(stream)
                continue
            try:
                data = stream.sock.recv(1 << 18)
            except ConnectionResetError:
                data = b""
            if data:
                stream.times.append(time.monotonic())
                stream.parts.append(data)
                stream.tail = (stream.tail + data)[-len(_LAST_CHUNK) :]
            if not data or stream.tail == _LAST_CHUNK:
                self._selector.unregister(stream.sock)
                stream.sock.close()
                self._open.remove(stream)

    def _judge(self) -> Outcome:
        moments: list[float] = []
        arrivals: list[list[float]] = []
        for number, stream in enumerate(self._streams):
            try:
                check(b"".join(stream.parts), stream.ask)
            except Undelivered as error:
                raise Undelivered(f"stream {number}: {error}") from None
            arrivals.append(list(_arrivals(stream)))
            moments += arrivals[-1]
        moments.sort()
        told = len(self._streams) - self._job.probes if self._job.probes else 0
        probes = list(zip(self._streams, arrivals, strict=True))[told:]
        return Outcome(
            whole=self._span(0, -1, moments),
            steady=self._span(1, 2, moments),
            first_byte_ms=sorted((stream.times[0] - stream.sent) * 1000 for stream, _ in probes),
            first_ms=sorted((times[0] - stream.sent) * 1000 for stream, times in probes),
            last_ms=sorted((stream.times[-1] - stream.sent) * 1000 for stream, _ in probes),
            gaps_ms=_gaps_ms(arrivals[told:]),
            others_gaps_ms=_gaps_ms(arrivals[:told]),
            memory=self._memory[0:3:2],
        )

    def _span(self, begin: int, end: int, times: list[float]) -> Span:
        (since, before), (until, after) = self._marks[begin], self._marks[end]
        tokens = bisect.bisect(times, until) - bisect.bisect(times, since)
        return Span(until - since, tokens, *(b - a for a, b in zip(before, after, strict=True)))


def _gaps_ms(arrivals: list[list[float]]) -> list[float]:
    reads = (sorted(set(times)) for times in arrivals)
    return sorted(
        (after - before) * 1000 for times in reads for before, after in itertools.pairwise(times)
    )


def _arrivals(stream: _Stream) -> Iterator[float]:
    """When each token came; what a last frame repeats of them is none."""
    left = stream.ask.tokens - stream.ask.viewed
    for moment, part in zip(stream.times, stream.parts, strict=True):
        count = min(left, part.count(_MARK))
        left -= count
        yield from [moment] * count


def check(raw: bytes, ask: Ask) -> None:
    """Raise Undelivered unless these bytes are a whole answer, in order, with its peer's own ending."""
    head, separator, body = raw.partition(b"\r\n\r\n")
    if not separator or not head.startswith(b"HTTP/1.1 200"):
        raise Undelivered(f"answered {raw[:300]!r}")
    if re.search(rb"(?i)^transfer-encoding: *chunked", head, re.MULTILINE):
        body = b"".join(_dechunk(body))
    events = list(EventDecoder().feed(body))
    expected = "".join(map(token, range(ask.viewed, ask.tokens)))
    ending = events[-1] if events else Event("", "", "")
    if ending.data == "[DONE]":
        text = "".join(map(_openai_text, events[:-1]))
    elif ending.name == "end":
        text = "".join(event.data for event in events if event.name == "message")
        if ending.data not in ("", "".join(map(token, range(ask.tokens)))):
            raise Undelivered(f"the last frame holds another answer: {ending.data[:200]!r}")
    else:
        raise Undelivered(f"it ended with {body[-200:]!r}")
    if text != expected:
        at = next(
            (i for i, pair in enumerate(zip(text, expected, strict=False)) if pair[0] != pair[1]),
            len(text),
        )
        raise Undelivered(
            f"{len(text)} of {len(expected)} characters, and wrong from {at} on: {text[at:][:80]!r}"
        )


def _dechunk(body: bytes) -> Iterator[bytes]:
    """The parts of a chunked body (RFC 9112 §7.1), which must be whole."""
    at = 0
    while True:
        end = body.find(b"\r\n", at)
        if end < 0:
            raise Undelivered("the body broke off")
        size = int(body[at:end].partition(b";")[0], 16)
        at = end + 2 + size
        if body[at : at + 2] != b"\r\n":
            raise Undelivered("the body broke off")
        if size == 0:
            return
        yield body[end + 2 : at]
        at += 2


def _openai_text(event: Event) -> str:
    chunk = msgspec.json.decode(event.data)
    return "".join(choice["delta"].get("content") or "" for choice in chunk["choices"][:1])


def main() -> int:
    """Do one job; status 3 when the streams did not end in time, or not as they must."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    try:
        outcome = Viewers(job).run()
    except (TimeoutError, Undelivered) as error:
        print(error, file=sys.stderr)
        return 3
    sys.stdout.buffer.write(msgspec.json.encode(outcome))
    return 0


if __name__ == "__main__":
    sys.exit(main())
