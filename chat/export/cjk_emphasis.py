"""Decide where emphasis can begin and end, as in CommonMark 0.31 but for CJK text. Pure.

CommonMark's rule for a closing `**` assumes a language with spaces, so `**注意：**正文` stays
literal (commonmark-spec#650). Next to a star, punctuation of Chinese, Japanese and Korean text
counts as a letter here, and so does other punctuation if the star's other neighbour is CJK text.

The web UI has the same rule in frontend/js/markdown/cjk_emphasis.js; tests/cjk_emphasis.json tests
both.
"""

import re
from unicodedata import category

from markdown_it.rules_inline import StateInline

_CJK = re.compile(
    "[\u1100-\u11ff\u2e80-\u2fdf\u3001-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97f"
    "\uac00-\ud7ff\uf900-\ufaff\ufe30-\ufe4f\uff01-\uffee\U00020000-\U0003ffff]"
)


def flank(state: StateInline, start: int, first: int) -> None:
    """Set whether the delimiters from `first` on can open and close emphasis; they are the marks
    between `start` and the parser's position.
    """
    mark = state.src[start]
    before = state.src[start - 1] if start else " "
    after = state.src[state.pos] if state.pos < state.posMax else " "
    is_after_mark = _is_mark(before, after, mark)
    is_before_mark = _is_mark(after, before, mark)
    can_open = not after.isspace() and (not is_before_mark or before.isspace() or is_after_mark)
    can_close = not before.isspace() and (not is_after_mark or after.isspace() or is_before_mark)
    if mark == "_":  # not within a word
        can_open, can_close = (
            can_open and (not can_close or is_after_mark),
            can_close and (not can_open or is_before_mark),
        )
    for delimiter in state.delimiters[first:]:
        delimiter.open, delimiter.close = can_open, can_close


def _is_mark(neighbour: str, other: str, mark: str) -> bool:
    """Return whether a neighbour of a mark of emphasis counts as punctuation."""
    if category(neighbour)[0] not in "PS":
        return False
    is_by_cjk = _CJK.match(neighbour) or (neighbour not in "*_~" and _CJK.match(other))
    return mark == "_" or not is_by_cjk
