"""Apply each load once to one proxy and return the figures."""

import time
import urllib.request
from typing import NamedTuple

from bench import proxies
from bench.compare import log_progress
from bench.harness import RATE, Harness
from bench.job import Outcome, StreamRequest
from bench.proxies import Proxy
from bench.report import find_percentile

BURST_STREAMS, BURST_TOKENS = 100, 1000
MEMORY_STREAMS = 300
PROBES = 200
RESUMED_ANSWERS, RETURNING_VIEWERS, VIEWED_TOKENS = 50, 500, 150


class Memory(NamedTuple):
    """Memory in KiB: per stream, the share of Redis per stream, and the total before any stream."""

    per_stream: float
    redis_per_stream: float
    before: float


def measure_paced(harness: Harness, proxy: Proxy, count: int) -> Outcome:
    """Stream `count` answers at RATE."""
    outcome = harness.stream(proxy, count, within_s=max(2.0, count / 100), flow_s=6.0)
    log_progress(f"{count} streams: {proxy.name} {outcome.steady.us_per_token:.1f} µs per token")
    return outcome


def measure_burst(harness: Harness, proxy: Proxy) -> Outcome:
    """Stream all answers concurrently, as fast as the proxy delivers them."""
    requests = harness.build_requests(proxy, BURST_STREAMS, BURST_TOKENS, 0, 0.0)
    outcome = harness.load(proxy, requests)
    log_progress(f"bursts: {proxy.name} {outcome.total.us_per_token:.1f} µs per token")
    return outcome


def measure_first_token(harness: Harness, proxy: Proxy, background: int) -> Outcome:
    """Submit PROBES questions, one after another, while `background` other answers stream."""
    requests = harness.build_requests(proxy, background, 10 * RATE, RATE, 2.0)
    for _ in range(PROBES):
        http = proxy.build_request(harness.next_question(1, 0), proxy.open_session())
        requests.append(StreamRequest(http, 3.0, 1))
    outcome = harness.load(proxy, requests, probes=PROBES, is_sequential=True)
    median_ms = find_percentile(outcome.first_token_ms, 0.5)
    log_progress(f"first token, {background} streams: {proxy.name} {median_ms:.2f} ms")
    return outcome


def measure_resume(harness: Harness, proxy: Proxy) -> Outcome:
    """Reconnect RETURNING_VIEWERS concurrently, with Last-Event-ID, to RESUMED_ANSWERS answers.

    The viewers are the probes; the answers are the background.
    """
    sessions = [proxy.open_session() for _ in range(RESUMED_ANSWERS)]
    tokens = 10 * RATE
    requests = []
    for i, session in enumerate(sessions):
        http = proxy.build_request(harness.next_question(tokens, RATE), session)
        requests.append(StreamRequest(http, i / RESUMED_ANSWERS, tokens))
    for i in range(RETURNING_VIEWERS):
        resumed = i % RESUMED_ANSWERS
        http = proxies.build_reconnect(sessions[resumed])
        requests.append(StreamRequest(http, 6.0, tokens, VIEWED_TOKENS, resumed))
    outcome = harness.load(proxy, requests, probes=RETURNING_VIEWERS)
    p99_ms = find_percentile(outcome.first_byte_ms, 0.99)
    log_progress(f"resume: {proxy.name} first byte p99 {p99_ms:.0f} ms")
    return outcome


def measure_memory(harness: Harness, name: str) -> Memory:
    """Start a proxy and measure the memory that MEMORY_STREAMS streams add to it."""
    with harness.start(name) as proxy:
        harness.load(proxy, harness.build_requests(proxy, 20, 50, 0, 0.0))  # warm-up
        # At a low rate no proxy falls behind: unread data does not count as a stream's memory.
        outcome = harness.stream(
            proxy, MEMORY_STREAMS, within_s=5.0, flow_s=5.0, rate=10, with_memory=True
        )
    (proxy_before, redis_before), (proxy_after, redis_after) = outcome.memory
    before, redis_added = proxy_before + redis_before, redis_after - redis_before
    added = proxy_after + redis_after - before
    log_progress(f"memory: {name} {added / MEMORY_STREAMS / 1024:.1f} KiB per stream")
    return Memory(added / MEMORY_STREAMS / 1024, redis_added / MEMORY_STREAMS / 1024, before / 1024)


def measure_start(harness: Harness, name: str) -> float:
    """Start a proxy and return the seconds until it has served its web UI."""
    begun_at = time.monotonic()
    with harness.start(name) as proxy:
        with urllib.request.urlopen(f"http://127.0.0.1:{proxy.port}/") as page:
            page.read()
        elapsed_s = time.monotonic() - begun_at
    log_progress(f"start: {name} {elapsed_s:.2f} s")
    return elapsed_s
