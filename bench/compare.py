"""Measure proxies in interleaved rounds, and format the figures of several rounds."""

import statistics
import sys
from collections.abc import Callable, Container, Iterable
from typing import TypeVar

from bench.harness import RATE, REQUIRED, Harness, ProxyError
from bench.job import Outcome, Span
from bench.proxies import Proxy
from bench.report import Table, find_percentile, format_spread

T = TypeVar("T")


def measure_interleaved(
    harness: Harness,
    names: Iterable[str],
    measure: Callable[[Proxy], T],
    *extra: Proxy,
    warm_up: bool = True,
) -> dict[str, list[T]]:
    """Measure every proxy once per round; returns the results of the measured rounds by name.

    A peer that raises ProxyError is recorded as missing; an error of a required proxy propagates.
    """
    running = [*extra, *harness.ensure_running(names)]
    results: dict[str, list[T]] = {proxy.name: [] for proxy in running}
    for proxy in running:
        harness.missing.pop(proxy.name, None)  # a failure in another scenario does not count here
    for number, proxy in harness.schedule(running):
        if proxy.name in harness.missing or not (number >= 0 or warm_up):
            continue
        try:
            result = measure(proxy)
        except ProxyError as error:
            if proxy.name in REQUIRED:
                raise
            harness.missing[proxy.name] = f"failed: {error}"
            del results[proxy.name]
            continue
        if number >= 0:
            results[proxy.name].append(result)
    return results


def add_rows(
    table: Table,
    harness: Harness,
    names: Iterable[str],
    measured: Container[str],
    make_cells: Callable[[str], list[str]],
) -> None:
    """Append a row for each name: its cells, or the reason why it was not measured."""
    for name in names:
        if name in measured:
            table.rows.append([name, *make_cells(name)])
        else:
            table.add_missing_row(name, harness.missing[name])


def compute_ratios(ours: list[float], theirs: list[float]) -> list[float]:
    """Return the ratio within each round."""
    return [a / b for a, b in zip(ours, theirs, strict=True)]


def compute_median_ratio(ours: list[float], theirs: list[float]) -> float:
    """Return the median of the ratios within the rounds."""
    return statistics.median(compute_ratios(ours, theirs))


def format_ratio(ours: list[float], theirs: list[float]) -> str:
    """Format the median and range of the ratios within the rounds."""
    return format_spread(compute_ratios(ours, theirs)) if ours != theirs else "1"


def format_median(
    outcomes: Iterable[Outcome], read: Callable[[Outcome], float], digits: int
) -> str:
    """Format the median of one figure over the rounds."""
    return f"{statistics.median(map(read, outcomes)):,.{digits}f}"


def format_first_token(outcomes: list[Outcome]) -> list[str]:
    """Format the first token's median and 99th percentile, as medians over the rounds."""
    return [
        format_median(outcomes, lambda o: find_percentile(o.first_token_ms, 0.5), 1),
        format_median(outcomes, lambda o: find_percentile(o.first_token_ms, 0.99), 1),
    ]


def format_load_core(spans: list[Span]) -> str:
    """Format how busy the load's core was, and the longest wait for it, as shares of the time."""
    used = statistics.median((span.upstream_s + span.load_s) / span.wall_s for span in spans)
    waited = max(span.waited_s / span.wall_s for span in spans)
    return f"{used:.0%}, waited {waited:.0%}"


def compute_delivered_share(span: Span, count: int) -> float:
    """Return the share of the tokens of `count` paced streams that arrived within the span."""
    return span.tokens / (count * RATE * span.wall_s)


def log_progress(message: str) -> None:
    """Print a progress message to standard error."""
    print(message, file=sys.stderr, flush=True)
