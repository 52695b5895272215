"""Has every relay measured in turn, and makes cells of what was found."""

import statistics
import sys
from collections.abc import Callable, Iterable
from typing import TypeVar

from bench.bed import RATE, REQUIRED, Bed, Broke
from bench.load import Outcome, Span
from bench.relays import Relay
from bench.report import percentile, spread

T = TypeVar("T")


def interleaved(
    bed: Bed,
    names: Iterable[str],
    measure: Callable[[Relay], T],
    *also: Relay,
    warm: bool = True,
) -> dict[str, list[T]]:
    """What `measure` finds of every relay in each round but the first, which warms up or is left out."""
    present = [*also, *bed.present(names)]
    seen: dict[str, list[T]] = {relay.name: [] for relay in present}
    for relay in present:
        bed.missing.pop(relay.name, None)  # what broke before may hold now
    for number, relay in bed.rounds(present):
        if relay.name in bed.missing or not (number >= 0 or warm):
            continue
        try:
            found = measure(relay)
        except Broke as how:
            if relay.name in REQUIRED:
                raise
            bed.missing[relay.name] = f"broke: {how}"
            del seen[relay.name]
            continue
        if number >= 0:
            seen[relay.name].append(found)
    return seen


def total_s(span: Span) -> float:
    """CPU seconds of the relay and its Redis."""
    return span.relay_s + span.store_s


def us(span: Span) -> float:
    """CPU microseconds a token."""
    return total_s(span) / span.tokens * 1e6


def ratios(ours: list[float], its: list[float]) -> list[float]:
    """The ratio within each round."""
    return [a / b for a, b in zip(ours, its, strict=True)]


def ratio(ours: list[float], its: list[float]) -> str:
    """The ratio within the rounds, its median and spread."""
    return spread(ratios(ours, its)) if ours != its else "1"


def middle(outcomes: list[Outcome], pick: Callable[[Outcome], float]) -> str:
    """The median over the rounds, in whole milliseconds."""
    return f"{statistics.median(map(pick, outcomes)):.0f}"


def times(outcomes: list[Outcome]) -> list[str]:
    """The first token's median and 99th percentile, medians over the rounds."""
    return [
        f"{statistics.median(percentile(o.first_ms, share) for o in outcomes):.1f}"
        for share in (0.5, 0.99)
    ]


def load_share(spans: list[Span]) -> str:
    """How much of their core the model's stand-in and the viewers used, and how much they waited for it."""
    used = statistics.median((span.upstream_s + span.load_s) / span.wall_s for span in spans)
    waited = max(span.waited_s / span.wall_s for span in spans)
    return f"{used:.0%}, waited {waited:.0%}"


def pace(span: Span, count: int) -> float:
    """How much of what was sent came through within the window, as a share."""
    return span.tokens / (count * RATE * span.wall_s)


def say(words: str) -> None:
    """Tell how far the run is."""
    print(words, file=sys.stderr, flush=True)
