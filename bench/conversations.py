"""Measure the CPU time of a turn in conversations of different lengths."""

import json

from redis import Redis

from bench import proxies
from bench.compare import format_ratio, log_progress
from bench.harness import Harness
from bench.job import Outcome, StreamRequest
from bench.proxies import Proxy
from bench.report import Goal, Table, format_spread

LENGTHS = (10, 1_000, 10_000)
_PADDING = "an earlier statement " * 76  # 1,600 characters, as an answer of 400 tokens has
_TURNS, _TUTORIAL_TURNS = 50, 5
_CONFIGURATIONS = {
    "holdline, CONTEXT_TOKENS=2000": {"CONTEXT_TOKENS": "2000"},
    "holdline, default": {},
}


def run_long_conversations(harness: Harness) -> Table:
    """Compare the CPU time of a turn in conversations of 10, 1,000 and 10,000 messages."""
    table = Table(
        "CPU of a turn by the length of the conversation",
        [
            "proxy",
            *(f"{length:,} messages, ms" for length in LENGTHS),
            f"{LENGTHS[-1]:,} ÷ {LENGTHS[0]}",
        ],
        note=(
            "Questions have 1,600 characters, answers have one token. A figure is the median of "
            f"rounds of {_TURNS} turns (of {_TUTORIAL_TURNS} for the tutorial), which lengthen the "
            "conversation. With CONTEXT_TOKENS=2000 ten messages fill the context; with the "
            "default of 16,000 about eighty do. The cost depends on the messages sent, not on "
            "those stored."
        ),
    )
    for name, settings in _CONFIGURATIONS.items():
        with proxies.start_holdline(harness.upstream_port, settings, name=name) as proxy:
            sessions = {length: proxy.open_session() for length in LENGTHS}
            for length, session in sessions.items():
                log_progress(f"conversations: preparing {length:,} messages")
                _run_turns(harness, proxy, session, length // 2)
            costs = _measure_turns_ms(harness, proxy, sessions, _TURNS)
        table.rows.append(_make_row(name, costs))
        growth = float(table.rows[-1][-1].split()[0])
        table.goals.append(Goal(f"CPU of a turn, 10,000 ÷ 10 messages ({name})", growth, 1.1))
    for proxy in harness.ensure_running(["tutorial"]):
        sessions = {length: proxy.open_session() for length in LENGTHS}
        for length, session in sessions.items():
            _store_tutorial_history(proxy.redis_url, session, length)
        costs = _measure_turns_ms(harness, proxy, sessions, _TUTORIAL_TURNS)
        table.rows.append(_make_row(proxy.name, costs))
    if "tutorial" in harness.missing:
        table.add_missing_row("tutorial", harness.missing["tutorial"])
    return table


def _make_row(name: str, costs_ms: dict[int, list[float]]) -> list[str]:
    ratio = format_ratio(costs_ms[LENGTHS[-1]], costs_ms[LENGTHS[0]])
    return [name, *(format_spread(values) for values in costs_ms.values()), ratio]


def _run_turns(harness: Harness, proxy: Proxy, session: str, turns: int) -> Outcome:
    requests = [
        StreamRequest(proxy.build_request(harness.next_question(1, 0, _PADDING), session), 0.0, 1)
        for _ in range(turns)
    ]
    return harness.load(proxy, requests, probes=turns, is_sequential=True, timeout_s=600)


def _measure_turns_ms(
    harness: Harness, proxy: Proxy, sessions: dict[int, str], turns: int
) -> dict[int, list[float]]:
    """Return the CPU milliseconds of a turn in each measured round, by conversation length."""
    costs_ms: dict[int, list[float]] = {length: [] for length in sessions}
    for number in range(-1, harness.rounds):
        for length, session in sessions.items():
            total = _run_turns(harness, proxy, session, turns).total
            cost_ms = 1000 * total.cpu_s / turns
            log_progress(f"conversations: {proxy.name} {length:,} messages {cost_ms:.2f} ms")
            if number >= 0:
                costs_ms[length].append(cost_ms)
    return costs_ms


def _store_tutorial_history(redis_url: str, session: str, length: int) -> None:
    """Store a conversation in the tutorial handler's own format."""
    question = {"role": "user", "content": _PADDING}
    answer = {"role": "assistant", "content": "yes"}
    with Redis.from_url(redis_url) as redis:
        redis.set(f"chat:{session}", json.dumps([question, answer] * (length // 2)))
