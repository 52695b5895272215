"""Cut the deltas of a response into the windows in which an answer is checked. Pure.

The first window is one sentence, so that the answer begins early. The others have about WINDOW
characters. Each is checked together with the CONTEXT characters before it: a phrase of that length
is seen whole by one check, wherever the windows are cut.
"""

import re
from typing import NamedTuple

from chat.log.records import Kind

WINDOW = 400
"""Minimum length of a window after the first, in characters, unless the response has ended."""

CONTEXT = 200
"""Characters before a window that are checked again."""

MAX_LENGTH = 2000
"""Maximum length of a text to check, in characters: OpenAI advises shorter ones for accuracy."""

_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]*_]*\s|[。！？][”’）】]*|\S\n")

Piece = tuple[Kind, str]
"""Text of the answer or of the reasoning."""


class Window(NamedTuple):
    """The pieces to release in order, and the texts to check before: one of each kind."""

    pieces: list[Piece]
    texts: list[str]


class Windows:
    """The deltas of one response that are not checked yet.

    `contexts` are the answer and the reasoning before the response, or their ends.
    """

    def __init__(self, contexts: dict[Kind, str]) -> None:
        self.size = 0
        """Characters that wait for a window."""
        self._contexts = {kind: text[-CONTEXT:] for kind, text in contexts.items()}
        self._pending: list[Piece] = []
        self._begun: set[Kind] = set()
        self._has_ended = False

    def feed(self, kind: Kind, text: str) -> None:
        """Add a delta."""
        self.size += len(text)
        if self._pending and self._pending[-1][0] is kind:
            text = self._pending.pop()[1] + text
        self._pending.append((kind, text))

    def end(self) -> None:
        """Let the rest be a window, however short it is."""
        self._has_ended = True

    def take(self) -> Window | None:
        """Return the next window; None if it is not complete."""
        size = self._find_first_sentence()
        if not size and (self.size >= WINDOW or self._has_ended):
            size = min(self.size, MAX_LENGTH - CONTEXT)
        return self._cut(min(size, MAX_LENGTH - CONTEXT)) if size else None

    def _find_first_sentence(self) -> int:
        """Return the length up to the end of a first sentence; 0 if there is none."""
        length = 0
        for kind, text in self._pending:
            if kind not in self._begun and (end := _SENTENCE_END.search(text, 0, MAX_LENGTH)):
                return length + end.end()
            length += len(text)
        return 0

    def _cut(self, size: int) -> Window:
        self.size -= size
        pieces: list[Piece] = []
        while size:
            kind, text = self._pending.pop(0)
            if rest := text[size:]:
                self._pending.insert(0, (kind, rest))
            pieces.append((kind, text[:size]))
            size -= len(pieces[-1][1])
        texts = []
        for kind in dict.fromkeys(kind for kind, _ in pieces):
            added = "".join(text for other, text in pieces if other is kind)
            texts.append(self._contexts.get(kind, "") + added)
            self._contexts[kind] = texts[-1][-CONTEXT:]
            self._begun.add(kind)
        return Window(pieces, texts)


def split_text(text: str) -> list[str]:
    """Return a text in parts of at most MAX_LENGTH characters that overlap by CONTEXT."""
    step = MAX_LENGTH - CONTEXT
    return [text[at : at + MAX_LENGTH] for at in range(0, max(1, len(text) - CONTEXT), step)]
