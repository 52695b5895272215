"""Export a conversation as a file, which loads nothing. Pure.

A file has a piece for each message, because `Renderer` renders the pieces in a separate process.
"""

import html
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from chat.export.markdown import find_closing_line, markdown_to_html

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_MAX_NAME_BYTES = 200
"""File name without its extension: file systems accept 255 bytes."""
Message = dict[str, Any]
Language = Literal["en", "zh-CN"]
FileFormat = Literal["markdown", "html"]


@dataclass(frozen=True)
class _Texts:
    """The texts of an exported file in one language."""

    space: str  # between sentences
    untitled: str
    roles: dict[str, str]
    finish_reasons: dict[str, str]
    seam_reasons: dict[str, str]
    seam: Callable[[int, str, str], str]
    plain_text: str


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
            "refusal": "The model declined to answer.",
            "interrupted": "The model could not continue this answer.",
            "tool_calls": "This answer ended with a tool call, which is not supported.",
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
        plain_text="This message could not be formatted. It is shown as plain text.",
    ),
    "zh-CN": _Texts(
        space="",
        untitled="对话",
        roles={"user": "用户", "assistant": "助手"},
        finish_reasons={
            "stopped": "回答已停止。",
            "length": "已达到模型的长度上限，回答被截断。",
            "content_filter": "回答被模型的内容过滤器截断。",
            "refusal": "模型拒绝回答。",
            "interrupted": "回答已中断：模型未能继续写完。",
            "tool_calls": "回答以工具调用结束；暂不支持工具调用。",
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
        plain_text="此消息无法排版，已按纯文本显示。",
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


def render_file(
    kind: FileFormat, title: str, pieces: Sequence[str], language: Language = "en"
) -> str:
    """Return the file of a conversation; `pieces` are its messages, as `render_message` returns."""
    texts = _TEXTS[language]
    if kind == "markdown":
        return f"# {' '.join(title.split()) or texts.untitled}\n" + "".join(pieces)
    escaped = html.escape(title or texts.untitled)
    return (
        f'<!doctype html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped}</title>\n<style>\n{_read_style()}</style>\n</head>\n"
        f"<body>\n<h1>{escaped}</h1>\n" + "".join(pieces) + "</body>\n</html>\n"
    )


def render_message(
    kind: FileFormat, message: Message, language: Language = "en", *, is_plain: bool = False
) -> str:
    """Return a message as a piece of a file.

    Its cost can grow faster than the text, unless `is_plain`: then it is plain text, with a note.
    """
    render = _render_section if kind == "markdown" else _render_article
    return render(message, _TEXTS[language], is_plain)


def as_json(conversation: dict[str, Any]) -> str:
    """Export the conversation as the API returns it."""
    return json.dumps(conversation, ensure_ascii=False, indent=2) + "\n"


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


def _render_section(message: Message, texts: _Texts, is_plain: bool) -> str:
    """Return the text unchanged, then the end of an open block; a plain text is a code block."""
    text = message["content"]
    body = _fence(text) if is_plain else text + find_closing_line(text)
    note = _describe_message(message, texts, is_plain)
    parts = [f"## {texts.roles[message['role']]} · {_format_time(message)}", body]
    parts += [f"*{note}*"] if note else []
    return "".join(f"\n{part}\n" for part in parts)


def _fence(text: str) -> str:
    """Return a code block with the text; its fence is longer than any in the text."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def _render_article(message: Message, texts: _Texts, is_plain: bool) -> str:
    role, text = message["role"], message["content"]
    if role == "assistant" and not is_plain:
        body = markdown_to_html(text)
    else:
        body = f'<p class="plain">{html.escape(text)}</p>\n'
    model = f" · {html.escape(message['model'])}" if message.get("model") else ""
    note = html.escape(_describe_message(message, texts, is_plain), quote=False)
    time = _format_time(message)
    iso_time = time.replace(" UTC", "Z").replace(" ", "T")
    return (
        f'<article class="{role}">\n<header>{texts.roles[role]}{model} · '
        f'<time datetime="{iso_time}">{time}</time></header>\n{body}'
        + (f'<p class="note">{note}</p>\n' if note else "")
        + "</article>\n"
    )


def _describe_message(message: Message, texts: _Texts, is_plain: bool) -> str:
    """Return why a text is plain, where it was continued, and why it is incomplete."""
    notes = [texts.plain_text] if is_plain else []
    notes += [_describe_seam(seam, texts) for seam in message.get("continued", ())]
    notes.append(texts.finish_reasons.get(message.get("finish_reason", ""), ""))
    return texts.space.join(filter(None, notes))


def _describe_seam(seam: dict[str, Any], texts: _Texts) -> str:
    reason = _RENAMED_REASONS.get(seam["why"], seam["why"])
    text = texts.seam_reasons.get(reason, texts.seam_reasons[""])
    return texts.seam(seam["at"], text, seam.get("model") or "")


def _format_time(message: Message) -> str:
    return datetime.fromtimestamp(message["created"] / 1000, UTC).strftime("%Y-%m-%d %H:%M UTC")


@cache
def _read_style() -> str:
    return Path(__file__).with_name("export.css").read_text(encoding="utf-8")
