"""The test bed: the model's stand-in, the relays that are up, and jobs for the viewers."""

import contextlib
import itertools
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from bench import relays
from bench.cpu import LOAD_CORE
from bench.load import Ask, Job, Outcome
from bench.relays import Missing, Relay

RATE = 50
"""Tokens a second of a paced answer: somewhat faster than people read."""

REQUIRED = ("holdline", "baseline")
"""Relays without which a run ends; any other may be missing."""

_BROKE = 3


class Broke(Exception):
    """A relay did not deliver what it must, or not in time; the message says what."""


class Bed:
    """What is up during a run; each relay is started when it is first needed, and ended with the stack."""

    def __init__(
        self,
        stack: contextlib.ExitStack,
        peers: list[str],
        rounds: int,
        baseline: Path | None = None,
    ) -> None:
        self.pairs = rounds
        self._baseline = baseline
        self.missing: dict[str, str] = {}
        self._peers = peers
        self._stack = stack
        self._running: dict[str, Relay] = {}
        self._numbers = itertools.count()
        log = stack.enter_context(relays.home()) / "log"
        command = [sys.executable, "-m", "bench.upstream"]
        where = {"PYTHONPATH": str(relays.ROOT)}
        process = stack.enter_context(relays.running(command, LOAD_CORE, log, **where))
        self.upstream = int(relays.said(process, log, r"^(\d+)\n"))
        self._upstream_pid = process.pid

    def chosen(self, names: Iterable[str]) -> list[str]:
        """Those of these relays that were asked for, on this machine or not; Holdline always."""
        return [name for name in names if name in REQUIRED or name in self._peers]

    def present(self, names: Iterable[str]) -> list[Relay]:
        """Those that were asked for and are up; of the others, `missing` says why."""
        return [relay for name in self.chosen(names) if (relay := self._relay(name))]

    def _relay(self, name: str) -> Relay | None:
        if name not in self._running and name not in self.missing:
            try:
                self._running[name] = self._stack.enter_context(self.start(name))
            except Missing as why:
                if name in REQUIRED:
                    raise
                self.missing[name] = str(why)
        return self._running.get(name)

    def start(self, name: str) -> contextlib.AbstractContextManager[Relay]:
        """Start a new process of the relay with this name."""
        if name == "baseline":
            assert self._baseline is not None
            return relays.holdline(self.upstream, name=name, root=self._baseline)
        return relays.START[name](self.upstream)

    def rounds(self, present: list[Relay]) -> Iterator[tuple[int, Relay]]:
        """Every relay once a round, in an order that moves on: A B C, B C A, … Round -1 warms up."""
        for number in range(-1, self.pairs):
            at = number % len(present)
            for relay in present[at:] + present[:at]:
                yield number, relay

    def question(self, tokens: int, rate: int, padding: str = "") -> str:
        """A question that was not asked before, for so many tokens at so many a second (0: at once)."""
        return f"n={tokens} r={rate} question {next(self._numbers)} {padding}".strip()

    def asks(self, relay: Relay, count: int, tokens: int, rate: int, within_s: float) -> list[Ask]:
        """So many visitors, each with a question."""
        return [
            Ask(relay.request(self.question(tokens, rate), relay.visitor()), at_s, tokens)
            for at_s in moments(count, within_s)
        ]

    def load(
        self,
        relay: Relay,
        asks: list[Ask],
        *,
        window: tuple[float, float] = (0, 0),
        probes: int = 0,
        one_by_one: bool = False,
        patience_s: float = 120,
        weighs: bool = False,
    ) -> Outcome:
        """Have the viewers do a job, in a process of their own. Raises Broke."""
        job = Job(
            relay.port, asks, relay.pids, [self._upstream_pid], window, probes, one_by_one, patience_s, weighs
        )  # fmt: skip
        command = [sys.executable, "-m", "bench.load"]
        done = subprocess.run(
            command,
            input=msgspec.json.encode(job),
            cwd=relays.ROOT,
            capture_output=True,
            check=False,
        )
        if done.returncode == _BROKE:
            raise Broke(done.stderr.decode().strip())
        if done.returncode:
            raise RuntimeError(f"{relay.name} was not loaded:\n{done.stderr.decode()[-3000:]}")
        return msgspec.json.decode(done.stdout, type=Outcome)

    def streams(
        self,
        relay: Relay,
        count: int,
        within_s: float,
        flow_s: float,
        rate: int = RATE,
        *,
        weighs: bool = False,
    ) -> Outcome:
        """So many answers at `rate`, begun within `within_s`; the steady part is when all of them flow."""
        lasts_s = within_s + flow_s
        asks = self.asks(relay, count, int(lasts_s * rate), rate, within_s)
        window = (within_s + 0.5, lasts_s - 0.1)
        return self.load(relay, asks, window=window, patience_s=4 * lasts_s + 30, weighs=weighs)

    @contextlib.contextmanager
    def direct(self) -> Iterator[Relay]:
        """The model's stand-in itself, as if it were a relay: what no relay can be faster than."""
        yield Relay("direct", self.upstream, [], relays.completion)


def moments(count: int, within_s: float) -> list[float]:
    """When streams begin: spread evenly, yet in no step with their tokens (multiples of the golden ratio)."""
    return sorted((i * 0.6180339887498949) % 1 * within_s for i in range(count))


def seed(redis_url: str, visitor: str, messages: list[dict[str, str]]) -> None:
    """Give a visitor of a plain handler a conversation, in the form in which that keeps it."""
    from redis import Redis

    with Redis.from_url(redis_url) as redis:
        redis.set(f"chat:{visitor}", json.dumps(messages))
