"""What is asked of each relay, and what is made of what was seen."""

import statistics
import time
import urllib.request

from bench import relays
from bench.bed import RATE, Bed, Broke, seed
from bench.compare import (
    interleaved,
    load_share,
    middle,
    pace,
    ratio,
    ratios,
    say,
    times,
    total_s,
    us,
)
from bench.load import Ask, Outcome
from bench.relays import Relay
from bench.report import Goal, Table, missing, percentile, spread

EVERY = list(relays.START)
STURDY = [name for name in EVERY if name != "litellm"]
"""Those that carry many streams on a core, which LiteLLM's proxy, at half a millisecond a token, does not."""

MOST_STREAMS = 2000
"""Beyond this the load's own core is full."""

_PACE_LEAST = 0.95

GAP_MS, FIRST_MS = 100, 1000
"""What 99 of 100 gaps and first tokens must keep below, for streams to count as held."""


def paced(bed: Bed, count: int, names: list[str], goals: dict[str, float]) -> Table:
    """CPU a token of `count` answers that flow at RATE; `goals` bound the ratio to a peer."""
    table = Table(
        f"{count} streams at {RATE} tokens a second",
        ["relay", "CPU µs a token", "of it Redis", "turns and all", "Holdline ÷ it", "first token ms p50",
         "p99", "gap ms p99", "least pace", "load's core"],
        note=(
            "CPU is of the relay and its Redis while all streams flow; with “turns and all” also of their "
            "beginnings and ends. A peer that lets less than 95% of the tokens through in time has fallen "
            "behind, and is out. When the viewers and the model's stand-in “waited” for "
            "their core (the worst round), somebody else had it, or they had each other. Of every relay "
            "the whole text is checked; where twenty turns share a lane Holdline sends deltas that came "
            "together as one frame, every 80 ms."
        ),
    )  # fmt: skip

    def cells(outcomes: list[Outcome]) -> list[str]:
        return [
            f"{statistics.median(1e6 * o.steady.store_s / o.steady.tokens for o in outcomes):.1f}",
            f"{statistics.median(us(o.whole) for o in outcomes):.1f}",
        ]

    seen = interleaved(bed, names, lambda relay: measure_paced(bed, relay, count))
    for name in set(seen) - {"holdline"}:
        through = statistics.median(pace(o.steady, count) for o in seen[name])
        if through < _PACE_LEAST:
            bed.missing[name] = f"fell behind: {through:.0%} of the tokens came through in time"
            del seen[name]
    for name in bed.chosen(names):
        if name not in seen:
            table.rows.append(missing(table.columns, name, bed.missing[name]))
            continue
        costs = [us(o.steady) for o in seen[name]]
        table.rows.append(
            [
                name, spread(costs, 1), *cells(seen[name]),
                ratio([us(o.steady) for o in seen["holdline"]], costs),
                *times(seen[name]),
                middle(seen[name], lambda o: percentile(o.gaps_ms, 0.99)),
                f"{min(pace(o.steady, count) for o in seen[name]):.0%}",
                load_share([o.steady for o in seen[name]]),
            ]
        )  # fmt: skip
    ours = [us(o.steady) for o in seen["holdline"]]
    for name, bound in goals.items():
        if name in seen:
            found = statistics.median(ratios(ours, [us(o.steady) for o in seen[name]]))
            table.goals.append(
                Goal(f"CPU a token of {count} streams, Holdline ÷ {name}", found, bound)
            )
    return table


def measure_paced(bed: Bed, relay: Relay, count: int) -> Outcome:
    """Stream `count` answers at RATE and return the figures of the steady part."""
    outcome = bed.streams(relay, count, within_s=max(2.0, count / 100), flow_s=6.0)
    say(f"{count} streams: {relay.name} {us(outcome.steady):.1f} µs a token")
    return outcome


BURST_STREAMS, BURST_TOKENS = 100, 1000


def bursts(bed: Bed) -> Table:
    """100 answers of 1,000 tokens at once, as fast as they are taken."""
    table = Table(
        f"{BURST_STREAMS} answers of {BURST_TOKENS:,} tokens at once, unpaced",
        ["relay", "CPU µs a token", "of it Redis", "Holdline ÷ it", "tokens a second", "first token ms p50",
         "p99", "last p99"],
    )  # fmt: skip

    seen = interleaved(bed, STURDY, lambda relay: measure_burst(bed, relay))
    for name in bed.chosen(STURDY):
        if name not in seen:
            table.rows.append(missing(table.columns, name, bed.missing[name]))
            continue
        costs = [us(o.whole) for o in seen[name]]
        table.rows.append(
            [
                name, spread(costs, 1),
                f"{statistics.median(1e6 * o.whole.store_s / o.whole.tokens for o in seen[name]):.1f}",
                ratio([us(o.whole) for o in seen["holdline"]], costs),
                f"{statistics.median(o.whole.tokens / o.whole.wall_s for o in seen[name]):,.0f}",
                *times(seen[name]),
                middle(seen[name], lambda o: percentile(o.last_ms, 0.99)),
            ]
        )  # fmt: skip
    return table


def measure_burst(bed: Bed, relay: Relay) -> Outcome:
    """Request all answers of a burst concurrently, as fast as the relay delivers them."""
    outcome = bed.load(relay, bed.asks(relay, BURST_STREAMS, BURST_TOKENS, 0, 0.0))
    say(f"bursts: {relay.name} {us(outcome.whole):.1f} µs a token")
    return outcome


def first_token(bed: Bed, background: int) -> Table:
    """What a relay adds to the time to the first token, one question after another."""
    names = STURDY if background else EVERY
    beside = f"beside {background} streams" if background else "one by one"
    table = Table(
        f"First token, {beside}",
        ["relay", "ms p50", "added p50", "p99", "added p99"],
        note=(
            "“direct” asks the model's stand-in itself; what is added is counted from it, within a round."
        ),
    )

    with bed.direct() as direct:
        seen = interleaved(
            bed, names, lambda relay: measure_first_token(bed, relay, background), direct
        )
    for name in ["direct", *bed.chosen(names)]:
        if name not in seen:
            table.rows.append(missing(table.columns, name, bed.missing[name]))
            continue
        row = [name]
        for share in (0.5, 0.99):
            its = [percentile(o.first_ms, share) for o in seen[name]]
            least = [percentile(o.first_ms, share) for o in seen["direct"]]
            row += [spread(its), spread([a - b for a, b in zip(its, least, strict=True)])]
        table.rows.append(row)
    if not background:
        pairs = zip(seen["holdline"], seen["direct"], strict=True)
        added = [percentile(a.first_ms, 0.5) - percentile(b.first_ms, 0.5) for a, b in pairs]
        table.goals.append(Goal("added to the first token, ms", statistics.median(added), 2))
    return table


def measure_first_token(bed: Bed, relay: Relay, background: int) -> Outcome:
    """Submit 200 questions, one after another, while `background` other answers stream."""
    asks = bed.asks(relay, background, 10 * RATE, RATE, 2.0)
    asks += [Ask(relay.request(bed.question(1, 0), relay.visitor()), 3.0, 1) for _ in range(200)]
    outcome = bed.load(relay, asks, probes=200, one_by_one=True)
    say(
        f"first token ({background} streams): {relay.name} {percentile(outcome.first_ms, 0.5):.2f} ms"
    )
    return outcome


def capacity(bed: Bed) -> Table:
    """The largest number of streams that a core holds."""
    table = Table(
        "Streams that one core holds",
        ["relay", "streams", "Holdline ÷ it"],
        note=(
            f"Held: 99 of 100 gaps ≤ {GAP_MS} ms and 99 of 100 first tokens ≤ {FIRST_MS} ms, at {RATE} "
            "tokens a second, begun over four seconds; found by doubling (in later rounds by tenths, from "
            "what was found before), then halving to within a twentieth. "
            f"“{MOST_STREAMS} or more” is as far as was asked. The relay's Redis is on its core."
        ),
    )  # fmt: skip
    found: dict[str, int] = {}

    def measure(relay: Relay) -> float:
        found[relay.name] = _largest(bed, relay, found.get(relay.name, 0))
        return float(found[relay.name])

    seen = interleaved(bed, STURDY, measure, warm=False)
    for name in bed.chosen(STURDY):
        if name not in seen:
            table.rows.append(missing(table.columns, name, bed.missing[name]))
            continue
        most = min(seen[name]) >= MOST_STREAMS
        held = f"{MOST_STREAMS} or more" if most else spread(seen[name], 0)
        table.rows.append([name, held, ratio(seen["holdline"], seen[name])])
    if "tutorial" in seen:
        times_more = statistics.median(ratios(seen["holdline"], seen["tutorial"]))
        table.goals.append(
            Goal("streams on one core, Holdline ÷ tutorial", times_more, 10, at_least=True)
        )
    return table


def _largest(bed: Bed, relay: Relay, near: int) -> int:
    def held(count: int) -> bool:
        try:
            outcome = bed.streams(relay, count, within_s=4.0, flow_s=4.0)
        except Broke as how:
            say(f"capacity: {relay.name} {count}: {how}")
            return False
        gap, first = percentile(outcome.gaps_ms, 0.99), percentile(outcome.first_ms, 0.99)
        say(
            f"capacity: {relay.name} {count}: gap {gap:.0f} ms, first token {first:.0f} ms, "
            f"load's core {load_share([outcome.steady])}"
        )
        return gap <= GAP_MS and first <= FIRST_MS

    good, bad, count, step = 0, 0, near or 25, 1.1 if near else 2.0
    while count and not (good and bad):
        if held(count):
            if count == MOST_STREAMS:
                return count
            good, count = count, min(MOST_STREAMS, max(count + 1, int(count * step)))
        else:
            bad, count = count, int(count / step)
    while bad - good > max(1, good // 20):
        tried = (good + bad) // 2
        good, bad = (tried, bad) if held(tried) else (good, tried)
    return good


def memory(bed: Bed) -> Table:
    """Memory a stream, of a relay just started."""
    count = 300
    table = Table(
        "Memory a stream",
        ["relay", "KiB a stream", "of it Redis", "before, MiB"],
        note=(
            f"What {count} streams that have flowed for four seconds and more add to the memory that "
            "the relay and its Redis would give back (USS), after 20 short answers had warmed it."
        ),
    )  # fmt: skip
    for name in bed.chosen(STURDY):
        try:
            seen = [measure_memory(bed, name, count) for _ in range(bed.pairs)]
        except (relays.Missing, Broke) as why:
            table.rows.append(missing(table.columns, name, str(why)))
            continue
        added, stored, before = ([kib[i] for kib in seen] for i in range(3))
        table.rows.append(
            [name, spread(added, 1), spread(stored, 1), f"{statistics.median(before) / 1024:.0f}"]
        )
        if name == "holdline":
            table.goals.append(Goal("memory a stream, KiB", statistics.median(added), 24))
    return table


def measure_memory(bed: Bed, name: str, count: int = 300) -> tuple[float, float, float]:
    """What a stream adds to a relay just started, of it its Redis, and what it all was before, in KiB."""
    with bed.start(name) as relay:
        bed.load(relay, bed.asks(relay, 20, 50, 0, 0.0))
        # Slow enough that no relay falls behind: what waits to be read is not a stream's memory.
        outcome = bed.streams(relay, count, within_s=5.0, flow_s=5.0, rate=10, weighs=True)
    (before, stored), (after, storing) = outcome.memory
    added_kib = (after + storing - before - stored) / count / 1024
    say(f"memory: {name} {added_kib:.1f} KiB")
    return added_kib, (storing - stored) / count / 1024, (before + stored) / 1024


RESUMED_ANSWERS, RETURNING_VIEWERS, VIEWED_TOKENS = 50, 500, 150


def resume(bed: Bed) -> Table:
    """500 viewers come back at once, with Last-Event-ID, into running answers."""
    table = Table(
        f"{RETURNING_VIEWERS} viewers come back at once into {RESUMED_ANSWERS} running answers",
        ["relay", "first byte ms p50", "p99", "slowest", "running answers' gap ms p99", "longest"],
        note=f"Each has seen {VIEWED_TOKENS} tokens or more and gets the rest only; no peer can do this "
        "at all.",
    )
    seen = interleaved(bed, ["holdline"], lambda relay: measure_resume(bed, relay))["holdline"]
    first = ([percentile(o.first_byte_ms, share) for o in seen] for share in (0.5, 0.99, 1.0))
    gaps = ([percentile(o.others_gaps_ms, share) for o in seen] for share in (0.99, 1.0))
    table.rows.append(["holdline", *(spread(values, 0) for values in (*first, *gaps))])
    return table


def measure_resume(bed: Bed, relay: Relay) -> Outcome:
    """Reconnect RETURNING_VIEWERS at once, with Last-Event-ID, to RESUMED_ANSWERS running answers."""
    visitors = [relay.visitor() for _ in range(RESUMED_ANSWERS)]
    tokens = 10 * RATE
    asks = [
        Ask(relay.request(bed.question(tokens, RATE), visitor), i / RESUMED_ANSWERS, tokens)
        for i, visitor in enumerate(visitors)
    ]
    for i in range(RETURNING_VIEWERS):
        resumed = i % RESUMED_ANSWERS
        request = relays.back("holdline", visitors[resumed])
        asks.append(Ask(request, 6.0, tokens, VIEWED_TOKENS, resumed))
    outcome = bed.load(relay, asks, probes=RETURNING_VIEWERS)
    say(f"resume: {relay.name} first byte p99 {percentile(outcome.first_byte_ms, 0.99):.0f} ms")
    return outcome


LENGTHS = (10, 1_000, 10_000)
_WORDS = "what was said before " * 76  # some 1,600 characters, as an answer of 400 tokens has
_TURNS = 50


def start(bed: Bed) -> Table:
    """From the start of the process, with a new private Redis, to the first page."""
    table = Table("From the start to the first page", ["relay", "seconds"])
    seconds = [measure_start(bed, "holdline") for _ in range(bed.pairs + 1)]
    table.rows.append(["holdline", spread(seconds[1:])])
    table.goals.append(
        Goal("from the start to the first page, s", statistics.median(seconds[1:]), 1.5)
    )
    return table


def measure_start(bed: Bed, name: str) -> float:
    """Start a relay and return the seconds until it has served its first page."""
    begun = time.monotonic()
    with bed.start(name) as relay:
        with urllib.request.urlopen(f"http://127.0.0.1:{relay.port}/") as page:
            page.read()
        seconds = time.monotonic() - begun
    say(f"start: {name} {seconds:.2f} s")
    return seconds


def long_conversations(bed: Bed) -> Table:
    """CPU of a turn in conversations of 10, 1,000 and 10,000 messages."""
    table = Table(
        "A turn in a conversation of so many messages",
        ["relay", *(f"{length:,}: CPU ms" for length in LENGTHS), f"{LENGTHS[-1]:,} ÷ {LENGTHS[0]}"],
        note=(
            "Questions have 1,600 characters, answers one token; the medians are of rounds of "
            f"{_TURNS} turns (the tutorial's of 5), by which the conversations grow. With "
            "CONTEXT_TOKENS=2000 ten messages fill what is sent; with the default of 16,000 some eighty "
            "do, and what is sent, not what is kept, makes the difference."
        ),
    )  # fmt: skip
    for name, settings in (
        ("holdline, CONTEXT_TOKENS=2000", {"CONTEXT_TOKENS": "2000"}),
        ("holdline, default", {}),
    ):
        with relays.holdline(bed.upstream, settings) as relay:
            visitors = {length: relay.visitor() for length in LENGTHS}
            for length, visitor in visitors.items():
                say(f"conversations: {length:,} messages")
                _talk(bed, relay, visitor, length // 2)
            table.rows.append([name, *_turn_costs(bed, relay, visitors)])
            growth = float(table.rows[-1][-1].split()[0])
            table.goals.append(Goal(f"a turn at 10,000 messages ÷ at 10 ({name})", growth, 1.1))
    for relay in bed.present(["tutorial"]):
        pair = [{"role": "user", "content": _WORDS}, {"role": "assistant", "content": "yes"}]
        visitors = {length: relay.visitor() for length in LENGTHS}
        for length, visitor in visitors.items():
            seed(relay.redis_url, visitor, pair * (length // 2))
        table.rows.append([relay.name, *_turn_costs(bed, relay, visitors, turns=5)])
    if "tutorial" in bed.missing:
        table.rows.append(missing(table.columns, "tutorial", bed.missing["tutorial"]))
    return table


def _talk(bed: Bed, relay: Relay, visitor: str, turns: int) -> Outcome:
    asks = [Ask(relay.request(bed.question(1, 0, _WORDS), visitor), 0.0, 1) for _ in range(turns)]
    return bed.load(relay, asks, probes=turns, one_by_one=True, patience_s=600)


def _turn_costs(bed: Bed, relay: Relay, visitors: dict[int, str], turns: int = _TURNS) -> list[str]:
    costs: dict[int, list[float]] = {length: [] for length in visitors}
    for number in range(-1, bed.pairs):
        for length, visitor in visitors.items():
            cost_ms = 1000 * total_s(_talk(bed, relay, visitor, turns).whole) / turns
            say(f"conversations: {relay.name} {length:,} messages {cost_ms:.2f} ms a turn")
            if number >= 0:
                costs[length].append(cost_ms)
    last, first = costs[LENGTHS[-1]], costs[LENGTHS[0]]
    return [*(spread(values) for values in costs.values()), ratio(last, first)]


def workers(bed: Bed) -> Table:
    """Two workers against one."""
    table = Table(
        "Two workers, 100 streams",
        ["workers", "CPU µs a token", "of it Redis", "÷ one worker's"],
        note=(
            "Both on the relay's core, for with two cores the other is the load's: what a token costs "
            "then says what two cores of their own would bring at the most, twice the streams divided "
            "by the last column."
        ),
    )  # fmt: skip
    with (
        relays.holdline(bed.upstream) as one,
        relays.holdline(bed.upstream, {"WORKERS": "2"}) as two,
    ):
        one.name, two.name = "1", "2"
        seen: dict[str, list[Outcome]] = {"1": [], "2": []}
        for number, relay in bed.rounds([one, two]):
            outcome = bed.streams(relay, 100, within_s=2.0, flow_s=6.0)
            say(f"workers: {relay.name} {us(outcome.steady):.1f} µs a token")
            if number >= 0:
                seen[relay.name].append(outcome)
    for name, outcomes in seen.items():
        costs = [us(o.steady) for o in outcomes]
        store = (
            f"{statistics.median(1e6 * o.steady.store_s / o.steady.tokens for o in outcomes):.1f}"
        )
        table.rows.append(
            [name, spread(costs, 1), store, ratio(costs, [us(o.steady) for o in seen["1"]])]
        )
    shared = statistics.median(ratios(*([us(o.steady) for o in seen[name]] for name in ("2", "1"))))
    table.goals.append(Goal("two workers ÷ one, at the most", 2 / shared, 1.8, at_least=True))
    return table
