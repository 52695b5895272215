"""Separate reasoning that a model writes into its content, between `<think>` tags. Pure."""

import re

_OPENING = re.compile(r"\s*<(think|thinking|thought)>")
_ANY_OPENING = re.compile(r"<(?:think|thinking|thought)>")
_OPENINGS = ("<think>", "<thinking>", "<thought>")
_LONE_CLOSING = re.compile(r"</(?:think|thinking|thought)>\s*")
"""The end of reasoning whose beginning the chat template has written."""

MAX_UNOPENED = 64 << 10
"""Maximum length of reasoning without an opening tag, in characters."""

Piece = tuple[str, bool]
"""A text, and whether it is reasoning."""


class ReasoningSplitter:
    """Splits the content of one response into reasoning and text, as it arrives.

    Reasoning ends at its closing tag. If the tag is never closed, the content is text: `end`
    returns all of it again. A closing tag without an opening one is recognised only in the first
    piece of content.
    """

    def __init__(self) -> None:
        self.is_decided = False
        """Whether all that follows is text, so that `feed` need not be called."""
        self.is_open = False
        """Whether an opening tag was read and no closing one."""
        self._pending = ""
        self._closing = ""
        self._opened: list[str] = []
        self._is_after_closing = False

    def feed(self, text: str) -> list[Piece]:
        """Return the pieces that are certain so far."""
        if self.is_open:
            return self._read_reasoning(text)
        if self._is_after_closing:
            return self._skip_space(text)
        self._pending += text
        if found := _OPENING.match(self._pending):
            self.is_open = True
            self._closing = f"</{found[1]}>"
            rest, self._pending = self._pending[found.end() :], ""
            self._opened.append(found[0])
            return self._read_reasoning(rest)
        start = self._pending.lstrip()
        if len(self._pending) < MAX_UNOPENED and any(tag.startswith(start) for tag in _OPENINGS):
            return []  # all white space, or the beginning of a tag
        return self._read_first()

    def _read_first(self) -> list[Piece]:
        """Return content that begins without a tag."""
        content, self._pending = self._pending, ""
        self.is_decided = True
        found = _LONE_CLOSING.search(content, 0, MAX_UNOPENED)
        if not found or _ANY_OPENING.search(content, 0, found.start()):
            return [(content, False)]
        pieces = [(content[: found.start()], True), (content[found.end() :], False)]
        self._is_after_closing, self.is_decided = not pieces[1][0], bool(pieces[1][0])
        return [piece for piece in pieces if piece[0]]

    def _read_reasoning(self, text: str) -> list[Piece]:
        self._opened.append(text)
        text = self._pending + text
        reasoning, closing, rest = text.partition(self._closing)
        if not closing:
            keep = _count_begun(text, self._closing)
            self._pending = text[len(text) - keep :]
            ready = text[: len(text) - keep]
            return [(ready, True)] if ready else []
        self.is_open, self._pending, self._opened = False, "", []
        self._is_after_closing = True
        return ([(reasoning, True)] if reasoning else []) + self._skip_space(rest)

    def _skip_space(self, text: str) -> list[Piece]:
        text = text.lstrip()
        self.is_decided = bool(text)
        return [(text, False)] if text else []

    def end(self, is_complete: bool) -> list[Piece]:
        """Return the rest. If a complete response has an unclosed tag, its content is text."""
        self.is_decided = True
        if self.is_open and is_complete:
            return [("".join(self._opened), False)]
        pending, self._pending = self._pending, ""
        return [(pending, self.is_open)] if pending else []


def _count_begun(text: str, tag: str) -> int:
    """Return how many characters at the end of a text may be the beginning of a tag."""
    longest = min(len(text), len(tag) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(tag[:size])), 0)
