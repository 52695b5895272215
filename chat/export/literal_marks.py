"""Show `~`, `*`, `_` and `>` of ordinary prose as text. Pure.

CommonMark would take the marks of a range (`20~25`), a product (`2*3*4`), a power (`x**2`), a path
(`src/**`), a name (`__init__`) or a comparison (`>= 5`) as markup, and remove them.

The web UI has the same rules in frontend/js/markdown/syntax/literal_marks.js;
tests/visible_text.json tests both.
"""

import re
from itertools import chain

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.emphasis import tokenize as parse_emphasis
from markdown_it.rules_inline.strikethrough import tokenize as parse_strikethrough

_WORD = "[A-Za-z0-9]"
_NAME = rf"(?<!\w)__{_WORD}+(?:_+{_WORD}+)*__(?!\w)"
_STARS = rf"(?<={_WORD})\*(?={_WORD})|(?<={_WORD})\*{{2,}}(?=\d)|(?<=\d)\*(?=\()"
_PATH_STARS = r"(?<=[/\\])\*+(?=[/\\.])"
_TILDES = r"~(?!~)|~{3,}|(?<=\d)~~(?=\d)"
_LITERAL = re.compile(f"{_NAME}|{_STARS}|{_PATH_STARS}|{_TILDES}", re.ASCII)

_CLOSING = re.compile(
    rf"(?<={_WORD})\*{{2,}}(?={_WORD})|(?<=[)\]])(?:\*(?={_WORD})|\*{{2,}}(?=\d))", re.ASCII
)
"""A run of these stars may close emphasis (`**bold**ly`), but not begin it."""
_CANNOT_OPEN = 0
"""`Delimiter.end` of such a star: a star with an end looks as if it had been closed. No other star
ends at the first one. With `open = False`, CommonMark's rule of three would not apply."""


def keep_literal_marks(markdown: MarkdownIt) -> None:
    """Make a parser treat such marks as text; a plugin for `MarkdownIt.use`."""
    markdown.inline.ruler.at("emphasis", _parse_emphasis)
    markdown.inline.ruler.at("strikethrough", _parse_strikethrough)
    markdown.inline.ruler2.after("balance_pairs", "cannot_open", _forget_cannot_open)


def is_comparison(line: str) -> bool:
    """Return whether a line that begins with `>` compares, rather than quotes."""
    return line.startswith(">=")


def _parse_emphasis(state: StateInline, silent: bool) -> bool:
    start = state.pos
    if _parse_literal(state, silent):
        return True
    if not parse_emphasis(state, silent):
        return False
    if _CLOSING.match(state.src, start):
        for delimiter in state.delimiters[start - state.pos :]:
            delimiter.end = _CANNOT_OPEN
    return True


def _forget_cannot_open(state: StateInline) -> None:
    inner = [meta["delimiters"] for meta in state.tokens_meta if meta]
    for delimiter in chain(state.delimiters, *inner):
        if delimiter.end == _CANNOT_OPEN:
            delimiter.end = -1


def _parse_strikethrough(state: StateInline, silent: bool) -> bool:
    return _parse_literal(state, silent) or parse_strikethrough(state, silent)


def _parse_literal(state: StateInline, silent: bool) -> bool:
    found = None if silent else _LITERAL.match(state.src, state.pos, state.posMax)
    if not found:
        return False
    state.pending += found[0]
    state.pos = found.end()
    return True
