"""Compare this checkout with another one, the baseline, in interleaved pairs.

Each round measures both, in alternating order, and a ratio is taken within a round, so that a
slowdown of the machine affects both sides of a pair.
"""

import statistics
from collections.abc import Callable, Mapping
from typing import TypeVar

from bench.compare import compute_ratios, measure_interleaved
from bench.harness import RATE, Harness
from bench.job import Outcome, Span
from bench.measurements import (
    Memory,
    measure_burst,
    measure_first_token,
    measure_memory,
    measure_paced,
    measure_resume,
    measure_start,
)
from bench.proxies import Proxy
from bench.report import Table, describe_commit, find_percentile, format_spread

MAX_RATIO = 1.05
"""A figure whose median ratio exceeds this is worse than the baseline's."""

T = TypeVar("T")
Figures = Mapping[str, Callable[[T], float]]
"""How to read each figure of a measurement. Lower is better for all figures."""


def _make_cpu_figures(read_span: Callable[[Outcome], Span]) -> Figures[Outcome]:
    return {
        "CPU, µs per token": lambda o: read_span(o).us_per_token,
        "of it worker": lambda o: read_span(o).proxy_us_per_token,
        "of it Redis": lambda o: read_span(o).redis_us_per_token,
    }


_FIRST_TOKEN: Figures[Outcome] = {
    "first token p50, ms": lambda o: find_percentile(o.first_token_ms, 0.5),
    "first token p99, ms": lambda o: find_percentile(o.first_token_ms, 0.99),
}
_PACED: Figures[Outcome] = {
    **_make_cpu_figures(lambda o: o.steady),
    "CPU with starts and ends": lambda o: o.total.us_per_token,
    "gap p50, ms": lambda o: find_percentile(o.gaps_ms, 0.5),
    "gap p99, ms": lambda o: find_percentile(o.gaps_ms, 0.99),
    "longest gap, ms": lambda o: o.gaps_ms[-1],
    **_FIRST_TOKEN,
}
_BURST: Figures[Outcome] = {
    **_make_cpu_figures(lambda o: o.total),
    "end p99, ms": lambda o: find_percentile(o.last_ms, 0.99),
    **_FIRST_TOKEN,
}
_RESUME: Figures[Outcome] = {
    "first byte p50, ms": lambda o: find_percentile(o.first_byte_ms, 0.5),
    "first byte p99, ms": lambda o: find_percentile(o.first_byte_ms, 0.99),
    "slowest first byte, ms": lambda o: o.first_byte_ms[-1],
    "gap p99 of running answers, ms": lambda o: find_percentile(o.background_gaps_ms, 0.99),
    "longest gap of running answers, ms": lambda o: o.background_gaps_ms[-1],
}
_MEMORY: Figures[Memory] = {
    "KiB per stream": lambda memory: memory.per_stream,
    "of it Redis": lambda memory: memory.redis_per_stream,
    "before any stream, KiB": lambda memory: memory.before,
}
_START: Figures[float] = {"first page after, s": lambda seconds: seconds}


def compare(
    harness: Harness,
    title: str,
    measure: Callable[[Proxy], T],
    figures: Figures[T],
    *,
    warm_up: bool = True,
) -> Table:
    """Measure both checkouts in each round; returns the figures of both and their ratios."""
    assert harness.baseline is not None
    results = measure_interleaved(harness, ["holdline", "baseline"], measure, warm_up=warm_up)
    commit = describe_commit(harness.baseline)
    table = Table(
        title,
        ["figure", "this checkout", f"baseline {commit}", "ratio", "verdict"],
        note=f"Medians (minimum to maximum) of {harness.rounds} pairs. “Worse” is a median ratio "
        f"over {MAX_RATIO}.",
    )
    for name, read in figures.items():
        ours, theirs = (list(map(read, results[side])) for side in ("holdline", "baseline"))
        ratios = compute_ratios(ours, theirs)
        verdict = "worse" if statistics.median(ratios) > MAX_RATIO else ""
        spreads = map(format_spread, (ours, theirs, ratios))
        table.rows.append([name, *spreads, verdict])
    return table


def _compare_paced(count: int) -> Callable[[Harness], Table]:
    return lambda harness: compare(
        harness,
        f"{count} streams at {RATE} tokens per second",
        lambda proxy: measure_paced(harness, proxy, count),
        _PACED,
    )


def _compare_first_token(background: int) -> Callable[[Harness], Table]:
    return lambda harness: compare(
        harness,
        f"First token with {background} other streams",
        lambda proxy: measure_first_token(harness, proxy, background),
        _FIRST_TOKEN,
    )


def _compare_bursts(harness: Harness) -> Table:
    return compare(harness, "Unpaced answers", lambda proxy: measure_burst(harness, proxy), _BURST)


def _compare_memory(harness: Harness) -> Table:
    return compare(
        harness,
        "Memory per stream",
        lambda proxy: measure_memory(harness, proxy.name),
        _MEMORY,
        warm_up=False,
    )


def _compare_start(harness: Harness) -> Table:
    title = "From process start to the first page"
    return compare(harness, title, lambda proxy: measure_start(harness, proxy.name), _START)


def _compare_resume(harness: Harness) -> Table:
    title = "Returning viewers"
    return compare(harness, title, lambda proxy: measure_resume(harness, proxy), _RESUME)


COMPARISONS: dict[str, Callable[[Harness], Table]] = {
    "streams-20": _compare_paced(20),
    "streams-100": _compare_paced(100),
    "streams-700": _compare_paced(700),
    "bursts": _compare_bursts,
    "first-token": _compare_first_token(0),
    "first-token-loaded": _compare_first_token(50),
    "memory": _compare_memory,
    "start": _compare_start,
    "resume": _compare_resume,
}
"""Every scenario that can be compared with a baseline, by its name."""
