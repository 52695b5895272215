"""Render Markdown to safe HTML. Pure.

Texts of models and users are hostile: HTML in them is shown as text, and the rendered Markdown is
sanitised by nh3. Its cost can grow faster than its length: render_process.py limits the time.
"""

import html
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.token import Token

from chat.export.addresses import recognise_addresses
from chat.export.definitions import show_unused_definitions
from chat.export.list_numbers import keep_list_numbers
from chat.export.literal_marks import keep_literal_marks
from chat.export.nested_fences import nest_fences
from chat.export.nesting import cap_nesting
from chat.export.tables import keep_cells

TAGS = {
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li",
    "ol", "p", "pre", "s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
_ATTRIBUTES = {
    "a": {"href"}, "code": {"class"}, "li": {"value"}, "ol": {"start"},
    "td": {"align"}, "th": {"align"},
}  # fmt: skip


def markdown_to_html(text: str) -> str:
    """Return safe HTML. Images become links; links open a new tab and send no referrer."""
    return nh3.clean(
        _create_parser().render(text),
        tags=TAGS,
        attributes=_ATTRIBUTES,
        url_schemes={"http", "https", "mailto", "tel"},
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
    markdown = MarkdownIt("gfm-like", {"html": False, "linkify": False, "breaks": True})
    for plugin in (
        cap_nesting, keep_literal_marks, recognise_addresses, show_unused_definitions,
        nest_fences, keep_cells, keep_list_numbers,
    ):  # fmt: skip
        markdown.use(plugin)
    markdown.core.ruler.after("inline", "titles", _show_titles)
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


def _show_titles(state: StateCore) -> None:
    """Show the title of a link after the link."""
    for block in state.tokens:
        if block.type == "inline":
            block.children = list(_add_titles(block.children or []))


def _add_titles(children: list[Token]) -> Iterator[Token]:
    title = ""
    for token in children:
        yield token
        if token.type == "link_open":
            title = str(token.attrs.pop("title", ""))
        elif token.type == "link_close" and title:
            yield Token("text", "", 0, content=f" ({title})")


def _render_image_as_link(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    token = tokens[index]
    address = str(token.attrs.get("src", ""))
    text = self.renderInlineAsText(token.children, options, env) or address
    title = str(token.attrs.get("title", ""))
    words = f" ({html.escape(title)})" if title else ""
    return f'<a href="{html.escape(address)}">{html.escape(text)}</a>{words}'


def _render_cell_with_align(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    """Replace the style of a table cell by `align`, because nh3 removes styles."""
    token = tokens[index]
    align = str(token.attrs.pop("style", "")).removeprefix("text-align:")
    return f'<{token.tag} align="{align}">' if align else f"<{token.tag}>"
