"""Show `~`, `*`, `_` and `>` of ordinary prose as text. Pure.

CommonMark would take the marks of a range (`20~25`), a product (`2*3*4`), a power (`x**2`), a path
(`src/**`), a pattern (`*.*`), a comment, a name (`__init__`) or a comparison (`>= 5`, `>18`) as
markup, and remove them.

The web UI has the same rules in frontend/js/markdown/syntax/literal_marks.js and block_starts.js;
tests/visible_text.json tests both.
"""

import re
from itertools import chain

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.emphasis import tokenize as parse_emphasis
from markdown_it.rules_inline.strikethrough import tokenize as parse_strikethrough

from chat.export.cjk_emphasis import flank

_WORD = "[A-Za-z0-9]"
_UNSPACED = (
    "\u0e00-\u11ff\u1780-\u17ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff"
    "\uff66-\uffdc\U00020000-\U0003ffff"
)
"""Chinese, Japanese, Korean, Thai, Lao, Tibetan, Burmese and Khmer emphasise within a line without
spaces."""
_FACTOR = rf"[^\W_{_UNSPACED}]"
_NEXT_FACTOR = rf"(?![²³¹\u2070-\u209f]){_FACTOR}|[\u2200-\u22ff]"
"""A number above or below the line belongs to the factor before it: `*R*²`."""
_OPENING = r"[(\[{（【]"
_AFTER_FACTOR = r"[)\]}）】”’′″%‰°℃$€£¥￥]"
_BEFORE_END = r"[*_](?=[,.;:?)\]}=>|，。；：？、）】”’」』》])"
_START = r"[(\[{=|,;:（【“‘「『，、；：]"
_NAME = rf"(?<![A-Za-z0-9_])__{_WORD}+(?:_+{_WORD}+)*__(?![A-Za-z0-9_])"
_PRODUCT = (
    rf"(?<={_FACTOR})\*(?={_NEXT_FACTOR})|(?<={_WORD})\*{{2,}}(?=[0-9])"
    rf"|(?<=[0-9])\*(?=[(（])|(?<=[）】])\*(?={_FACTOR})"
)
_PATH = r"(?<=[/\\])\*+(?=[/\\.])|(?<=\*\.)\*(?!\*)"
_COMMENT = r"(?<![^\s\"'`(\[])\*+(?=/(?![^\s*\"'`)\]]))|(?<=(?<![^\s({};,，；])/)\*+"
_VALUE = (  # `"*"`, `(*)`, `(_, x)`, `$_`
    rf"(?<=(?P<same>[!-'+-/:-@^|~]))\*+(?=(?P=same))|(?<={_START}){_BEFORE_END}"
    r"|(?<=\$)_"
)
_TILDES = r"~(?!~)|~{3,}|(?<=[0-9])~~(?=[0-9])"
_LITERAL = re.compile("|".join((_NAME, _PRODUCT, _PATH, _COMMENT, _VALUE, _TILDES)))

_CLOSING = re.compile(
    rf"(?<={_WORD})\*{{2,}}(?={_WORD})|(?<=[)\]}}])\*{{2,}}(?=[0-9])"  # `(x+1)**2`
    rf"|(?<={_AFTER_FACTOR})\*(?=[-+]?{_FACTOR}|{_OPENING}|[\u2200-\u22ff$€£¥￥])"  # `)*x`
    rf"|(?<={_FACTOR})\*(?={_OPENING})"  # `x*(`
    r"|(?<=`)\*(?=`)|(?<=/)\*+(?=[\"'`)\],;，。；、）])"  # `src/**,`
    r"|(?:(?<=[0-9][^\W\d_])|(?<=[0-9][^\W\d_]{2}))\*(?=[0-9])"  # `2箱*3`
    rf"|(?<=\.)\*(?=[!-)+-~])|{_BEFORE_END}"  # `.*x`, `_.map`
)
"""A run of these marks may close emphasis (`**bold**ly`), but not begin it."""
_LINKS = ("link_close", "image")
"""Ends of a link: its last bracket is not text."""
_COMPARISON = re.compile("[-+~±.$¥€£￥]?[0-9０-９]|=")
_CANNOT_OPEN = 0
"""`Delimiter.end` of such a mark: a mark with an end looks as if it had been closed. No other mark
ends at the first one. With `open = False`, CommonMark's rule of three would not apply."""


def keep_literal_marks(markdown: MarkdownIt) -> None:
    """Make a parser treat such marks as text; a plugin for `MarkdownIt.use`."""
    markdown.inline.ruler.at("emphasis", _parse_emphasis)
    markdown.inline.ruler.at("strikethrough", _parse_strikethrough)
    markdown.inline.ruler2.after("balance_pairs", "cannot_open", _forget_cannot_open)


def is_comparison(line: str) -> bool:
    """Return whether a line that begins with `>` compares, rather than quotes."""
    return line.startswith(">") and bool(_COMPARISON.match(line, 1))


def _parse_emphasis(state: StateInline, silent: bool) -> bool:
    start, first = state.pos, len(state.delimiters)
    if _parse_literal(state, silent):
        return True
    is_after_link = not state.pending and bool(state.tokens) and state.tokens[-1].type in _LINKS
    if not parse_emphasis(state, silent):
        return False
    flank(state, start, first)
    if not is_after_link and _CLOSING.match(state.src, start):
        for delimiter in state.delimiters[first:]:
            delimiter.end = _CANNOT_OPEN
    return True


def _forget_cannot_open(state: StateInline) -> None:
    inner = [meta["delimiters"] for meta in state.tokens_meta if meta]
    for delimiter in chain(state.delimiters, *inner):
        if delimiter.end == _CANNOT_OPEN:
            delimiter.end = -1


def _parse_strikethrough(state: StateInline, silent: bool) -> bool:
    start, first = state.pos, len(state.delimiters)
    if _parse_literal(state, silent):
        return True
    if not parse_strikethrough(state, silent):
        return False
    flank(state, start, first)
    return True


def _parse_literal(state: StateInline, silent: bool) -> bool:
    found = None if silent else _LITERAL.match(state.src, state.pos, state.posMax)
    if not found:
        return False
    state.pending += found[0]
    state.pos = found.end()
    return True
