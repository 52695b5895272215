"""Render Markdown to safe HTML. Pure.

Texts of models and users are hostile: HTML in them is shown as text, and the rendered Markdown is
sanitised by nh3. Its cost can grow faster than its length: render_process.py limits the time.
"""

import html
from collections.abc import Sequence
from functools import cache
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock, reference
from markdown_it.token import Token
from mdit_py_cjk_friendly import cjk_friendly

from chat.export.nesting import cap_nesting

TAGS = {
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li",
    "ol", "p", "pre", "s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
_ATTRIBUTES = {
    "a": {"href", "title"}, "code": {"class"}, "ol": {"start"}, "td": {"align"}, "th": {"align"},
}  # fmt: skip
_MAX_DEFINITION_LINES = 10
"""Lines that the definition of a link may span."""


def markdown_to_html(text: str) -> str:
    """Return safe HTML. Images become links; links open a new tab and send no referrer."""
    return nh3.clean(
        _create_parser().render(text),
        tags=TAGS,
        attributes=_ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        url_relative="deny",  # in a saved file, a relative link leads to the user's other files
        link_rel="noopener noreferrer",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


def find_closing_line(text: str) -> str:
    """Return the line that closes an open block at the end of a text, such as a code block."""
    last = _create_block_parser().parse(f"{text}\n\n# x")[-1]
    for end in (last.markup, "-->", "</script>", "?>", "]]>", ">"):
        if last.type == "heading_close":
            break
        if _create_block_parser().parse(f"{text}\n{end}\n\n# x")[-1].type == "heading_close":
            return f"\n{end}"
    return ""


@cache
def _create_parser() -> MarkdownIt:
    options = {"html": False, "linkify": True}
    markdown = MarkdownIt("gfm-like", options).use(cjk_friendly).use(cap_nesting)
    markdown.block.ruler.at("reference", _parse_short_reference)
    markdown.add_render_rule("image", _render_image_as_link)
    for cell in ("td_open", "th_open"):
        markdown.add_render_rule(cell, _render_cell_with_align)
    return markdown


@cache
def _create_block_parser() -> MarkdownIt:
    """Return a parser that finds blocks as other programs do, with HTML blocks."""
    markdown = MarkdownIt("commonmark").use(cap_nesting)
    markdown.disable(["inline", "text_join", "reference"])
    return markdown


def _parse_short_reference(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Parse the definition of a link, from a few lines only.

    The built-in rule reads the rest of the paragraph for each definition: 29 kB took 16 s.
    """
    last, state.lineMax = state.lineMax, min(state.lineMax, start + _MAX_DEFINITION_LINES)
    try:
        return reference(state, start, end, silent)
    finally:
        state.lineMax = last


def _render_image_as_link(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    token = tokens[index]
    address = str(token.attrs.get("src", ""))
    text = self.renderInlineAsText(token.children, options, env) or address
    return f'<a href="{html.escape(address)}">{html.escape(text)}</a>'


def _render_cell_with_align(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    """Replace the style of a table cell by `align`, because nh3 removes styles."""
    token = tokens[index]
    align = str(token.attrs.pop("style", "")).removeprefix("text-align:")
    return f'<{token.tag} align="{align}">' if align else f"<{token.tag}>"
