"""Find the end of a code block that contains code blocks. Pure.

Models give the inner fences the same length. By CommonMark the first of the inner fences would then
close the outer block, and the rest of the answer would change between prose and code.

A fence with a language cannot close a block: it opens an inner block. In a block of Markdown, so
does a bare fence before a line of text, if an empty line or nothing is before it. The next bare
fence closes the inner block. If the outer block is never closed by this rule, CommonMark's applies.
A line between two fences of tildes (`~~~x~~~`) is text.

The web UI has the same rule in frontend/js/markdown/syntax/nested_fences.js;
tests/visible_text.json tests both.
"""

import re

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock, fence

_FENCE = re.compile(r"(`{3,}(?!`|.*`)|~{3,}(?!~|.*~~~))[ \t]*(.*)", re.DOTALL)
_MARKDOWN = re.compile(r"(?:markdown|md|mdx)\b", re.IGNORECASE)
_MAX_FENCES = 100
"""Fences of a block in which its end is searched for."""


def nest_fences(markdown: MarkdownIt) -> None:
    """Make a parser recognise nested fences; a plugin for `MarkdownIt.use`."""
    interrupted = ["paragraph", "reference", "blockquote", "list"]
    markdown.block.ruler.at("fence", _parse_fence, {"alt": interrupted})


def _parse_fence(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    if state.is_code_block(start):
        return False
    opening = _FENCE.match(_read_line(state, start))
    if not opening:
        return False
    closing = None if silent else _find_end(state, start, end, opening)
    if closing is None:
        return fence(state, start, end, silent)
    token = state.push("fence", "code", 0)
    token.info, token.markup, token.map = opening[2].strip(), opening[1], [start, closing + 1]
    token.content = state.getLines(start + 1, closing, state.sCount[start], True)
    state.line = closing + 1
    return True


def _find_end(state: StateBlock, start: int, end: int, opening: re.Match[str]) -> int | None:
    """Return the line that closes a block with inner blocks; None if CommonMark's rule applies."""
    is_markdown = bool(_MARKDOWN.match(opening[2]))
    is_inside = is_nested = False
    count = 0
    for number in range(start + 1, end):
        if state.sCount[number] < state.blkIndent and not state.isEmpty(number):
            return None
        line = _read_line(state, number)
        found = _FENCE.match(line) if line.startswith(opening[1]) else None
        if not found or state.is_code_block(number):
            continue
        count += 1
        if count > _MAX_FENCES:
            return None
        is_after_text = number > start + 1 and not state.isEmpty(number - 1)
        is_before_text = number + 1 < end and not state.isEmpty(number + 1)
        if is_inside:
            is_inside = bool(found[2])
        elif found[2] or (is_markdown and is_before_text and not is_after_text):
            is_inside = is_nested = True
        else:
            return number if is_nested else None
    return None


def _read_line(state: StateBlock, number: int) -> str:
    return state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]]
