"""Render Markdown to safe HTML, and export a conversation as a file. Pure.

Texts of models and users are hostile: HTML in them is shown as text, the rendered Markdown is
sanitised by nh3, and an exported file loads nothing.
"""

import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_block import StateBlock, reference
from markdown_it.token import Token
from mdit_py_cjk_friendly import cjk_friendly

_TAGS = {
    "a", "blockquote", "br", "code", "del", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li",
    "ol", "p", "pre", "s", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip
_ATTRIBUTES = {
    "a": {"href", "title"}, "code": {"class"}, "ol": {"start"}, "td": {"align"}, "th": {"align"},
}  # fmt: skip
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_MAX_NAME_BYTES = 200
"""File name without its extension: file systems accept 255 bytes."""
_MAX_DEFINITION_LINES = 10
"""Lines that the definition of a link may span."""
_MAX_NESTING = 50
"""Levels of lists and quotes; deeper text is dropped. The default, 20, drops it from level ten."""

Message = dict[str, Any]
Language = Literal["en", "zh-CN"]


@dataclass(frozen=True)
class _Texts:
    """The texts of an exported file in one language."""

    space: str  # between sentences
    untitled: str
    roles: dict[str, str]
    finish_reasons: dict[str, str]
    seam_reasons: dict[str, str]
    seam: Callable[[int, str, str], str]


def _describe_seam_in_english(at: int, reason: str, model: str) -> str:
    by = f"by {model}" if model else "automatically"
    return f"After character {at:,}, the answer {reason} and was continued {by}."


def _describe_seam_in_chinese(at: int, reason: str, model: str) -> str:
    by = f"改由 {model} 续写" if model else "随后自动续写"
    return f"回答在第 {at:,} 个字符后{reason}，{by}。"


_TEXTS: dict[Language, _Texts] = {
    "en": _Texts(
        space=" ",
        untitled="Conversation",
        roles={"user": "You", "assistant": "Assistant"},
        finish_reasons={
            "stopped": "This answer was stopped.",
            "length": "This answer was truncated at the model's length limit.",
            "content_filter": "This answer was truncated by the model's content filter.",
            "failed": "This answer was interrupted.",
        },
        seam_reasons={
            "length": "reached the model's length limit",
            "interrupted": "was interrupted by a server failure",
            "connection_lost": "lost the connection to the model",
            "timeout": "timed out waiting for the model",
            "rate_limited": "was rate-limited by the model service",
            "unreachable": "could not reach the model",
            "upstream": "was interrupted by an error of the model service",
            "": "was interrupted",
        },
        seam=_describe_seam_in_english,
    ),
    "zh-CN": _Texts(
        space="",
        untitled="对话",
        roles={"user": "用户", "assistant": "助手"},
        finish_reasons={
            "stopped": "回答已停止。",
            "length": "已达到模型的长度上限，回答被截断。",
            "content_filter": "回答被模型的内容过滤器截断。",
            "failed": "回答已中断。",
        },
        seam_reasons={
            "length": "达到模型的长度上限",
            "interrupted": "因服务器中断而停止",
            "connection_lost": "因与模型的连接断开而中断",
            "timeout": "因等待模型超时而中断",
            "rate_limited": "因模型服务繁忙而中断",
            "unreachable": "因无法连接模型而中断",
            "upstream": "因模型服务出错而中断",
            "": "中断",
        },
        seam=_describe_seam_in_chinese,
    ),
}

_RENAMED_REASONS = {"broke_off": "connection_lost"}
"""Reasons of seams that earlier releases stored."""


def choose_language(accept_language: str) -> Language:
    """Return the language of an export: Chinese if that is the client's first preference."""
    best, best_quality = "", 0.0
    for entry in accept_language.split(","):
        tag, _, parameter = entry.partition(";")
        quality = _parse_quality(parameter)
        if quality > best_quality:
            best, best_quality = tag.strip().lower(), quality
    return "zh-CN" if best.partition("-")[0] == "zh" else "en"


def markdown_to_html(text: str) -> str:
    """Return safe HTML. Images become links; links open a new tab and send no referrer."""
    return nh3.clean(
        _create_parser().render(text),
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        url_schemes={"http", "https", "mailto"},
        url_relative="deny",  # in a saved file, a relative link leads to the user's other files
        link_rel="noopener noreferrer",
        set_tag_attribute_values={"a": {"target": "_blank"}},
    )


def as_markdown(title: str, messages: Sequence[Message], language: Language = "en") -> str:
    """Export the conversation as Markdown: each text unchanged, then the end of an open block."""
    texts = _TEXTS[language]
    parts = [f"# {' '.join(title.split()) or texts.untitled}"]
    for message in messages:
        parts.append(f"## {texts.roles[message['role']]} · {_format_time(message)}")
        parts.append(message["content"] + _find_closing_line(message["content"]))
        if note := _describe_answer(message, texts):
            parts.append(f"*{note}*")
    return "\n\n".join(parts) + "\n"


def as_json(conversation: dict[str, Any]) -> str:
    """Export the conversation as the API returns it."""
    return json.dumps(conversation, ensure_ascii=False, indent=2) + "\n"


def as_html(title: str, messages: Sequence[Message], language: Language = "en") -> str:
    """Export the conversation as one self-contained file of HTML."""
    texts = _TEXTS[language]
    escaped = html.escape(title or texts.untitled)
    return (
        f'<!doctype html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped}</title>\n<style>\n{_read_style()}</style>\n</head>\n"
        f"<body>\n<h1>{escaped}</h1>\n"
        + "".join(_render_article(message, texts) for message in messages)
        + "</body>\n</html>\n"
    )


def format_disposition(title: str, extension: str) -> str:
    """Return a `Content-Disposition` header: a name in ASCII, and the title itself (RFC 6266)."""
    safe = "".join(c if c.isprintable() and c not in '/\\:*?"<>|%' else " " for c in title)
    short = " ".join(safe.split()).encode()[:_MAX_NAME_BYTES].decode(errors="ignore")
    name = short.strip(". ") or "conversation"
    plain = name if name.isascii() else "conversation"
    quoted = quote(name, safe="")
    return f"attachment; filename=\"{plain}.{extension}\"; filename*=UTF-8''{quoted}.{extension}"


def _parse_quality(parameter: str) -> float:
    """Return the weight of an entry of `Accept-Language`; 0 if it is malformed."""
    name, _, value = parameter.partition("=")
    if not name.strip():
        return 1.0
    try:
        return float(value) if name.strip().lower() == "q" else 0.0
    except ValueError:
        return 0.0


def _find_closing_line(text: str) -> str:
    """Return the line that closes an open block at the end of a text, such as a code block."""
    last = _create_block_parser().parse(f"{text}\n\n# x")[-1]
    for end in (last.markup, "-->", "</script>", "?>", "]]>", ">"):
        if last.type == "heading_close":
            break
        if _create_block_parser().parse(f"{text}\n{end}\n\n# x")[-1].type == "heading_close":
            return f"\n{end}"
    return ""


def _render_article(message: Message, texts: _Texts) -> str:
    role, text = message["role"], message["content"]
    plain = f'<p class="plain">{html.escape(text)}</p>\n'
    body = markdown_to_html(text) if role == "assistant" else plain
    model = f" · {html.escape(message['model'])}" if message.get("model") else ""
    note = html.escape(_describe_answer(message, texts), quote=False)
    time = _format_time(message)
    iso_time = time.replace(" UTC", "Z").replace(" ", "T")
    return (
        f'<article class="{role}">\n<header>{texts.roles[role]}{model} · '
        f'<time datetime="{iso_time}">{time}</time></header>\n{body}'
        + (f'<p class="note">{note}</p>\n' if note else "")
        + "</article>\n"
    )


def _describe_answer(message: Message, texts: _Texts) -> str:
    """Return where and why an answer was continued, and why it is incomplete."""
    notes = [_describe_seam(seam, texts) for seam in message.get("continued", ())]
    notes.append(texts.finish_reasons.get(message.get("finish_reason", ""), ""))
    return texts.space.join(filter(None, notes))


def _describe_seam(seam: dict[str, Any], texts: _Texts) -> str:
    reason = _RENAMED_REASONS.get(seam["why"], seam["why"])
    text = texts.seam_reasons.get(reason, texts.seam_reasons[""])
    return texts.seam(seam["at"], text, seam.get("model") or "")


def _format_time(message: Message) -> str:
    return datetime.fromtimestamp(message["created"] / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


@cache
def _create_parser() -> MarkdownIt:
    options = {"html": False, "linkify": True, "maxNesting": _MAX_NESTING}
    markdown = MarkdownIt("gfm-like", options).use(cjk_friendly)
    markdown.block.ruler.at("reference", _parse_short_reference)
    markdown.add_render_rule("image", _render_image_as_link)
    for cell in ("td_open", "th_open"):
        markdown.add_render_rule(cell, _render_cell_with_align)
    return markdown


@cache
def _create_block_parser() -> MarkdownIt:
    """Return a parser that finds blocks as other programs do, with HTML blocks."""
    markdown = MarkdownIt("commonmark", {"maxNesting": _MAX_NESTING})
    markdown.disable(["inline", "text_join"])
    markdown.block.ruler.at("reference", _parse_short_reference)
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


@cache
def _read_style() -> str:
    return Path(__file__).with_name("export.css").read_text(encoding="utf-8")
