"""Markdown → safe HTML, and a conversation as a file to take home. Pure.

What a model or person wrote is hostile: HTML in it is text, what Markdown makes of it is cleaned by nh3,
and a file loads nothing from anywhere.
"""

import html
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock, reference
from markdown_it.token import Token
from mdit_py_cjk_friendly import cjk_friendly

_TAGS = {
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p",
    "pre", "s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
_ATTRIBUTES = {
    "a": {"href", "title"},
    "code": {"class"},
    "ol": {"start"},
    "td": {"align"},
    "th": {"align"},
}
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_NAMES = {"user": "You", "assistant": "Assistant"}
_NOTES = {
    "stopped": "This answer was stopped.",
    "length": "This answer was cut off at the model's limit.",
    "content_filter": "This answer was cut off by the model's filter.",
    "failed": "This answer broke off.",
}

_NAME_MAX_BYTES = 200
"""Longest file name without its extension: file systems take 255 bytes."""
_DEFINITION_MAX_LINES = 10
"""How far the definition of a link may reach."""
_NESTING_MAX = 50
"""Levels of lists and quotes; what lies deeper is lost, and with the usual 20 a list of ten levels is."""

Message = dict[str, Any]


def markdown_to_html(text: str) -> str:
    """A fragment of HTML that may be shown as it is: images are links, links open apart and tell nothing."""
    return nh3.clean(
        _markdown().render(text),
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        url_relative="deny",  # in a file at home it would lead to other files there
        link_rel="noopener noreferrer",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


def as_markdown(title: str, messages: Sequence[Message]) -> str:
    """The conversation as Markdown, its texts unchanged; what one leaves open is closed after it."""
    parts = [f"# {' '.join(title.split()) or 'Conversation'}"]
    for message in messages:
        parts.append(f"## {_NAMES[message['role']]} · {_when(message)}")
        parts.append(message["content"] + _closing(message["content"]))
        if note := _note(message):
            parts.append(f"*{note}*")
    return "\n\n".join(parts) + "\n"


def as_json(conversation: dict[str, Any]) -> str:
    """The conversation as the API gives it."""
    return json.dumps(conversation, ensure_ascii=False, indent=2) + "\n"


def as_html(title: str, messages: Sequence[Message]) -> str:
    """The conversation as one file that needs nothing else."""
    shown = html.escape(title or "Conversation")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{shown}</title>\n<style>\n{_style()}</style>\n</head>\n<body>\n<h1>{shown}</h1>\n"
        + "".join(_article(message) for message in messages)
        + "</body>\n</html>\n"
    )


def file_name(title: str, extension: str) -> str:
    """The value of a `Content-Disposition` header: a name in ASCII, and the title itself (RFC 6266)."""
    safe = "".join(c if c.isprintable() and c not in '/\\:*?"<>|%' else " " for c in title)
    short = " ".join(safe.split()).encode()[:_NAME_MAX_BYTES].decode(errors="ignore")
    name = short.strip(". ") or "conversation"
    plain = name if name.isascii() else "conversation"
    return f"attachment; filename=\"{plain}.{extension}\"; filename*=UTF-8''{quote(name, safe='')}.{extension}"


def _closing(text: str) -> str:
    """The line that ends what a text leaves open, such as the code in which an answer was stopped."""
    last = _blocks().parse(f"{text}\n\n# x")[-1]
    for end in (last.markup, "-->", "</script>", "?>", "]]>", ">"):
        if last.type == "heading_close":
            break
        if _blocks().parse(f"{text}\n{end}\n\n# x")[-1].type == "heading_close":
            return f"\n{end}"
    return ""


def _article(message: Message) -> str:
    role = message["role"]
    text = message["content"]
    body = (
        markdown_to_html(text)
        if role == "assistant"
        else f'<p class="said">{html.escape(text)}</p>\n'
    )
    model = f" · {html.escape(message['model'])}" if message.get("model") else ""
    note = _note(message)
    when = _when(message)
    return (
        f'<article class="{role}">\n<header>{_NAMES[role]}{model} · '
        f'<time datetime="{when.replace(" UTC", "Z").replace(" ", "T")}">{when}</time></header>\n{body}'
        + (f'<p class="note">{note}</p>\n' if note else "")
        + "</article>\n"
    )


def _note(message: Message) -> str:
    """What a reader must know of how an answer came to be."""
    times = len(message.get("continued", ()))
    continued = (
        f"This answer broke off and was continued, {times} time{'s' if times > 1 else ''}."
        if times
        else ""
    )
    return f"{continued} {_NOTES.get(message.get('finish_reason', ''), '')}".strip()


def _when(message: Message) -> str:
    return datetime.fromtimestamp(message["created"] / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


@cache
def _markdown() -> MarkdownIt:
    options = {"html": False, "linkify": True, "maxNesting": _NESTING_MAX}
    markdown = MarkdownIt("gfm-like", options).use(cjk_friendly)
    markdown.block.ruler.at("reference", _short_reference)
    markdown.add_render_rule("image", _image_as_link)
    for cell in ("td_open", "th_open"):
        markdown.add_render_rule(cell, _aligned)
    return markdown


@cache
def _blocks() -> MarkdownIt:
    """Finds blocks as other programs do, which take HTML for HTML."""
    markdown = MarkdownIt("commonmark", {"maxNesting": _NESTING_MAX}).disable(
        ["inline", "text_join"]
    )
    markdown.block.ruler.at("reference", _short_reference)
    return markdown


def _short_reference(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    """The rule for links' definitions, which else reads the whole paragraph for each: 29 kB took 16 s."""
    whole, state.lineMax = state.lineMax, min(state.lineMax, start + _DEFINITION_MAX_LINES)
    try:
        return reference(state, start, end, silent)
    finally:
        state.lineMax = whole


def _image_as_link(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    token = tokens[index]
    address = str(token.attrs.get("src", ""))
    words = self.renderInlineAsText(token.children, options, env) or address
    return f'<a href="{html.escape(address)}">{html.escape(words)}</a>'


def _aligned(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any
) -> str:
    """A cell's alignment as an attribute of its own: style is not let through."""
    token = tokens[index]
    align = str(token.attrs.pop("style", "")).removeprefix("text-align:")
    return f'<{token.tag} align="{align}">' if align else f"<{token.tag}>"


@cache
def _style() -> str:
    return Path(__file__).with_name("export.css").read_text(encoding="utf-8")
