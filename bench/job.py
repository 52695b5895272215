"""Define the messages between the harness and the load process: a Job, and its Outcome."""

import msgspec

LAST_ID = "@LAST_ID@"
"""Placeholder in a reconnecting viewer's request for the id of the last frame it received."""

EXIT_INCOMPLETE = 3
"""Exit status of the load process if a stream was incomplete or did not end in time."""


class IncompleteStream(Exception):
    """A stream is not the complete answer; the message names the stream and the difference."""


class StreamRequest(msgspec.Struct):
    """One stream to open, `at_s` seconds after the start, whose answer has `tokens` tokens.

    A returning viewer reads the stream whose index among the requests is `resumes`, after its first
    `viewed` tokens and the rest of the frame that holds the last of them. The id of that frame
    replaces LAST_ID in `http`.
    """

    http: str
    """The bytes of the HTTP request, as Latin-1."""
    at_s: float
    tokens: int
    viewed: int = 0
    resumes: int | None = None


class Job(msgspec.Struct):
    """The streams to open on a port, and the processes to read the CPU clocks of.

    `window` bounds the steady part, in seconds after the start. If `probes` is not 0, the times of
    the Outcome are those of the last `probes` requests only; if `is_sequential`, each of them waits
    until the previous one has ended. With `with_memory` the load reads the proxy's memory, which
    takes tens of milliseconds: the times of such a job are not reliable.
    """

    port: int
    requests: list[StreamRequest]
    proxy_pids: list[int]
    upstream_pids: list[int]
    window: tuple[float, float] = (0, 0)
    probes: int = 0
    is_sequential: bool = False
    timeout_s: float = 60
    with_memory: bool = False


class Span(msgspec.Struct):
    """The tokens delivered and the CPU seconds used between two snapshots.

    `load_s` is the CPU time of the load process. `waited_s` is the time that the load and the fake
    upstream were runnable while their core was busy.
    """

    wall_s: float
    tokens: int
    proxy_s: float
    redis_s: float
    upstream_s: float
    load_s: float
    waited_s: float

    @property
    def cpu_s(self) -> float:
        """CPU seconds of the proxy and its Redis."""
        return self.proxy_s + self.redis_s

    @property
    def us_per_token(self) -> float:
        """CPU microseconds per token of the proxy and its Redis."""
        return self.cpu_s / self.tokens * 1e6

    @property
    def proxy_us_per_token(self) -> float:
        """CPU microseconds per token of the proxy alone: all processes but Redis."""
        return self.proxy_s / self.tokens * 1e6

    @property
    def redis_us_per_token(self) -> float:
        """CPU microseconds per token of the proxy's Redis."""
        return self.redis_s / self.tokens * 1e6


class Outcome(msgspec.Struct):
    """The figures of a job. Times are sorted, and counted from each viewer's connection attempt.

    A gap is the time between two reads with tokens. `memory` holds the bytes of the proxy and of
    its Redis, before the first request and at the end of the window, if the job wants them.
    """

    total: Span
    steady: Span
    first_byte_ms: list[float]
    first_token_ms: list[float]
    last_ms: list[float]
    gaps_ms: list[float]
    background_gaps_ms: list[float]
    """Gaps of the streams that are not probes."""
    memory: list[tuple[int, int]]
