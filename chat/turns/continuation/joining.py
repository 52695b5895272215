"""Join a continuation to the partial answer: remove repeated text only where it is certain. Pure.

Losing text is worse than showing it twice. Therefore no text is removed after a partial answer that
repeats a pattern: its exact continuation looks like a repetition.
"""

from collections.abc import Generator
from enum import Enum
from typing import TypeVar

from chat.turns.continuation.announcement import measure_announcement

MIN_OVERLAP = 12
"""Minimum length of a repetition, in characters; a shorter match may be chance."""

MIN_PREFILL_REPETITION = 200
"""Minimum length of a partial answer that a continuation by prefill may repeat, in characters.

After prefill a continuation is usually exact, and a short text may occur twice in an answer.
"""

MIN_RESTART = 64
"""Minimum length of a beginning that shows that the model restarted its answer, in characters."""

MIN_RESTART_AFTER_LINE = 256
"""The same minimum after a complete line, which a refrain or the next list entry may follow."""

_MIN_DISTINCT = 6
"""Minimum number of distinct characters in a repetition; with fewer, a match may be chance."""

_MIN_PATTERN = 8
"""An overlap belongs to a pattern of the text if the pattern covers this many characters around it.

A model that repeats an interrupted line produces an overlap around which almost no text matches.
"""

_WINDOW = 8192
"""Characters before the seam in which an overlap or a pattern is searched; bounds the time."""

_T = TypeVar("_T")
_Waiting = Generator[None, str | None, _T]
"""Waits at each `yield` for the next text; None is sent when the response has ended."""


class Outcome(Enum):
    """The result of joining a continuation."""

    OPEN = "open"
    """Undecided: the text so far may be a repetition or an announcement."""
    JOINED = "joined"
    WHOLE = "whole"
    """The continuation began with the whole partial answer, which was removed."""
    RESTARTED = "restarted"
    """It restated only the beginning of the partial answer: all of its text is withheld."""


class Joiner:
    """Joins a continuation to the partial answer, as it arrives."""

    def __init__(self, partial: str, *, is_prefill: bool) -> None:
        self.outcome = Outcome.JOINED
        self._decision: _Waiting[tuple[str, Outcome]] | None = None
        if partial:
            self.outcome = Outcome.OPEN
            self._decision = _decide(partial, is_prefill)
            next(self._decision)

    def feed(self, text: str) -> str:
        """Return the text that is ready to be appended to the partial answer."""
        if self._decision is None:
            return text
        return self._send(text)

    def end(self) -> str:
        """Return the rest of the text, when the response has ended."""
        return "" if self._decision is None else self._send(None)

    def _send(self, text: str | None) -> str:
        if self._decision is None or self.outcome is Outcome.RESTARTED:
            return ""
        try:
            self._decision.send(text)
        except StopIteration as decided:
            ready, self.outcome = decided.value
            if self.outcome is not Outcome.RESTARTED:
                self._decision = None
            return str(ready)
        return ""


def join(partial: str, continuation: str, *, is_prefill: bool) -> tuple[str, Outcome]:
    """Return the text to append to the partial answer, and the outcome."""
    joiner = Joiner(partial, is_prefill=is_prefill)
    return joiner.feed(continuation) + joiner.end(), joiner.outcome


class _Response:
    """The received text that is not matched yet."""

    def __init__(self) -> None:
        self.text = ""
        self.has_ended = False

    def wait(self) -> _Waiting[None]:
        """Wait for more text, or for the end."""
        text = yield
        self.text += text or ""
        self.has_ended = text is None

    def match(self, expected: str) -> _Waiting[int]:
        """Consume the longest common beginning with `expected`, and return its length.

        Matched text is counted, not kept: a response in pieces of one character takes linear time.
        """
        length = 0
        while True:
            size = _common_length(expected[length : length + len(self.text)], self.text)
            length, self.text = length + size, self.text[size:]
            if self.text or self.has_ended or length == len(expected):
                return length
            yield from self.wait()


def _decide(partial: str, is_prefill: bool) -> _Waiting[tuple[str, Outcome]]:
    """Wait until the rules determine the outcome; return it and the text to append."""
    response = _Response()
    yield from response.wait()
    if not is_prefill:
        yield from _skip_announcement(response, partial)
    # A chat template may remove the white space at the end of a message: compare without it.
    whole = partial.rstrip() if len(partial) >= MIN_PREFILL_REPETITION else partial
    min_length = MIN_PREFILL_REPETITION if is_prefill else MIN_OVERLAP
    length = 0
    if len(partial) >= min_length:
        length = yield from response.match(whole[:MIN_OVERLAP])
    if length == MIN_OVERLAP and _is_distinctive(whole) and not _ends_periodic(partial):
        length += yield from response.match(whole[MIN_OVERLAP:])
        if length == len(whole):
            return (yield from _remove_whole(response, whole, partial[length:]))
        if _is_restart(partial, length):
            return "", Outcome.RESTARTED
    response.text = whole[:length] + response.text
    if is_prefill:
        # The request omits the white space at the end: the model may generate it again.
        yield from _remove_space(response, partial[len(partial.rstrip()) :])
        return response.text, Outcome.JOINED
    return (yield from _remove_overlap(response, partial)), Outcome.JOINED


def _skip_announcement(response: _Response, partial: str) -> _Waiting[None]:
    """Remove an announcement and the empty lines after it; keep a line that the answer contains."""
    while (size := measure_announcement(response.text, has_ended=response.has_ended)) is None:
        yield from response.wait()
    if size == 0 or response.text[:size].strip() in partial:
        return
    response.text = response.text[size:].lstrip("\r\n")
    while not response.text and not response.has_ended:
        yield from response.wait()
        response.text = response.text.lstrip("\r\n")


def _remove_whole(response: _Response, whole: str, space: str) -> _Waiting[tuple[str, Outcome]]:
    """Return the text after the whole partial answer, or all text if half of it follows again."""
    removed = yield from _remove_space(response, space)
    half = whole[: (len(whole) + 1) // 2]
    length = yield from response.match(half)
    if length < len(half):
        return half[:length] + response.text, Outcome.WHOLE
    return whole + removed + half + response.text, Outcome.JOINED


def _remove_space(response: _Response, space: str) -> _Waiting[str]:
    """Remove and return the white space that repeats `space`, the end of the partial answer.

    The repetition may omit the beginning of `space`: models end few lines with a blank.
    """
    while space and not (response.text or response.has_ended):
        yield from response.wait()
    begin = max(0, space.find(response.text[:1]))
    length = yield from response.match(space[begin:])
    return space[begin : begin + length]


def _is_restart(partial: str, length: int) -> bool:
    """Return whether a match of this length with the beginning shows a restart, not a pattern."""
    min_length = MIN_RESTART_AFTER_LINE if partial.endswith("\n") else MIN_RESTART
    beginning = partial[:length]
    is_pattern = partial.find(beginning, 1) >= 0 or _ends_periodic(beginning)
    return length >= min_length and not is_pattern


def _remove_overlap(response: _Response, partial: str) -> _Waiting[str]:
    """Return the text without an overlap that occurs once in the partial answer, at its end."""
    tail = partial[-_WINDOW:]
    at = 0
    while not response.has_ended:
        at = tail.find(response.text, at)
        if at < 0 or at + len(response.text) == len(tail):
            break  # no longer overlap is possible
        yield from response.wait()
    size = _overlap_length(tail, response.text)
    overlap = response.text[:size]
    if (
        size < MIN_OVERLAP
        or partial.find(overlap) + size < len(partial)
        or not _is_distinctive(overlap)
        or _ends_periodic(partial)
    ):
        return response.text
    before = _common_length(partial[-2 * size : -size][::-1], overlap[::-1])
    response.text = response.text[size:]
    after = yield from response.match(overlap[: max(0, _MIN_PATTERN - before)])
    kept = "" if before + after < _MIN_PATTERN else overlap
    return kept + overlap[:after] + response.text


def _overlap_length(tail: str, text: str) -> int:
    """Return the length of the longest beginning of `text` that ends `tail`; 0 if it is short."""
    for size in range(min(len(tail), len(text)), MIN_OVERLAP - 1, -1):
        if text.startswith(tail[-size:]):
            return size
    return 0


def _is_distinctive(text: str) -> bool:
    return len(set(text[:_WINDOW])) >= _MIN_DISTINCT


def _ends_periodic(text: str) -> bool:
    """Return whether a text ends with a pattern that occurs at least twice in a row.

    The two occurrences have at least MIN_OVERLAP characters, so that "ll" is not a pattern. The
    prefix function of the reversed text gives, in linear time, the shortest period of each end.
    """
    end = text[: -_WINDOW - 1 : -1]
    borders = [0]
    for character in end[1:]:
        border = borders[-1]
        while border and end[border] != character:
            border = borders[border - 1]
        borders.append(border + (end[border] == character))
        if len(borders) >= MIN_OVERLAP and 2 * borders[-1] >= len(borders):
            return True
    return False


def _common_length(one: str, other: str) -> int:
    """Return the length of the longest common beginning of two texts, by halving."""
    known, limit = 0, min(len(one), len(other))
    while known < limit:
        middle = (known + limit + 1) // 2
        if one[known:middle] == other[known:middle]:
            known = middle
        else:
            limit = middle - 1
    return known
