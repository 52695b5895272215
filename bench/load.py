"""Open streams over raw sockets, record each read with its time, and verify them afterwards.

During the measurement the process only receives; it parses and verifies the bytes when all streams
have ended. It also reads the CPU clocks of the loaded processes, at the same moments between which
it counts tokens.

    python -m bench.load        reads a Job as JSON from standard input and prints an Outcome
"""

import bisect
import itertools
import os
import re
import selectors
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from bench import cpu
from bench.job import (
    EXIT_INCOMPLETE,
    LAST_ID,
    IncompleteStream,
    Job,
    Outcome,
    Span,
    StreamRequest,
)
from bench.upstream import format_token
from bench.verify import verify

_LAST_CHUNK = b"\r\n0\r\n\r\n"
_TOKEN_MARK = b"#"
"""Occurs once in every token and nowhere else in headers or frames."""


class _Snapshot(NamedTuple):
    """The time, and the CPU seconds used so far; the fields are those of Span."""

    at: float
    proxy_s: float
    redis_s: float
    upstream_s: float
    load_s: float
    waited_s: float


class _Stream:
    """One stream: its socket, and the bytes and time of each read."""

    def __init__(self, request: StreamRequest) -> None:
        self.request = request
        self.sock: socket.socket
        self.opened_at = 0.0
        self.unsent = b""
        self.reads: list[bytes] = []
        self.read_times: list[float] = []
        self.tail = b""

    def ms_since_opened(self, at: float) -> float:
        """Return the milliseconds from the connection attempt to `at`."""
        return (at - self.opened_at) * 1000


class Load:
    """Runs one job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._streams = [_Stream(request) for request in job.requests]
        self._selector = selectors.EpollSelector()
        self._begun_at = 0.0
        self._opened = 0
        self._open: set[_Stream] = set()
        self._snapshots: list[_Snapshot] = []
        self._memory: list[tuple[int, int]] = []

    def run(self) -> Outcome:
        """Open, receive and verify all streams.

        Raises IncompleteStream, and TimeoutError if the streams do not end in time.
        """
        self._begun_at = time.monotonic()
        marks = [self._begun_at + at_s for at_s in self._job.window]
        self._take_snapshot()
        while self._opened < len(self._streams) or self._open or marks:
            now = time.monotonic()
            self._check_timeout(now)
            self._open_due_streams(now)
            if marks and marks[0] <= now:
                self._take_snapshot()
                marks.pop(0)
            self._receive(self._choose_wait_s(now, marks[:1]))
        self._take_snapshot()
        return self._evaluate()

    def _check_timeout(self, now: float) -> None:
        if now > self._begun_at + self._job.timeout_s:
            count = f"{len(self._open)} of {len(self._streams)}"
            raise TimeoutError(f"{count} streams did not end within {self._job.timeout_s:.0f} s")

    def _open_due_streams(self, now: float) -> None:
        while self._opened < len(self._streams) and self._may_open_next(now):
            self._connect(self._streams[self._opened])
            self._opened += 1
            self._receive(0)

    def _may_open_next(self, now: float) -> bool:
        number = self._opened
        if self._begun_at + self._streams[number].request.at_s > now:
            return False
        first_probe = len(self._streams) - self._job.probes
        must_wait = self._job.is_sequential and number > first_probe
        return not (must_wait and self._streams[number - 1] in self._open)

    def _choose_wait_s(self, now: float, marks: list[float]) -> float:
        """Return how long a read may wait: until the next stream or mark, at most a second."""
        unopened = self._streams[self._opened : self._opened + 1]
        due = [self._begun_at + stream.request.at_s for stream in unopened]
        next_times = [at for at in due if at > now] + marks
        return max(0.0, min([*next_times, now + 1.0]) - time.monotonic())

    def _take_snapshot(self) -> None:
        if self._job.with_memory:
            proxy, redis = _sum_totals(map(cpu.read_memory_bytes, self._job.proxy_pids))
            self._memory.append((int(proxy), int(redis)))
        proxy_s, redis_s = _sum_totals(map(cpu.read_cpu_s, self._job.proxy_pids))
        upstream_s = _sum_totals(map(cpu.read_cpu_s, self._job.upstream_pids)).proxy
        waited_s = sum(map(cpu.read_runnable_s, [os.getpid(), *self._job.upstream_pids]))
        at, load_s = time.monotonic(), time.process_time()
        self._snapshots.append(_Snapshot(at, proxy_s, redis_s, upstream_s, load_s, waited_s))

    def _connect(self, stream: _Stream) -> None:
        http = stream.request.http
        if stream.request.resumes is not None:
            last_id = self._resume(stream.request, self._streams[stream.request.resumes])
            http = http.replace(LAST_ID, last_id)
        stream.unsent = http.encode("latin-1")
        stream.sock = socket.socket()
        stream.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Nonblocking: a server that is slow to accept delays this viewer only.
        stream.sock.setblocking(False)
        stream.opened_at = time.monotonic()
        stream.sock.connect_ex(("127.0.0.1", self._job.port))
        self._selector.register(stream.sock, selectors.EVENT_WRITE, stream)
        self._open.add(stream)

    def _resume(self, request: StreamRequest, resumed: _Stream) -> str:
        """Return the id of the frame that holds the last viewed token.

        A frame can hold further tokens, so `request.viewed` becomes the number of the last of them.
        """
        last = format_token(request.viewed - 1).encode()
        found = re.search(rb"data: ([^\n]*%b[^\n]*)\nid: (\S+)\n" % last, b"".join(resumed.reads))
        if found is None:
            number = request.resumes
            raise IncompleteStream(
                f"stream {number} has not delivered {request.viewed} tokens in time to be resumed"
            )
        request.viewed += found[1].partition(last)[2].count(_TOKEN_MARK)
        return found[2].decode()

    def _send(self, stream: _Stream) -> None:
        """Send as much of the request as the socket accepts."""
        stream.unsent = stream.unsent[stream.sock.send(stream.unsent) :]
        if not stream.unsent:
            self._selector.modify(stream.sock, selectors.EVENT_READ, stream)

    def _receive(self, timeout_s: float) -> None:
        for key, _ in self._selector.select(timeout_s):
            stream: _Stream = key.data
            if stream.unsent:
                self._send(stream)
                continue
            try:
                data = stream.sock.recv(1 << 18)
            except ConnectionResetError:
                data = b""
            if data:
                stream.read_times.append(time.monotonic())
                stream.reads.append(data)
                stream.tail = (stream.tail + data)[-len(_LAST_CHUNK) :]
            if not data or stream.tail == _LAST_CHUNK:
                self._selector.unregister(stream.sock)
                stream.sock.close()
                self._open.remove(stream)

    def _evaluate(self) -> Outcome:
        self._verify_streams()
        arrivals = [list(_iterate_arrivals(stream)) for stream in self._streams]
        all_arrivals = sorted(itertools.chain.from_iterable(arrivals))
        first = len(self._streams) - self._job.probes if self._job.probes else 0
        probes = self._streams[first:]
        return Outcome(
            total=self._make_span(0, -1, all_arrivals),
            steady=self._make_span(1, 2, all_arrivals),
            first_byte_ms=sorted(s.ms_since_opened(s.read_times[0]) for s in probes),
            first_token_ms=sorted(
                s.ms_since_opened(times[0])
                for s, times in zip(probes, arrivals[first:], strict=True)
            ),
            last_ms=sorted(s.ms_since_opened(s.read_times[-1]) for s in probes),
            gaps_ms=_measure_gaps_ms(arrivals[first:]),
            background_gaps_ms=_measure_gaps_ms(arrivals[:first]),
            memory=self._memory[0:3:2],
        )

    def _verify_streams(self) -> None:
        for number, stream in enumerate(self._streams):
            try:
                verify(b"".join(stream.reads), stream.request)
            except IncompleteStream as error:
                raise IncompleteStream(f"stream {number}: {error}") from None

    def _make_span(self, first: int, last: int, arrivals: list[float]) -> Span:
        before, after = self._snapshots[first], self._snapshots[last]
        tokens = bisect.bisect(arrivals, after.at) - bisect.bisect(arrivals, before.at)
        wall_s, *used_s = (b - a for a, b in zip(before, after, strict=True))
        return Span(wall_s, tokens, *used_s)


def _sum_totals(totals: Iterable[cpu.Totals]) -> cpu.Totals:
    proxy = redis = 0.0
    for each in totals:
        proxy += each.proxy
        redis += each.redis
    return cpu.Totals(proxy, redis)


def _iterate_arrivals(stream: _Stream) -> Iterator[float]:
    """Yield when each token arrived; tokens that the last frame repeats are ignored."""
    left = stream.request.tokens - stream.request.viewed
    for at, data in zip(stream.read_times, stream.reads, strict=True):
        count = min(left, data.count(_TOKEN_MARK))
        left -= count
        yield from [at] * count


def _measure_gaps_ms(arrivals: list[list[float]]) -> list[float]:
    reads = (sorted(set(times)) for times in arrivals)
    return sorted(
        (after - before) * 1000 for times in reads for before, after in itertools.pairwise(times)
    )


def main() -> int:
    """Run one job; returns EXIT_INCOMPLETE if the streams were incomplete or late."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    try:
        outcome = Load(job).run()
    except (TimeoutError, IncompleteStream) as error:
        print(error, file=sys.stderr)
        return EXIT_INCOMPLETE
    sys.stdout.buffer.write(msgspec.json.encode(outcome))
    return 0


if __name__ == "__main__":
    sys.exit(main())
