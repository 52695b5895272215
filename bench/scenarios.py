"""Measure all proxies with each load, and turn the figures into tables."""

import statistics

from bench import proxies
from bench.compare import (
    add_rows,
    compute_delivered_share,
    compute_median_ratio,
    format_first_token,
    format_load_core,
    format_median,
    format_ratio,
    log_progress,
    measure_interleaved,
)
from bench.harness import RATE, Harness, ProxyError
from bench.job import Outcome
from bench.measurements import (
    BURST_STREAMS,
    BURST_TOKENS,
    MEMORY_STREAMS,
    RESUMED_ANSWERS,
    RETURNING_VIEWERS,
    VIEWED_TOKENS,
    measure_burst,
    measure_first_token,
    measure_memory,
    measure_paced,
    measure_resume,
    measure_start,
)
from bench.processes import StartError
from bench.proxies import ALL, FAST
from bench.report import Goal, Table, find_percentile, format_spread

MIN_DELIVERED_SHARE = 0.95

_PACED_NOTE = (
    "CPU covers the proxy and its Redis while all streams flow; “with starts and ends” covers the "
    f"complete run. A peer that delivers less than {MIN_DELIVERED_SHARE:.0%} of the tokens in time "
    "has fallen behind and is excluded. “Waited” is the share of time, in the worst round, in "
    "which the load or the fake upstream was runnable while its core was busy. The load verifies "
    "the text of every stream. Holdline sends a batch every 30 to 80 ms, depending on its load, "
    "with the deltas of one interval in one frame."
)


def run_paced(harness: Harness, count: int, names: list[str], goals: dict[str, float]) -> Table:
    """Compare the CPU per token of `count` answers at RATE; `goals` bound the ratio to a peer."""
    table = Table(
        f"{count} streams at {RATE} tokens per second",
        [
            "proxy",
            "CPU, µs per token",
            "of it Redis",
            "with starts and ends",
            "Holdline ÷ proxy",
            "first token p50, ms",
            "p99, ms",
            "gap p99, ms",
            "lowest share delivered",
            "load's core",
        ],
        note=_PACED_NOTE,
    )
    outcomes = measure_interleaved(
        harness, names, lambda proxy: measure_paced(harness, proxy, count)
    )
    _exclude_slow(harness, outcomes, count)
    costs = {name: [o.steady.us_per_token for o in found] for name, found in outcomes.items()}

    def make_cells(name: str) -> list[str]:
        found = outcomes[name]
        return [
            format_spread(costs[name], 1),
            format_median(found, lambda o: o.steady.redis_us_per_token, 1),
            format_median(found, lambda o: o.total.us_per_token, 1),
            format_ratio(costs["holdline"], costs[name]),
            *format_first_token(found),
            format_median(found, lambda o: find_percentile(o.gaps_ms, 0.99), 0),
            f"{min(compute_delivered_share(o.steady, count) for o in found):.0%}",
            format_load_core([o.steady for o in found]),
        ]

    add_rows(table, harness, harness.select(names), outcomes, make_cells)
    for name, bound in goals.items():
        if name in costs:
            ratio = compute_median_ratio(costs["holdline"], costs[name])
            figure = f"CPU per token at {count} streams, Holdline ÷ {name}"
            table.goals.append(Goal(figure, ratio, bound))
    return table


def _exclude_slow(harness: Harness, outcomes: dict[str, list[Outcome]], count: int) -> None:
    """Move the peers that fell behind from the outcomes to `harness.missing`."""
    for name in set(outcomes) - {"holdline"}:
        share = statistics.median(compute_delivered_share(o.steady, count) for o in outcomes[name])
        if share < MIN_DELIVERED_SHARE:
            harness.missing[name] = f"fell behind: {share:.0%} of the tokens arrived in time"
            del outcomes[name]


def run_bursts(harness: Harness) -> Table:
    """Compare concurrent answers that are sent as fast as the proxy reads them."""
    table = Table(
        f"{BURST_STREAMS} concurrent unpaced answers of {BURST_TOKENS:,} tokens",
        [
            "proxy",
            "CPU, µs per token",
            "of it Redis",
            "Holdline ÷ proxy",
            "tokens per second",
            "first token p50, ms",
            "p99, ms",
            "end p99, ms",
        ],
    )
    outcomes = measure_interleaved(harness, FAST, lambda proxy: measure_burst(harness, proxy))
    costs = {name: [o.total.us_per_token for o in found] for name, found in outcomes.items()}

    def make_cells(name: str) -> list[str]:
        found = outcomes[name]
        return [
            format_spread(costs[name], 1),
            format_median(found, lambda o: o.total.redis_us_per_token, 1),
            format_ratio(costs["holdline"], costs[name]),
            format_median(found, lambda o: o.total.tokens / o.total.wall_s, 0),
            *format_first_token(found),
            format_median(found, lambda o: find_percentile(o.last_ms, 0.99), 0),
        ]

    add_rows(table, harness, harness.select(FAST), outcomes, make_cells)
    return table


def run_first_token(harness: Harness, background: int) -> Table:
    """Compare the delay that a proxy adds to the first token, for sequential questions."""
    names = FAST if background else ALL
    condition = f"with {background} other streams" if background else "on an idle server"
    table = Table(
        f"First token, {condition}",
        ["proxy", "p50, ms", "added p50, ms", "p99, ms", "added p99, ms"],
        note="“direct” connects to the fake upstream. The added time is the difference from it "
        "within a round.",
    )
    outcomes = measure_interleaved(
        harness,
        names,
        lambda proxy: measure_first_token(harness, proxy, background),
        harness.direct_proxy(),
    )

    def read_ms(name: str, share: float) -> list[float]:
        return [find_percentile(o.first_token_ms, share) for o in outcomes[name]]

    def compute_added_ms(name: str, share: float) -> list[float]:
        pairs = zip(read_ms(name, share), read_ms("direct", share), strict=True)
        return [its - direct for its, direct in pairs]

    def make_cells(name: str) -> list[str]:
        return [
            format_spread(read(name, share))
            for share in (0.5, 0.99)
            for read in (read_ms, compute_added_ms)
        ]

    add_rows(table, harness, ["direct", *harness.select(names)], outcomes, make_cells)
    if not background:
        added_ms = statistics.median(compute_added_ms("holdline", 0.5))
        table.goals.append(Goal("time added to the first token, ms", added_ms, 2))
    return table


def run_memory(harness: Harness) -> Table:
    """Compare the memory per stream of proxies that have just been started."""
    table = Table(
        "Memory per stream",
        ["proxy", "KiB per stream", "of it Redis", "before, MiB"],
        note=(
            f"Memory (USS) that {MEMORY_STREAMS} streams add to the proxy and its Redis after at "
            "least four seconds of flow. 20 short answers warm the proxy up."
        ),
    )
    for name in harness.select(FAST):
        try:
            found = [measure_memory(harness, name) for _ in range(harness.rounds)]
        except (StartError, ProxyError) as error:
            table.add_missing_row(name, str(error))
            continue
        added, redis, before = ([memory[i] for memory in found] for i in range(3))
        before_mib = f"{statistics.median(before) / 1024:.0f}"
        table.rows.append([name, format_spread(added, 1), format_spread(redis, 1), before_mib])
        if name == "holdline":
            table.goals.append(Goal("memory per stream, KiB", statistics.median(added), 24))
    return table


def run_start(harness: Harness) -> Table:
    """Measure the time from process start, with a new embedded Redis, to the first page."""
    table = Table("From process start to the first page", ["proxy", "seconds"])
    _, *seconds = (measure_start(harness, "holdline") for _ in range(harness.rounds + 1))
    table.rows.append(["holdline", format_spread(seconds)])
    goal = Goal("from process start to the first page, s", statistics.median(seconds), 1.5)
    table.goals.append(goal)
    return table


def run_resume(harness: Harness) -> Table:
    """Measure viewers that reconnect concurrently, with Last-Event-ID, to running answers."""
    table = Table(
        f"{RETURNING_VIEWERS} viewers reconnect concurrently to {RESUMED_ANSWERS} running answers",
        [
            "proxy",
            "first byte p50, ms",
            "p99, ms",
            "slowest, ms",
            "gap p99 of running answers, ms",
            "longest, ms",
        ],
        note=f"Each viewer has received at least {VIEWED_TOKENS} tokens and receives only the "
        "rest. No peer supports this.",
    )
    outcomes = measure_interleaved(
        harness, ["holdline"], lambda proxy: measure_resume(harness, proxy)
    )["holdline"]
    first_bytes = [[find_percentile(o.first_byte_ms, s) for o in outcomes] for s in (0.5, 0.99, 1)]
    gaps = [[find_percentile(o.background_gaps_ms, s) for o in outcomes] for s in (0.99, 1)]
    cells = [format_spread(values, 0) for values in (*first_bytes, *gaps)]
    table.rows.append(["holdline", *cells])
    return table


def run_workers(harness: Harness) -> Table:
    """Compare two workers with one."""
    table = Table(
        "Two workers, 100 streams",
        ["workers", "CPU, µs per token", "of it Redis", "÷ one worker"],
        note=(
            "Both workers share the proxy's core, because the other core is the load's. Two cores "
            "could therefore carry at most twice the streams, divided by the last column."
        ),
    )
    port = harness.upstream_port
    outcomes: dict[str, list[Outcome]] = {"1": [], "2": []}
    with (
        proxies.start_holdline(port, name="1") as one,
        proxies.start_holdline(port, {"WORKERS": "2"}, name="2") as two,
    ):
        for number, proxy in harness.schedule([one, two]):
            outcome = harness.stream(proxy, 100, within_s=2.0, flow_s=6.0)
            log_progress(f"workers: {proxy.name} {outcome.steady.us_per_token:.1f} µs per token")
            if number >= 0:
                outcomes[proxy.name].append(outcome)
    costs = {name: [o.steady.us_per_token for o in found] for name, found in outcomes.items()}
    for name, found in outcomes.items():
        redis = format_median(found, lambda o: o.steady.redis_us_per_token, 1)
        ratio = format_ratio(costs[name], costs["1"])
        table.rows.append([name, format_spread(costs[name], 1), redis, ratio])
    speedup = 2 / compute_median_ratio(costs["2"], costs["1"])
    table.goals.append(Goal("two workers ÷ one, upper limit", speedup, 1.8, at_least=True))
    return table
