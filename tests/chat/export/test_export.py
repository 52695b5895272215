"""A conversation taken home: whole, readable and harmless in each form, and well named."""

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
from tests.fake_upstream import ScriptedUpstream
from tests.processes import Server
from tests.streams import ask

OF_THE_FILE = {"html", "head", "meta", "title", "style", "body", "article", "header", "time"}
TEXTS = st.text(
    st.sampled_from("<>`~\"'!-?[]()#*|:/=\n\t ax汉") | st.characters(exclude_categories=["Cs"]),
    max_size=60,
)


class Page(HTMLParser):
    """What a file of HTML holds."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def said(*texts: str, **fields: Any) -> list[dict[str, Any]]:
    """A conversation of these texts, a question first; `fields` are its answers'."""
    return [
        {"role": "assistant", "content": text, "created": 0, **fields}
        if number % 2
        else {"role": "user", "content": text, "created": 0}
        for number, text in enumerate(texts)
    ]


def headings(markdown: str) -> list[str]:
    """The second-level headings that a reader of Markdown sees."""
    tokens = MarkdownIt("commonmark", {"maxNesting": 200}).parse(markdown)
    return [
        text.content
        for tag, text in pairwise(tokens)
        if (tag.type, tag.tag) == ("heading_open", "h2")
    ]


async def begun(
    client: httpx.AsyncClient,
    upstream: ScriptedUpstream,
    question: str,
    *,
    title: str | None = None,
) -> str:
    """Ask a question; returns the path of its conversation, which has this title."""
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
def test_what_a_text_leaves_open_swallows_nothing_after_it(open_text: str) -> None:
    markdown = rendering.as_markdown("t", said("q", open_text, "next", finish_reason="stopped"))
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
def test_nothing_is_added_to_a_text_that_leaves_nothing_open(text: str) -> None:
    assert f"UTC\n\n{text}\n\n## " in rendering.as_markdown("t", said(text, "answer"))


@given(st.lists(TEXTS, max_size=4))
def test_any_texts_stand_whole_in_markdown_below_headings_of_their_own(texts: list[str]) -> None:
    markdown = rendering.as_markdown("t", said(*texts))
    ref = 0
    for text in texts:
        ref = markdown.index(text, ref) + len(text)
    ours = [h for h in headings(markdown) if h.endswith("· 1970-01-01 00:00 UTC")]
    assert len(ours) == len(texts)


def test_a_title_forges_no_heading() -> None:
    markdown = rendering.as_markdown("a\n\n## Assistant · now", said("q"))
    assert markdown.startswith("# a ## Assistant · now\n\n## You · ")


@given(TEXTS, st.lists(TEXTS, max_size=3), TEXTS)
def test_any_conversation_is_a_harmless_page(title: str, texts: list[str], model: str) -> None:
    page = rendering.as_html(title, said(*texts, model=model))
    tags = Page(page).tags
    assert {tag for tag, _ in tags} <= OF_THE_FILE | rendering._TAGS
    assert [tag for tag, _ in tags].count("article") == len(texts)
    for tag, attributes in tags:
        assert not any(name.startswith("on") or name in ("src", "style") for name in attributes), (
            tag
        )


def test_a_page_needs_and_loads_nothing_else() -> None:
    page = rendering.as_html("<b>&", said("q", "![x](https://b.example/i.png)", model="m<1>"))
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


def test_a_question_is_shown_as_it_was_typed() -> None:
    page = rendering.as_html("t", said("**a**  <b>\n\tc &amp;"))
    assert '<p class="said">**a**  &lt;b&gt;\n\tc &amp;amp;</p>' in page


@pytest.mark.parametrize(
    ("reason", "note"),
    [
        ("stopped", "This answer was stopped."),
        ("length", "This answer was cut off at the model's limit."),
        ("content_filter", "This answer was cut off by the model's filter."),
        ("failed", "This answer broke off."),
        ("stop", ""),
    ],
)
def test_an_answer_that_is_not_whole_says_so(reason: str, note: str) -> None:
    messages = said("q", "a", finish_reason=reason)
    assert ('<p class="note">' in rendering.as_html("t", messages)) is bool(note)
    assert note in rendering.as_html("t", messages)
    assert rendering.as_markdown("t", messages).endswith(
        f"\n\na\n\n*{note}*\n" if note else "\n\na\n"
    )


@given(st.text())
def test_any_title_names_a_file_and_nothing_else(title: str) -> None:
    value = rendering.file_name(title, "html")
    assert value.isascii()
    assert value.isprintable()
    plain, _, quoted = value.removeprefix('attachment; filename="').partition(
        "\"; filename*=UTF-8''"
    )
    for name in (plain, unquote(quoted, errors="strict")):
        assert name.endswith(".html")
        assert not set(name) & set('/\\:"\r\n\0')
        assert not name.startswith(".")
        assert len(name.encode()) <= 255


async def test_a_download_is_named_for_its_title(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    path = await begun(client, upstream, question, title='../天气：明天"\r\nX-Forged: 1')
    for kind, extension in (("markdown", "md"), ("json", "json"), ("html", "html")):
        response = await client.get(f"{path}/export", params={"format": kind})
        assert response.status_code == 200
        assert "x-forged" not in response.headers
        plain, _, quoted = response.headers["content-disposition"].partition("; filename*=UTF-8''")
        assert plain == f'attachment; filename="conversation.{extension}"'
        assert unquote(quoted) == f"天气：明天 X-Forged 1.{extension}"
        assert response.headers["content-type"].endswith("; charset=utf-8")


async def test_an_export_says_what_is_shown(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    path = await begun(client, upstream, question, title="天气")
    shown = (await client.get(path)).json()
    exported = await client.get(f"{path}/export", params={"format": "json"})
    assert exported.json() == {name: value for name, value in shown.items() if name != "earlier"}
    assert "天气" in exported.text
    plain = await client.get(f"{path}/export")
    assert plain.text == (await client.get(f"{path}/export", params={"format": "markdown"})).text
    assert plain.text == rendering.as_markdown(shown["title"], shown["messages"])


async def test_an_unknown_format_is_refused_with_the_known_ones(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    path = await begun(client, upstream, question)
    for unknown in ("pdf", "", "HTML", "../x"):
        response = await client.get(f"{path}/export", params={"format": unknown})
        assert (response.status_code, response.json()["error"]["type"]) == (400, "bad_request")
        assert "markdown, json, html" in response.json()["error"]["message"]


async def test_another_sessions_conversation_is_unknown(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, server: Server, question: str
) -> None:
    path = await begun(client, upstream, question)
    async with httpx.AsyncClient(base_url=server.url) as stranger:
        for kind in ("markdown", "json", "html"):
            response = await stranger.get(f"{path}/export", params={"format": kind})
            assert (response.status_code, response.json()["error"]["type"]) == (404, "not_found")
            assert question not in response.text
