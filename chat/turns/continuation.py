"""The seam between a broken answer and its continuation: what the model says again is cut away. Pure.

Nothing is cut unless it is certain: at least OVERLAP_MIN characters that end the text so far, said again at
the very beginning, or a first line that does nothing but announce that it goes on.
"""

import re

OVERLAP_MIN = 12
"""Fewest characters that are taken for a repetition and not for chance."""

_REACH = 400
"""How far back, in characters, a continuation may begin to repeat."""

_ANNOUNCEMENT = re.compile(
    r"\A(?:\s*(?:(?:sure|certainly|of course|okay|ok)[,.!]?\s*)?(?:(?:here(?:'s| is) the rest|"
    r"let me continue|i(?:'ll| will) continue|continuing|to continue)\b[^\n]{0,60})[:.…]+\s*\n+"
    r"|\s*(?:好的?[，,。！]?\s*)?(?:我?(?:接着|继续)[^\n。：]{0,20})[：:。…]+\s*\n+)",
    re.IGNORECASE,
)
_OPENINGS = (
    "sure", "certainly", "of course", "ok", "here", "let me continue", "i'll continue", "i will continue",
    "continuing", "to continue", "好", "我接着", "接着", "我继续", "继续",
)  # fmt: skip
_LINE_MAX = 120


class Seam:
    """Joins a continuation to the text so far; holds back only what may yet turn out to be a repetition."""

    def __init__(self, partial: str) -> None:
        self._tail = partial[-_REACH:]
        self._held = ""
        self._open = bool(partial)

    def feed(self, text: str) -> str:
        """What of the continuation may be shown now."""
        if not self._open:
            return text
        self._held += text
        rest = _ANNOUNCEMENT.sub("", self._held, count=1)
        may_announce = not rest or self._may_announce()
        may_repeat = len(rest) < len(self._tail) and rest in self._tail
        return "" if may_announce or may_repeat else self.end()

    def end(self) -> str:
        """What was held back, now that nothing more comes or nothing more needs to."""
        rest = _ANNOUNCEMENT.sub("", self._held, count=1)
        self._held, self._open = "", False
        for size in range(min(len(rest), len(self._tail)), OVERLAP_MIN - 1, -1):
            if self._tail.endswith(rest[:size]):
                return rest[size:]
        return rest

    def _may_announce(self) -> bool:
        line = self._held.lstrip().lower()
        if "\n" in line or len(line) >= _LINE_MAX:
            return False
        return any(opening.startswith(line) or line.startswith(opening) for opening in _OPENINGS)
