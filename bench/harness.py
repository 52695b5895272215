"""Run the fake upstream and the proxies, and load a proxy from a separate process."""

import contextlib
import itertools
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from bench import proxies
from bench.cpu import LOAD_CORE
from bench.job import EXIT_INCOMPLETE, Job, Outcome, StreamRequest
from bench.processes import StartError, make_folder, run_process, wait_for_output
from bench.proxies import Proxy

RATE = 50
"""Tokens per second of a paced answer: slightly faster than people read."""

REQUIRED = ("holdline", "baseline")
"""A run ends if one of these is missing or fails; any other proxy may be missing."""

_GOLDEN_RATIO = 0.6180339887498949


class ProxyError(Exception):
    """A proxy did not deliver every stream in time; the message gives the reason."""


class Harness:
    """The processes of one run.

    Each proxy is started on first use and stopped with `stack`. `rounds` is the number of measured
    rounds, and `baseline` the other checkout of Holdline, if any. `missing` maps the name of each
    proxy that does not run to the reason.
    """

    def __init__(
        self,
        stack: contextlib.ExitStack,
        peers: list[str],
        rounds: int,
        baseline: Path | None = None,
    ) -> None:
        self.rounds = rounds
        self.missing: dict[str, str] = {}
        self._peers = peers
        self.baseline = baseline
        self._stack = stack
        self._running: dict[str, Proxy] = {}
        self._question_numbers = itertools.count()
        log = stack.enter_context(make_folder()) / "log"
        command = [sys.executable, "-m", "bench.upstream"]
        variables = {"PYTHONPATH": str(proxies.ROOT)}
        process = stack.enter_context(run_process(command, LOAD_CORE, log, variables))
        self.upstream_port = int(wait_for_output(process, log, r"^(\d+)\n"))
        self._upstream_pid = process.pid

    def select(self, names: Iterable[str]) -> list[str]:
        """Return the selected proxies among these names, missing ones included."""
        return [name for name in names if name in REQUIRED or name in self._peers]

    def ensure_running(self, names: Iterable[str]) -> list[Proxy]:
        """Start the selected proxies among these names and return those that run."""
        return [proxy for name in self.select(names) if (proxy := self._find_or_start(name))]

    def _find_or_start(self, name: str) -> Proxy | None:
        if name not in self._running and name not in self.missing:
            try:
                self._running[name] = self._stack.enter_context(self.start(name))
            except StartError as reason:
                if name in REQUIRED:
                    raise
                self.missing[name] = str(reason)
        return self._running.get(name)

    def start(self, name: str) -> contextlib.AbstractContextManager[Proxy]:
        """Start another process of the proxy with this name."""
        if name == "baseline":
            assert self.baseline is not None
            return proxies.start_holdline(self.upstream_port, name=name, root=self.baseline)
        return proxies.START[name](self.upstream_port)

    def direct_proxy(self) -> Proxy:
        """Return the fake upstream itself as a proxy: the lower bound for every other."""
        return Proxy("direct", self.upstream_port, [], proxies.build_completion)

    def schedule(self, running: list[Proxy]) -> Iterator[tuple[int, Proxy]]:
        """Yield each proxy once per round, in rotating order: A B C, B C A, …

        Round -1 is the warm-up.
        """
        for number in range(-1, self.rounds):
            at = number % len(running)
            for proxy in running[at:] + running[:at]:
                yield number, proxy

    def next_question(self, tokens: int, rate: int, padding: str = "") -> str:
        """Return a new question, answered with `tokens` at `rate` per second (0: unpaced)."""
        return f"n={tokens} r={rate} question {next(self._question_numbers)} {padding}".strip()

    def build_requests(
        self, proxy: Proxy, count: int, tokens: int, rate: int, within_s: float
    ) -> list[StreamRequest]:
        """Build the requests of `count` new sessions with one question each."""
        return [
            StreamRequest(
                proxy.build_request(self.next_question(tokens, rate), proxy.open_session()),
                at_s,
                tokens,
            )
            for at_s in spread_start_times(count, within_s)
        ]

    def load(
        self,
        proxy: Proxy,
        requests: list[StreamRequest],
        *,
        window: tuple[float, float] = (0, 0),
        probes: int = 0,
        is_sequential: bool = False,
        timeout_s: float = 120,
        with_memory: bool = False,
    ) -> Outcome:
        """Run a Job in a load process; the parameters are its fields. Raises ProxyError."""
        job = Job(
            port=proxy.port,
            requests=requests,
            proxy_pids=proxy.pids,
            upstream_pids=[self._upstream_pid],
            window=window,
            probes=probes,
            is_sequential=is_sequential,
            timeout_s=timeout_s,
            with_memory=with_memory,
        )
        command = [sys.executable, "-m", "bench.load"]
        done = subprocess.run(
            command,
            input=msgspec.json.encode(job),
            cwd=proxies.ROOT,
            capture_output=True,
            check=False,
        )
        if done.returncode == EXIT_INCOMPLETE:
            raise ProxyError(done.stderr.decode().strip())
        if done.returncode:
            raise RuntimeError(f"loading {proxy.name} failed:\n{done.stderr.decode()[-3000:]}")
        return msgspec.json.decode(done.stdout, type=Outcome)

    def stream(
        self,
        proxy: Proxy,
        count: int,
        within_s: float,
        flow_s: float,
        rate: int = RATE,
        *,
        with_memory: bool = False,
    ) -> Outcome:
        """Stream `count` answers that begin within `within_s` and then flow together for `flow_s`.

        The steady part is the time in which all of them flow.
        """
        duration_s = within_s + flow_s
        requests = self.build_requests(proxy, count, int(duration_s * rate), rate, within_s)
        return self.load(
            proxy,
            requests,
            window=(within_s + 0.5, duration_s - 0.1),
            timeout_s=4 * duration_s + 30,
            with_memory=with_memory,
        )


def spread_start_times(count: int, within_s: float) -> list[float]:
    """Spread start times evenly, without a common phase with the token interval.

    They are multiples of the golden ratio, modulo `within_s`.
    """
    return sorted((i * _GOLDEN_RATIO) % 1 * within_s for i in range(count))
