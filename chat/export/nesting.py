"""Cap the nesting of Markdown, so that no text can overflow a stack. Pure.

Deeper quotes, lists and emphasis are text. The web UI has the same limit, in
frontend/js/markdown/bounded_lexer.js; tests/nesting.json tests both.
"""

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock, blockquote, list_block
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from chat.export.literal_marks import is_comparison

MAX_NESTING = 30
"""Levels of quotes and lists, and levels of emphasis within a block."""

_CONTAINERS = {"blockquote": blockquote, "list": list_block}
_INTERRUPTED = {
    "blockquote": ["paragraph", "reference", "blockquote", "list"],
    "list": ["paragraph", "reference", "blockquote"],
}
"""The blocks that each container may interrupt, as in markdown-it-py."""

_SPANS = {"em", "strong", "s"}


def cap_nesting(markdown: MarkdownIt) -> None:
    """Make a parser treat marks beyond the limit as text; a plugin for `MarkdownIt.use`."""
    # Each list has two levels. The parser would drop text that is deeper.
    markdown.options["maxNesting"] = 3 * MAX_NESTING
    for name in _CONTAINERS:
        _cap_container(markdown, name)
    markdown.inline.ruler2.before("fragments_join", "cap_emphasis", _cap_emphasis)


def _cap_container(markdown: MarkdownIt, name: str) -> None:
    rule = _CONTAINERS[name]

    def parse(state: StateBlock, start: int, end: int, silent: bool) -> bool:
        depth = state.env.get("containers", 0)
        # A line with a smaller indent than the current list may begin an item of an outer one.
        is_outside = silent and state.sCount[start] < state.blkIndent
        line = state.src[state.bMarks[start] + state.tShift[start] : state.eMarks[start]]
        if is_comparison(line) or (depth >= MAX_NESTING and not is_outside):
            return False
        state.env["containers"] = depth + 1
        try:
            return rule(state, start, end, silent)
        finally:
            state.env["containers"] = depth

    markdown.block.ruler.at(name, parse, {"alt": _INTERRUPTED[name]})


def _cap_emphasis(state: StateInline) -> None:
    depth = 0
    for token in state.tokens:
        if token.nesting > 0:
            depth += 1
        if token.tag in _SPANS and depth > MAX_NESTING:
            depth += min(token.nesting, 0)
            _make_text(token)
        elif token.nesting < 0:
            depth -= 1


def _make_text(token: Token) -> None:
    token.type, token.tag, token.nesting, token.content = "text", "", 0, token.markup
