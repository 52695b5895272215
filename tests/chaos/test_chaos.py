"""Short fault runs with fixed seeds, and the checker of the invariants itself."""

import dataclasses
import logging
import sys

import pytest

from config.logging import Formatter
from tests.chaos.invariants import Outcome, find_tracebacks, find_violations
from tests.chaos.narrator import compose_answer
from tests.chaos.plan import NODES, SERVERS, Arrangement, Kind, make_plan
from tests.chaos.run import USERS, run

_SECONDS = 10
"""The length of the faults; a run takes about 20 s."""

each_run = pytest.mark.parametrize(
    ("arrangement", "seed"), [(Arrangement.ONE, 931), (Arrangement.CLUSTER, 322)]
)


@each_run
async def test_no_fault_run_violates_an_invariant(arrangement: Arrangement, seed: int) -> None:
    report = await run(seed, _SECONDS, arrangement)
    assert report.violations == []
    assert report.counts["questions"] >= USERS


@each_run
def test_each_run_kills_and_freezes_workers_redis_and_kills_a_whole_server(
    arrangement: Arrangement, seed: int
) -> None:
    kinds = {fault.kind for fault in make_plan(seed, _SECONDS, arrangement)}
    assert kinds >= {
        Kind.KILL_WORKER,
        Kind.FREEZE_WORKER,
        Kind.KILL_REDIS,
        Kind.FREEZE_REDIS,
        Kind.KILL_SERVER,
    }


@pytest.mark.parametrize("arrangement", Arrangement)
def test_a_seed_gives_the_same_plan_every_time(arrangement: Arrangement) -> None:
    plans = [make_plan(seed, 60, arrangement) for seed in (1, 1, 2)]
    assert plans[0] == plans[1] != plans[2]
    for fault in plans[0] + plans[2]:
        assert 0 < fault.at_s < 60
        assert fault.target < (NODES if fault.is_of_redis else SERVERS)[arrangement]


HELD = Outcome(
    question="q1",
    shown=[compose_answer("q1"), compose_answer("q1")[:3], ""],
    failures=[],
    was_replaced=False,
    rejections=[503],
    requests=2,
    fence=2,
)
NEXT = dataclasses.replace(HELD, question="q2", shown=[compose_answer("q2")])
HISTORY = [
    ("user", "q1"),
    ("assistant", compose_answer("q1")),
    ("user", "q2"),
    ("assistant", compose_answer("q2")),
]


def test_an_answer_that_was_continued_violates_nothing() -> None:
    assert find_violations([HELD, NEXT], HISTORY, None) == []


def test_a_replaced_answer_may_end_early_but_not_before_the_shown_text() -> None:
    replaced = dataclasses.replace(HELD, was_replaced=True, shown=[compose_answer("q1")[:5]])
    history = [("user", "q1"), ("assistant", compose_answer("q1")[:8]), *HISTORY[2:]]
    assert find_violations([replaced, NEXT], history, None) == []
    longer = dataclasses.replace(replaced, shown=[compose_answer("q1")[:9]])
    assert len(find_violations([longer, NEXT], history, None)) == 1


@pytest.mark.parametrize(
    ("change", "history"),
    [
        ({}, HISTORY[2:]),  # a lost question
        ({}, HISTORY[2:] + HISTORY[:2]),  # another order
        ({}, HISTORY[:2] + HISTORY),  # a question twice
        ({}, HISTORY[:1] + HISTORY[2:]),  # no answer
        ({}, [("assistant", "x"), *HISTORY]),  # an answer without a question
        (
            {},
            [HISTORY[0], ("assistant", compose_answer("q1")[:-1]), *HISTORY[2:]],
        ),  # a truncated answer
        ({"shown": ["other"]}, HISTORY),
        ({"failures": ["{}"]}, HISTORY),
        ({"rejections": [404]}, HISTORY),
        ({"requests": 3}, HISTORY),
    ],
)
def test_each_violation_is_found(change: dict[str, object], history: list[tuple[str, str]]) -> None:
    changed = dataclasses.replace(HELD, **change)  # type: ignore[arg-type]
    assert find_violations([changed, NEXT], history, None) != []


def test_a_turn_that_still_runs_is_a_violation() -> None:
    assert find_violations([HELD, NEXT], HISTORY, "t1") != []


def test_each_traceback_of_a_log_is_found() -> None:
    formatter = Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    lines = []
    for number in range(4):
        record = logging.makeLogRecord({"name": "holdline.x", "levelname": "ERROR", "msg": number})
        if number in (1, 3):
            try:
                raise ExceptionGroup("several", [ValueError("first"), KeyError(number)])
            except ExceptionGroup:
                record.exc_info = sys.exc_info()
        lines.append(formatter.format(record))
    assert find_tracebacks("\n".join(lines)) == [
        "1x a traceback in the log: ERROR holdline.x: | KeyError: 1",
        "1x a traceback in the log: ERROR holdline.x: | KeyError: 3",
    ]
    assert find_tracebacks(f"{lines[0]}\nTraceback (most recent call last):\nOSError: x\n")
