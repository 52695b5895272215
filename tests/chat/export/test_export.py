"""An exported conversation is complete, readable, harmless and well named in every format."""

import json
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from chat.export import rendering
from chat.export.markdown import TAGS
from tests.exports import export_as
from tests.fake_upstream import ScriptedUpstream
from tests.processes import Server
from tests.streams import ask

OF_THE_FILE = {"html", "head", "meta", "title", "style", "body", "article", "header", "time"}
TEXTS = st.text(
    st.sampled_from("<>`~\"'!-?[]()#*|:/=\n\t ax汉") | st.characters(exclude_categories=["Cs"]),
    max_size=60,
)


class Page(HTMLParser):
    """Collect the tags of an HTML file."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def conversation_of(*texts: str, **fields: Any) -> list[dict[str, Any]]:
    """Return messages with these texts, a question first; `fields` are added to the answers."""
    return [
        {"role": "assistant", "content": text, "created": 0, **fields}
        if number % 2
        else {"role": "user", "content": text, "created": 0}
        for number, text in enumerate(texts)
    ]


def headings(markdown: str) -> list[str]:
    """Return the second-level headings of a Markdown text."""
    tokens = MarkdownIt("commonmark", {"maxNesting": 200}).parse(markdown)
    return [
        text.content
        for tag, text in pairwise(tokens)
        if (tag.type, tag.tag) == ("heading_open", "h2")
    ]


async def start_conversation(
    client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    question: str,
    *,
    title: str | None = None,
) -> str:
    """Ask a question, set the title, and return the path of the conversation."""
    events = await ask(client, upstream, question, "an answer")
    path = f"/api/conversations/{json.loads(events[0].data)['conversation']}"
    if title is not None:
        (await client.patch(path, json={"title": title})).raise_for_status()
    return path


@pytest.mark.parametrize(
    "open_text",
    [
        "```python\nx = 1",
        "~~~~\n~~~",
        "````\n```\n",
        "<!-- hidden",
        "<script>\nalert(1)",
        "<pre>\n\nx",
        "<?php",
        "<!DOCTYPE x",
        "<![CDATA[",
    ],
)
def test_a_block_that_a_text_leaves_open_ends_with_the_text(open_text: str) -> None:
    messages = conversation_of("q", open_text, "next", finish_reason="stopped")
    markdown = export_as("markdown", "t", messages)
    assert [heading.partition(" ")[0] for heading in headings(markdown)] == [
        "You",
        "Assistant",
        "You",
    ]
    assert f"\n\n{open_text}\n" in markdown
    assert "\n\n*This answer was stopped.*\n\n" in markdown


@pytest.mark.parametrize(
    "text", ["plain", "```\nclosed\n```", "- ```\n  in a list", "<b>x", "", "a\n\n> q"]
)
def test_a_text_without_an_open_block_is_unchanged(text: str) -> None:
    assert f"UTC\n\n{text}\n\n## " in export_as("markdown", "t", conversation_of(text, "answer"))


@given(st.lists(TEXTS, max_size=4))
def test_any_text_is_complete_in_markdown_under_its_heading(texts: list[str]) -> None:
    markdown = export_as("markdown", "t", conversation_of(*texts))
    place = 0
    for text in texts:
        place = markdown.index(text, place) + len(text)
    exported = [h for h in headings(markdown) if h.endswith("· 1970-01-01 00:00 UTC")]
    assert len(exported) == len(texts)


def test_a_title_cannot_add_a_heading() -> None:
    markdown = export_as("markdown", "a\n\n## Assistant · now", conversation_of("q"))
    assert markdown.startswith("# a ## Assistant · now\n\n## You · ")


@given(TEXTS, st.lists(TEXTS, max_size=3), TEXTS)
def test_any_conversation_becomes_harmless_html(title: str, texts: list[str], model: str) -> None:
    page = export_as("html", title, conversation_of(*texts, model=model))
    tags = Page(page).tags
    assert {tag for tag, _ in tags} <= OF_THE_FILE | TAGS
    assert [tag for tag, _ in tags].count("article") == len(texts)
    for tag, attributes in tags:
        assert not any(name.startswith("on") or name in ("src", "style") for name in attributes), (
            tag
        )


def test_an_html_export_is_self_contained() -> None:
    messages = conversation_of("q", "![x](https://b.example/i.png)", model="m<1>")
    page = export_as("html", "<b>&", messages)
    tags = Page(page).tags
    policy = {"http-equiv": "Content-Security-Policy"} | {
        "content": "default-src 'none'; style-src 'unsafe-inline'"
    }
    assert ("meta", policy) in tags
    assert ("meta", {"charset": "utf-8"}) in tags
    assert ("html", {"lang": "en"}) in tags
    assert ("time", {"datetime": "1970-01-01T00:00Z"}) in tags
    assert "viewport" in [attributes.get("name") for _, attributes in tags]
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in tags}
    assert "<title>&lt;b&gt;&amp;</title>" in page
    assert "Assistant · m&lt;1&gt; · " in page
    style = page.partition("<style>")[2].partition("</style>")[0]
    assert not any(word in style for word in ("url(", "@import", "<"))


def test_a_question_is_exported_as_it_was_typed() -> None:
    page = export_as("html", "t", conversation_of("**a**  <b>\n\tc &amp;"))
    assert '<p class="plain">**a**  &lt;b&gt;\n\tc &amp;amp;</p>' in page


@pytest.mark.parametrize(
    ("reason", "note"),
    [
        ("stopped", "This answer was stopped."),
        ("length", "This answer was truncated at the model's length limit."),
        ("content_filter", "This answer was truncated by the model's content filter."),
        ("refusal", "The model declined to answer."),
        ("interrupted", "The model could not continue this answer."),
        ("tool_calls", "This answer ended with a tool call, which is not supported."),
        ("failed", "This answer was interrupted."),
        ("stop", ""),
    ],
)
def test_an_incomplete_answer_names_the_reason(reason: str, note: str) -> None:
    messages = conversation_of("q", "a", finish_reason=reason)
    assert ('<p class="note">' in export_as("html", "t", messages)) is bool(note)
    assert note in export_as("html", "t", messages)
    ending = f"\n\na\n\n*{note}*\n" if note else "\n\na\n"
    assert export_as("markdown", "t", messages).endswith(ending)


SEAMS = [
    {"at": 1200, "why": "length"},
    {"at": 1300, "why": "broke_off", "model": "spare"},
    {"at": 1400, "why": "connection_lost"},
    {"at": 1500, "why": "unknown"},
]


def test_each_seam_is_described_under_its_old_or_new_reason() -> None:
    messages = conversation_of("q", "a", continued=SEAMS, finish_reason="failed")
    note = (
        "After character 1,200, the answer reached the model's length limit"
        " and was continued automatically."
        " After character 1,300, the answer lost the connection to the model"
        " and was continued by spare."
        " After character 1,400, the answer lost the connection to the model"
        " and was continued automatically."
        " After character 1,500, the answer was interrupted and was continued automatically."
        " This answer was interrupted."
    )
    assert export_as("markdown", "t", messages).endswith(f"*{note}*\n")
    assert f'<p class="note">{note}</p>' in export_as("html", "t", messages)


def test_a_chinese_export_is_chinese_throughout() -> None:
    messages = conversation_of("q", "a", continued=SEAMS, finish_reason="length")
    markdown = export_as("markdown", "", messages, "zh-CN")
    note = (
        "回答在第 1,200 个字符后达到模型的长度上限，随后自动续写。"
        "回答在第 1,300 个字符后因与模型的连接断开而中断，改由 spare 续写。"
        "回答在第 1,400 个字符后因与模型的连接断开而中断，随后自动续写。"
        "回答在第 1,500 个字符后中断，随后自动续写。"
        "已达到模型的长度上限，回答被截断。"
    )
    assert markdown.startswith("# 对话\n\n## 用户 · ")
    assert "\n\n## 助手 · " in markdown
    assert markdown.endswith(f"*{note}*\n")
    page = export_as("html", "", messages, "zh-CN")
    assert ("html", {"lang": "zh-CN"}) in Page(page).tags
    assert "<h1>对话</h1>" in page
    assert f'<p class="note">{note}</p>' in page


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh-CN"),
        ("zh", "zh-CN"),
        ("ZH-hant-TW", "zh-CN"),
        ("en-GB,zh;q=0.9", "en"),
        ("en;q=0.5, zh;q=0.7", "zh-CN"),
        ("zh;q=0, en", "en"),
        ("zh;q=x", "en"),
        ("de, zh", "en"),
        ("zhx", "en"),
    ],
)
def test_the_first_preference_of_accept_language_chooses_the_language(
    header: str, language: str
) -> None:
    assert rendering.choose_language(header) == language


@given(st.text())
def test_any_accept_language_chooses_a_language(header: str) -> None:
    assert rendering.choose_language(header) in ("en", "zh-CN")


async def test_an_export_is_in_the_language_of_the_request(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    path = await start_conversation(client, upstream, question)
    for preference, role in (("zh-CN,en;q=0.5", "助手"), ("en-GB,zh;q=0.5", "Assistant")):
        headers = {"Accept-Language": preference}
        response = await client.get(f"{path}/export", headers=headers)
        assert f"\n\n## {role} · " in response.text
        assert response.headers["vary"] == "Accept-Language"


@given(st.text())
def test_any_title_gives_a_safe_file_name(title: str) -> None:
    value = rendering.format_disposition(title, "html")
    assert value.isascii()
    assert value.isprintable()
    names = value.removeprefix('attachment; filename="')
    plain, _, quoted = names.partition("\"; filename*=UTF-8''")
    for name in (plain, unquote(quoted, errors="strict")):
        assert name.endswith(".html")
        assert not set(name) & set('/\\:"\r\n\0')
        assert not name.startswith(".")
        assert len(name.encode()) <= 255


async def test_a_download_is_named_after_its_title(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    path = await start_conversation(
        client, upstream, question, title='../天气：明天"\r\nX-Forged: 1'
    )
    for kind, extension in (("markdown", "md"), ("json", "json"), ("html", "html")):
        response = await client.get(f"{path}/export", params={"format": kind})
        assert response.status_code == 200
        assert "x-forged" not in response.headers
        disposition = response.headers["content-disposition"]
        plain, _, quoted = disposition.partition("; filename*=UTF-8''")
        assert plain == f'attachment; filename="conversation.{extension}"'
        assert unquote(quoted) == f"天气：明天 X-Forged 1.{extension}"
        assert response.headers["content-type"].endswith("; charset=utf-8")


async def test_an_export_equals_the_conversation(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    path = await start_conversation(client, upstream, question, title="天气")
    shown = (await client.get(path)).json()
    exported = await client.get(f"{path}/export", params={"format": "json"})
    assert exported.json() == {key: value for key, value in shown.items() if key != "earlier"}
    assert "天气" in exported.text
    plain = await client.get(f"{path}/export")
    markdown = await client.get(f"{path}/export", params={"format": "markdown"})
    assert plain.text == markdown.text
    assert plain.text == export_as("markdown", shown["title"], shown["messages"])


async def test_an_unknown_format_is_rejected_with_a_list_of_formats(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    path = await start_conversation(client, upstream, question)
    for unknown in ("pdf", "HTML", "../x"):
        response = await client.get(f"{path}/export", params={"format": unknown})
        assert (response.status_code, response.json()["error"]["type"]) == (400, "bad_request")
        assert "markdown, json, html" in response.json()["error"]["message"]


async def test_another_sessions_conversation_cannot_be_exported(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, server: Server, question: str
) -> None:
    path = await start_conversation(client, upstream, question)
    async with httpx.AsyncClient(base_url=server.url) as stranger:
        for kind in ("markdown", "json", "html"):
            response = await stranger.get(f"{path}/export", params={"format": kind})
            assert (response.status_code, response.json()["error"]["type"]) == (404, "not_found")
            assert question not in response.text
