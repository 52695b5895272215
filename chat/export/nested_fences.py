"""Find the end of a Markdown code block that contains code blocks. Pure.

Models give the inner fences the same length. By CommonMark the first of the inner fences would then
close the outer block, and the rest of the answer would change between prose and code.

In a block of Markdown, two kinds of fence open an inner block: one with a language, and a bare one
before a line of text, if an empty line or nothing is before it. The next bare fence closes the
inner block. If the outer block is never closed by this rule, CommonMark's applies.

The web UI has the same rule in frontend/js/markdown/syntax/nested_fences.js;
tests/visible_text.json tests both.
"""

import re

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock, fence

_OPENING = re.compile(r"(`{3,}|~{3,}) *((?:markdown|md|mdx)\b[^`\n]*)\Z", re.IGNORECASE)
_FENCE = re.compile(r"(?:`{3,}|~{3,})[ \t]*(\S[^`]*)?\Z")
_MAX_LINES = 1000
"""Lines of a block in which its end is searched for."""


def nest_fences(markdown: MarkdownIt) -> None:
    """Make a parser recognise nested fences; a plugin for `MarkdownIt.use`."""
    interrupted = ["paragraph", "reference", "blockquote", "list"]
    markdown.block.ruler.at("fence", _parse_fence, {"alt": interrupted})


def _parse_fence(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    is_code = silent or state.is_code_block(start)
    opening = None if is_code else _OPENING.match(_read_line(state, start))
    closing = _find_end(state, start, end, opening[1]) if opening else None
    if opening is None or closing is None:
        return fence(state, start, end, silent)
    token = state.push("fence", "code", 0)
    token.info, token.markup, token.map = opening[2].strip(), opening[1], [start, closing + 1]
    token.content = state.getLines(start + 1, closing, state.sCount[start], True)
    state.line = closing + 1
    return True


def _find_end(state: StateBlock, start: int, end: int, marks: str) -> int | None:
    """Return the line that closes a block with inner blocks; None if CommonMark's rule applies."""
    is_inside = is_nested = False
    for number in range(start + 1, min(end, start + _MAX_LINES)):
        if state.sCount[number] < state.blkIndent and not state.isEmpty(number):
            return None
        line = _read_line(state, number)
        found = _FENCE.match(line) if line.startswith(marks) else None
        if not found or state.is_code_block(number):
            continue
        is_after_text = number > start + 1 and not state.isEmpty(number - 1)
        is_before_text = number + 1 < end and not state.isEmpty(number + 1)
        if is_inside:
            is_inside = bool(found[1])
        elif found[1] or (is_before_text and not is_after_text):
            is_inside = is_nested = True
        else:
            return number if is_nested else None
    return None


def _read_line(state: StateBlock, number: int) -> str:
    return state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]]
