"""Render Markdown to safe HTML. Pure.

Texts of models and users are hostile: HTML in them is shown as text, and the rendered Markdown is
sanitised by nh3. Its cost can grow faster than its length: render_process.py limits the time.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock, paragraph
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
    markdown.block.ruler.at("paragraph", _parse_paragraph)
    markdown.core.ruler.after("cell_breaks", "link_words", _show_words)
    for cell in ("td_open", "th_open"):
        markdown.add_render_rule(cell, _render_cell_with_align)
    return markdown


@cache
def _create_block_parser() -> MarkdownIt:
    """Return a parser that finds blocks as other programs do, with HTML blocks."""
    markdown = MarkdownIt("commonmark").use(cap_nesting)
    markdown.disable(["inline", "text_join", "reference"])
    return markdown


def _parse_paragraph(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """Parse a paragraph; the built-in rule removes an indent of wide spaces (U+3000)."""
    if not paragraph(state, start, end, silent):
        return False
    text = state.getLines(start, state.line, state.blkIndent, False)
    state.tokens[-2].content = text.strip(" \t\n")
    return True


def _show_words(state: StateCore) -> None:
    """Show an image as a link, or as text in a link; a title after its link; and the address of a
    link without words.
    """
    for block in state.tokens:
        if block.type == "inline":
            block.children = list(_replace_images(block.children or []))


def _replace_images(children: list[Token]) -> Iterator[Token]:
    link: Token | None = None
    words = title = ""
    for token in children:
        if token.type == "link_open":
            link, words, title = token, "", str(token.attrs.pop("title", ""))
        elif token.type == "link_close" and link:
            if not words.strip():
                yield _create_text(str(link.attrs.get("href", "")))
            link = None
        shown = _show_image(token, link is not None) if token.type == "image" else [token]
        words += _read_words(shown)
        yield from shown
        if token.type == "link_close" and title:
            yield _create_text(f" ({title})")


def _show_image(image: Token, is_in_link: bool) -> list[Token]:
    address = str(image.attrs.get("src", ""))
    words = _create_text(_read_words(image.children or []) or address)
    title = _create_text(f" ({image.attrs['title']})" if "title" in image.attrs else "")
    if is_in_link:
        return [words, title]
    opening = Token("link_open", "a", 1, attrs={"href": address})
    return [opening, words, Token("link_close", "a", -1), title]


def _read_words(tokens: list[Token]) -> str:
    """Return the text of tokens, without markup."""
    text = ""
    for token in tokens:
        if token.type == "image":
            text += _read_words(token.children or [])
        else:
            text += "\n" if token.type in ("softbreak", "hardbreak") else token.content
    return text


def _create_text(content: str) -> Token:
    return Token("text", "", 0, content=content)


def _render_cell_with_align(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    """Replace the style of a table cell by `align`, because nh3 removes styles."""
    token = tokens[index]
    align = str(token.attrs.pop("style", "")).removeprefix("text-align:")
    return f'<{token.tag} align="{align}">' if align else f"<{token.tag}>"
