"""Compare this checkout with another one, the baseline, in interleaved pairs.

Each round measures both, and the order alternates between rounds. A ratio is taken within a round,
so that a slow moment of the machine affects both sides of a pair.
"""

import statistics
from collections.abc import Callable, Mapping
from typing import TypeVar

from bench import scenarios
from bench.bed import RATE, Bed
from bench.compare import interleaved, ratios, us
from bench.load import Outcome, Span
from bench.relays import Relay
from bench.report import Table, percentile, spread

MAX_RATIO = 1.05
"""A figure whose median ratio exceeds this is worse than the baseline's."""

T = TypeVar("T")
Figures = Mapping[str, Callable[[T], float]]
"""How each figure of a scenario, for all of which lower is better, is read from one measurement."""


def _worker_us(span: Span) -> float:
    return span.relay_s / span.tokens * 1e6


def _redis_us(span: Span) -> float:
    return span.store_s / span.tokens * 1e6


_FIRST_TOKEN: Figures[Outcome] = {
    "first token p50, ms": lambda o: percentile(o.first_ms, 0.5),
    "first token p99, ms": lambda o: percentile(o.first_ms, 0.99),
}
_PACED: Figures[Outcome] = {
    "CPU, µs per token": lambda o: us(o.steady),
    "of it worker": lambda o: _worker_us(o.steady),
    "of it Redis": lambda o: _redis_us(o.steady),
    "CPU with starts and ends, µs per token": lambda o: us(o.whole),
    "gap p50, ms": lambda o: percentile(o.gaps_ms, 0.5),
    "gap p99, ms": lambda o: percentile(o.gaps_ms, 0.99),
    "longest gap, ms": lambda o: o.gaps_ms[-1],
    **_FIRST_TOKEN,
}
_BURST: Figures[Outcome] = {
    "CPU, µs per token": lambda o: us(o.whole),
    "of it worker": lambda o: _worker_us(o.whole),
    "of it Redis": lambda o: _redis_us(o.whole),
    "last token p99, ms": lambda o: percentile(o.last_ms, 0.99),
    **_FIRST_TOKEN,
}
_RESUME: Figures[Outcome] = {
    "first byte p50, ms": lambda o: percentile(o.first_byte_ms, 0.5),
    "first byte p99, ms": lambda o: percentile(o.first_byte_ms, 0.99),
    "slowest first byte, ms": lambda o: o.first_byte_ms[-1],
    "gap p99 of running answers, ms": lambda o: percentile(o.others_gaps_ms, 0.99),
    "longest gap of running answers, ms": lambda o: o.others_gaps_ms[-1],
}
_MEMORY: Figures[tuple[float, float, float]] = {
    "KiB per stream": lambda kib: kib[0],
    "of it Redis": lambda kib: kib[1],
    "before any stream, KiB": lambda kib: kib[2],
}
_START: Figures[float] = {"first page after, s": lambda seconds: seconds}


def compare(
    bed: Bed, title: str, measure: Callable[[Relay], T], figures: Figures[T], *, warm: bool = True
) -> Table:
    """Measure both checkouts in each round and return the figures of both with their ratio."""
    seen = interleaved(bed, ["holdline", "baseline"], measure, warm=warm)
    table = Table(
        f"{title}, {bed.pairs} pairs",
        ["figure", "this checkout", "baseline", "ratio", f"over {MAX_RATIO}"],
    )
    for name, read in figures.items():
        ours, theirs = ([read(found) for found in seen[which]] for which in seen)
        pairs = ratios(ours, theirs)
        worse = "worse" if statistics.median(pairs) > MAX_RATIO else ""
        table.rows.append([name, spread(ours), spread(theirs), spread(pairs), worse])
    return table


def _compare_paced(count: int) -> Callable[[Bed], Table]:
    return lambda bed: compare(
        bed,
        f"{count} streams at {RATE} tokens per second",
        lambda relay: scenarios.measure_paced(bed, relay, count),
        _PACED,
    )


def _compare_first_token(background: int) -> Callable[[Bed], Table]:
    return lambda bed: compare(
        bed,
        f"First token, next to {background} streams",
        lambda relay: scenarios.measure_first_token(bed, relay, background),
        _FIRST_TOKEN,
    )


COMPARISONS: dict[str, Callable[[Bed], Table]] = {
    "streams-20": _compare_paced(20),
    "streams-100": _compare_paced(100),
    "streams-700": _compare_paced(700),
    "bursts": lambda bed: compare(
        bed, "Unpaced answers", lambda relay: scenarios.measure_burst(bed, relay), _BURST
    ),
    "first-token": _compare_first_token(0),
    "first-token-loaded": _compare_first_token(50),
    "memory": lambda bed: compare(
        bed,
        "Memory per stream",
        lambda relay: scenarios.measure_memory(bed, relay.name),
        _MEMORY,
        warm=False,
    ),
    "start": lambda bed: compare(
        bed,
        "From process start to first page",
        lambda relay: scenarios.measure_start(bed, relay.name),
        _START,
    ),
    "resume": lambda bed: compare(
        bed, "Returning viewers", lambda relay: scenarios.measure_resume(bed, relay), _RESUME
    ),
}
"""Every scenario that can be compared with a baseline, by its name."""
