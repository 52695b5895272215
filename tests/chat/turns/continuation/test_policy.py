"""When a failed request is repeated: only if it cannot have begun, and not for ever."""

from typing import Any

import pytest

from chat.errors import UpstreamError, UpstreamFailed, UpstreamRejected
from chat.turns.continuation.policy import MAX_WAIT_S, Step, choose_wait_s, decide

ALONE: dict[str, Any] = {
    "has_output": False,
    "continuations": 0,
    "max_continuations": 4,
    "untried": 0,
}


def count_waits(error: UpstreamError) -> int:
    """Return how often a turn waits for an upstream that always fails in this way."""
    waits, waited_s = 0, 0.0
    while waits < 1000:
        step = decide(error, **ALONE, has_others=False, waits=waits, waited_s=waited_s)
        if step is Step.GIVE_UP:
            break
        assert step is Step.WAIT
        waits, waited_s = waits + 1, waited_s + (choose_wait_s(error) or 0)
    return waits


@pytest.mark.parametrize("retry_after_s", [None, 0.0, 0.001, 1, 15, 120])
def test_a_busy_upstream_is_waited_for_once(retry_after_s: float | None) -> None:
    assert count_waits(UpstreamFailed("rate_limited", "", retry_after_s=retry_after_s)) == 1


@pytest.mark.parametrize("retry_after_s", [None, 0.0, 0.001, 1, 15])
def test_a_loading_model_is_waited_for_at_most_two_minutes(retry_after_s: float | None) -> None:
    error = UpstreamFailed("loading", "", retry_after_s=retry_after_s)
    assert 1 < count_waits(error) <= MAX_WAIT_S


@pytest.mark.parametrize(
    "error",
    [
        UpstreamFailed("rate_limited", "", retry_after_s=3600),
        UpstreamFailed("timeout", ""),
        UpstreamFailed("upstream", ""),
        UpstreamFailed("connection_lost", ""),
        UpstreamRejected("refused", ""),
    ],
)
def test_no_other_failure_is_waited_for(error: UpstreamError) -> None:
    assert count_waits(error) == 0
    step = decide(error, **ALONE, has_others=True)
    assert step is Step.GIVE_UP
