"""Hide the definition of a link (`[label]: address`) only if a link uses it. Pure.

A log line (`[ERROR]: timeout`), a dialogue (`[Ann]: Hello!`) and a footnote (`[^1]: Textbook`) look
like definitions too: an address that cannot be opened, and a label with `^`, make text.

The web UI has the same rules in frontend/js/markdown/syntax/definitions.js;
tests/visible_text.json tests both.
"""

from collections.abc import Iterator
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock, reference
from markdown_it.rules_core import StateCore
from markdown_it.token import Token

_MAX_LINES = 10
"""Lines that the definition of a link may span."""


class _References(dict[str, Any]):
    """The definitions by their labels, and the labels that links use."""

    def __init__(self) -> None:
        super().__init__()
        self.used: set[str] = set()

    def __getitem__(self, label: str) -> Any:
        self.used.add(label)
        return super().__getitem__(label)

    def get(self, label: str, default: Any = None) -> Any:
        """Return a definition that an image uses."""
        self.used.add(label)
        return super().get(label, default)


def show_unused_definitions(markdown: MarkdownIt) -> None:
    """Make a parser show definitions that no link uses; a plugin for `MarkdownIt.use`."""
    markdown.options["inline_definitions"] = True
    markdown.block.ruler.at("reference", _parse_definition)
    markdown.core.ruler.after("inline", "unused_definitions", _show_unused)


def _parse_definition(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Parse a definition, from a few lines only.

    The built-in rule reads the rest of the paragraph for each definition: 29 kB took 16 s.
    """
    references = state.env.setdefault("references", _References())
    before = state.line, state.parentType
    last, state.lineMax = state.lineMax, min(state.lineMax, start + _MAX_LINES)
    try:
        if not reference(state, start, end, silent):
            return False
    finally:
        state.lineMax = last
    definition = state.tokens[-1].meta
    label = definition["id"]
    is_first = dict.get(references, label, {}).get("map", [])[:1] == [start]
    if label.startswith("^"):
        state.tokens.pop()
        state.line, state.parentType = before
        if is_first:
            del references[label]
        return False
    definition["is_first"] = is_first
    definition["text"] = state.getLines(start, state.line, state.blkIndent, False).strip()
    return True


def _show_unused(state: StateCore) -> None:
    references = state.env.get("references", _References())
    for label in references.keys() - references.used:
        del references[label]
    tokens: list[Token] = []
    texts: list[str] = []  # of adjacent definitions, which become one paragraph
    for token in state.tokens:
        if token.type != "definition":
            tokens += _create_paragraph(state, texts)
            tokens.append(token)
            texts = []
        elif not token.meta["is_first"] or token.meta["id"] not in references:
            texts.append(token.meta["text"])
    state.tokens = [*tokens, *_create_paragraph(state, texts)]


def _create_paragraph(state: StateCore, texts: list[str]) -> Iterator[Token]:
    if not texts:
        return
    inline = Token("inline", "", 0, content="\n".join(texts), children=[])
    assert inline.children is not None
    state.md.inline.parse(inline.content, state.md, state.env, inline.children)
    yield Token("paragraph_open", "p", 1, block=True)
    yield inline
    yield Token("paragraph_close", "p", -1, block=True)
