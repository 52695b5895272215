"""Continue a partial answer: decide whether to, and trim the repetition at the seam. Pure."""

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


MIN_OVERLAP = 12
"""Minimum length of a repetition, in characters; a shorter match may be chance."""

_MAX_OVERLAP = 400
"""How far back, in characters, a continuation may begin to repeat."""

_ANNOUNCEMENT = re.compile(
    r"\A(?:\s*(?:(?:sure|certainly|of course|okay|ok)[,.!]?\s*)?(?:(?:here(?:'s| is) the rest|"
    r"let me continue|i(?:'ll| will) continue|continuing|to continue)\b[^\n]{0,60})[:.…]+\s*\n+"
    r"|\s*(?:好的?[，,。！]?\s*)?(?:我?(?:接着|继续)[^\n。：]{0,20})[：:。…]+\s*\n+)",
    re.IGNORECASE,
)
_OPENINGS = (
    "sure", "certainly", "of course", "ok", "here", "let me continue", "i'll continue",
    "i will continue", "continuing", "to continue", "好", "我接着", "接着", "我继续", "继续",
)  # fmt: skip
_MAX_LINE_LENGTH = 120
"""A longer line, in characters, is not an announcement."""


class OverlapTrimmer:
    """Joins a continuation to the text so far; buffers text only while it may be a repetition."""

    def __init__(self, partial: str) -> None:
        self._tail = partial[-_MAX_OVERLAP:]
        self._buffer = ""
        self._open = bool(partial)

    def feed(self, text: str) -> str:
        """Return the text of the continuation that is ready to be sent."""
        if not self._open:
            return text
        self._buffer += text
        rest = _ANNOUNCEMENT.sub("", self._buffer, count=1)
        may_announce = not rest or self._may_announce()
        may_repeat = len(rest) < len(self._tail) and rest in self._tail
        return "" if may_announce or may_repeat else self.end()

    def end(self) -> str:
        """Return the buffered text without the repetition, and buffer no more."""
        rest = _ANNOUNCEMENT.sub("", self._buffer, count=1)
        self._buffer, self._open = "", False
        for size in range(min(len(rest), len(self._tail)), MIN_OVERLAP - 1, -1):
            if self._tail.endswith(rest[:size]):
                return rest[size:]
        return rest

    def _may_announce(self) -> bool:
        line = self._buffer.lstrip().lower()
        if "\n" in line or len(line) >= _MAX_LINE_LENGTH:
            return False
        return any(opening.startswith(line) or line.startswith(opening) for opening in _OPENINGS)
