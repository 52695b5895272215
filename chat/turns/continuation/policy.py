"""Decide whether a failed request is repeated, and an incomplete answer continued. Pure."""

import re
from enum import Enum

from chat.errors import UpstreamError, UpstreamFailed, UpstreamRejected

INTERRUPTED = UpstreamFailed(
    "interrupted", "The server was interrupted during this answer. Its text so far is kept."
)
"""The worker that generated the answer stopped or died."""

TRUNCATED = UpstreamFailed("length", "The model reached its token limit.")
"""The upstream ended the response with finish reason `length`."""


class Step(Enum):
    """The next step of a turn after a request that did not complete its answer."""

    CONTINUE = "continue"
    FAIL_OVER = "fail over"
    """No output was sent: request the answer from the next upstream."""
    WAIT = "wait"
    """No output was sent, and there is no other upstream: request the answer once more, later."""
    GIVE_UP = "give up"


MIN_WAIT_S, MAX_WAIT_S = 1.0, 120.0
"""Maximum time that a turn waits for a failed upstream before its answer begins, in seconds."""

_WAITS_S = {"rate_limited": 2.0, "loading": 5.0}
"""Seconds until the next request if the upstream states none, by the type of the failure."""


def decide(
    error: UpstreamError,
    *,
    has_output: bool,
    continuations: int,
    max_continuations: int,
    untried: int,
    has_others: bool,
    waits: int = 0,
    waited_s: float = 0,
) -> Step:
    """Return the next step after `error`; `has_output` tells whether viewers have seen output.

    `untried` is the number of further upstreams that may get the complete question, `has_others`
    whether there is more than one upstream. The turn has waited `waits` times, `waited_s` in total.
    """
    if not has_output and error not in (INTERRUPTED, TRUNCATED):
        if untried > 0:
            return Step.FAIL_OVER
        is_alone = not has_others and isinstance(error, UpstreamFailed)
        return Step.WAIT if is_alone and _may_wait(error, waits, waited_s) else Step.GIVE_UP
    wait_s = choose_wait_s(error) or 0
    if not has_others and (isinstance(error, UpstreamRejected) or wait_s > MAX_WAIT_S):
        return Step.GIVE_UP
    return Step.CONTINUE if continuations < max_continuations else Step.GIVE_UP


_PREFILL_WORDS = re.compile(
    r"prefill|continue_final_message|add_generation_prompt|enable_thinking|assistant message"
    r"|(?:last|final) (?:message|role)|end with a user message",
    re.IGNORECASE,
)


def rejects_prefill(error: UpstreamError) -> bool:
    """Return whether a failure rejects a partial answer as the last message."""
    return error.kind == "refused" or _PREFILL_WORDS.search(error.message) is not None


def choose_wait_s(error: UpstreamError) -> float | None:
    """Return the seconds after which a failed request may be repeated; None if it may not.

    Only a request that the upstream cannot have begun is repeated. Any other might be billed twice.
    """
    if error.retry_after_s is None:
        return _WAITS_S.get(error.kind)
    return max(MIN_WAIT_S, error.retry_after_s)


def _may_wait(error: UpstreamError, waits: int, waited_s: float) -> bool:
    """Return whether to wait: once, or until the model is loaded."""
    wait_s = choose_wait_s(error)
    if wait_s is None or waited_s + wait_s > MAX_WAIT_S:
        return False
    return waits == 0 or error.kind == "loading"
