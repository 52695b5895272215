"""Find the number of streams that a proxy sustains on one core."""

from bench.compare import (
    add_rows,
    compute_median_ratio,
    format_load_core,
    format_ratio,
    log_progress,
    measure_interleaved,
)
from bench.harness import RATE, Harness, ProxyError
from bench.proxies import FAST, Proxy
from bench.report import Goal, Table, find_percentile, format_spread

MAX_STREAMS = 2000
"""With more streams the load's own core is saturated."""
MAX_GAP_MS, MAX_FIRST_TOKEN_MS = 100, 1000
"""A core sustains a number of streams if 99% of gaps and of first tokens are within these."""


def run_capacity(harness: Harness) -> Table:
    """Find the largest number of streams that each proxy sustains on one core."""
    table = Table(
        "Streams that one core sustains",
        ["proxy", "streams", "Holdline ÷ proxy"],
        note=(
            f"Criterion: 99% of gaps ≤ {MAX_GAP_MS} ms and 99% of first tokens ≤ "
            f"{MAX_FIRST_TOKEN_MS} ms, at {RATE} tokens per second, with all starts within four "
            "seconds. The search doubles the number (in later rounds it moves by tenths from the "
            f"previous result) and then bisects to within a twentieth, up to {MAX_STREAMS}. The "
            "proxy's Redis shares its core."
        ),
    )
    previous: dict[str, int] = {}

    def measure(proxy: Proxy) -> float:
        previous[proxy.name] = find_capacity(harness, proxy, previous.get(proxy.name, 0))
        return float(previous[proxy.name])

    counts = measure_interleaved(harness, FAST, measure, warm_up=False)

    def make_cells(name: str) -> list[str]:
        is_limit = min(counts[name]) >= MAX_STREAMS
        streams = f"{MAX_STREAMS} or more" if is_limit else format_spread(counts[name], 0)
        return [streams, format_ratio(counts["holdline"], counts[name])]

    add_rows(table, harness, harness.select(FAST), counts, make_cells)
    if "tutorial" in counts:
        ratio = compute_median_ratio(counts["holdline"], counts["tutorial"])
        figure = "streams on one core, Holdline ÷ tutorial"
        table.goals.append(Goal(figure, ratio, 10, at_least=True))
    return table


def find_capacity(harness: Harness, proxy: Proxy, estimate: int) -> int:
    """Find the largest number of streams that the proxy sustains, to within a twentieth.

    Without an `estimate` (0) the search doubles from 25; with one it moves by tenths. It then
    halves the interval. Returns MAX_STREAMS if the proxy sustains that many.
    """
    good, bad = 0, 0
    count, step = (estimate, 1.1) if estimate else (25, 2.0)
    while count and not (good and bad):
        if not _sustains(harness, proxy, count):
            bad, count = count, int(count / step)
        elif count == MAX_STREAMS:
            return count
        else:
            good, count = count, min(MAX_STREAMS, max(count + 1, int(count * step)))
    while bad - good > max(1, good // 20):
        middle = (good + bad) // 2
        if _sustains(harness, proxy, middle):
            good = middle
        else:
            bad = middle
    return good


def _sustains(harness: Harness, proxy: Proxy, count: int) -> bool:
    try:
        outcome = harness.stream(proxy, count, within_s=4.0, flow_s=4.0)
    except ProxyError as error:
        log_progress(f"capacity: {proxy.name} {count}: {error}")
        return False
    gap_ms = find_percentile(outcome.gaps_ms, 0.99)
    first_ms = find_percentile(outcome.first_token_ms, 0.99)
    log_progress(
        f"capacity: {proxy.name} {count}: gap {gap_ms:.0f} ms, first token {first_ms:.0f} ms, "
        f"load's core {format_load_core([outcome.steady])}"
    )
    return gap_ms <= MAX_GAP_MS and first_ms <= MAX_FIRST_TOKEN_MS
