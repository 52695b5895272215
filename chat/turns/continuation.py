"""Decide the next step after a request that did not complete its answer. Pure."""

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
    GIVE_UP = "give up"


def decide(
    error: UpstreamError,
    *,
    has_output: bool,
    continuations: int,
    max_continuations: int,
    untried: int,
    has_others: bool,
) -> Step:
    """Return the next step after `error`, when viewers have seen output or not.

    `untried` upstreams have not failed in this turn before they sent output; `has_others` tells
    whether there is more than one at all.
    """
    if not has_output and error not in (INTERRUPTED, TRUNCATED):
        return Step.FAIL_OVER if untried > 0 else Step.GIVE_UP
    if isinstance(error, UpstreamRejected) and not has_others:
        return Step.GIVE_UP
    return Step.CONTINUE if continuations < max_continuations else Step.GIVE_UP
