"""Markdown becomes safe HTML, and a conversation a file."""

import json
import re
from html.parser import HTMLParser

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.export import rendering
from chat.export.markdown import TAGS, markdown_to_html
from tests import visible_text
from tests.answer_texts import (
    Answer,
    find_missing,
    generate_answer,
    generate_prose,
    keep_letters,
)
from tests.exports import export_as
from tests.fake_upstream import ScriptedUpstream
from tests.processes import ROOT
from tests.streams import ask

CASES = json.loads((ROOT / "tests" / "cjk_emphasis.json").read_text())


class Seen(HTMLParser):
    """Every tag with its attributes that a document has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def harmless(text: str) -> None:
    for tag, attributes in Seen(text).tags:
        assert tag in TAGS
        assert set(attributes) <= {"href", "class", "start", "value", "align", "rel", "target"}
        assert (
            (attributes.get("href") or "http:").lower().startswith(("http:", "https:", "mailto:"))
        )


@pytest.mark.parametrize(("markdown", "expected"), CASES)
def test_emphasis_next_to_chinese_punctuation_is_exported(markdown: str, expected: str) -> None:
    assert markdown_to_html(markdown) == f"<p>{expected}</p>\n"


@pytest.mark.parametrize(("markdown", "expected"), visible_text.CASES)
def test_an_export_shows_the_marks_of_prose(markdown: str, expected: str) -> None:
    assert visible_text.simplify(markdown_to_html(markdown)) == expected


@given(st.randoms().map(generate_answer))
def test_every_letter_of_an_answer_is_exported(answer: Answer) -> None:
    shown = keep_letters(visible_text.read_text(markdown_to_html(answer.markdown)))
    assert not find_missing(answer.find_letters(), shown)


@given(st.randoms().map(generate_prose))
def test_every_character_of_prose_is_exported(text: str) -> None:
    shown = visible_text.read_text(markdown_to_html(text))
    assert "".join(shown.split()) == "".join(text.split())


@given(st.text(st.sampled_from("abé汉あ *_~>#-+|.:!?\n\"'(){}=/$@%^,;"), max_size=60))
def test_every_letter_of_any_text_without_links_and_code_is_exported(text: str) -> None:
    words = re.sub("~{3,}.*", "", text)  # the language of a code block
    shown = keep_letters(visible_text.read_text(markdown_to_html(text)))
    assert not find_missing(keep_letters(words), shown)


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt&colon;alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "![x](javascript:alert(1))",
        '![x](https://elsewhere.example/p.png "t" onerror=1)',
        "<svg onload=alert(1)>",
        "<style>body{}</style>",
        "<a href='javascript:1'>x</a>",
        '```"><script>alert(1)</script>\nx\n```',
        "<javascript:alert(1)>",
        "[x]: javascript:alert(1)\n\n[x]",
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "[x](vbscript:1) [x](file:///etc/passwd) [x](ftp://x.example)",
        "[x](y) [x](/etc/passwd) [x](//elsewhere.example) [x](#y) [x](?y) ![](y.png)",
    ],
)
def test_hostile_markdown_does_no_harm(hostile: str) -> None:
    harmless(markdown_to_html(hostile))


@given(
    st.text(
        st.sampled_from("<>\"'`*_[]()!#|-:&;/=\n\\ax汉") | st.characters(exclude_categories=["Cs"]),
        max_size=80,
    )
)
def test_any_text_is_rendered_and_harmless(text: str) -> None:
    harmless(markdown_to_html(text))


def test_markdown_as_models_write_it_is_rendered() -> None:
    text = (
        "# Title\n\n| a | b |\n|---|:-:|\n| 1 | ~~2~~ |\n\n```python\nx < 1\n```\n\n"
        "https://a.example ![alt](https://b.example/i.png)"
    )
    shown = markdown_to_html(text)
    for part in (
        "<h1>Title</h1>",
        '<td align="center"><s>2</s></td>',
        '<pre><code class="language-python">x &lt; 1\n</code></pre>',
        '<a href="https://a.example" target="_blank" rel="noopener noreferrer">https://a.example</a>',
        '<a href="https://b.example/i.png" target="_blank" rel="noopener noreferrer">alt</a>',
    ):
        assert part in shown
    assert "<img" not in shown


def test_a_list_with_many_levels_is_rendered_completely() -> None:
    text = "".join(f"{'  ' * level}- level {level}\n" for level in range(20)) + "\nafter\n"
    shown = markdown_to_html(text)
    assert all(f"level {level}" in shown for level in range(20))
    assert shown.endswith("<p>after</p>\n")


def test_each_of_many_definitions_of_links_is_found() -> None:
    text = (
        "".join(f"[{number}]: https://a.example/{number}\n" for number in range(3000))
        + "\n[2999]\n"
    )
    assert 'href="https://a.example/2999"' in markdown_to_html(text)


@pytest.mark.parametrize(
    ("title", "plain", "quoted"),
    [
        ("Plain name", "Plain name", "Plain%20name"),
        ("你好", "conversation", "%E4%BD%A0%E5%A5%BD"),
        ('a/../b"\r\nSet-Cookie: x', "a .. b Set-Cookie x", "a%20..%20b%20Set-Cookie%20x"),
        ("", "conversation", "conversation"),
    ],
)
def test_a_file_is_named_after_its_title(title: str, plain: str, quoted: str) -> None:
    expected = f"attachment; filename=\"{plain}.md\"; filename*=UTF-8''{quoted}.md"
    assert rendering.format_disposition(title, "md") == expected


async def test_a_conversation_is_exported_in_every_format(
    client: httpx.AsyncClient, upstream: ScriptedUpstream, question: str
) -> None:
    hostile_question = f"{question} <script>"
    events = await ask(client, upstream, hostile_question, "**注意：**正文", " <b>x</b>")
    path = "/api/conversations/" + json.loads(events[0].data)["conversation"]
    exported = await client.get(f"{path}/export")
    assert exported.headers["content-type"] == "text/markdown; charset=utf-8"
    assert exported.headers["content-disposition"].startswith("attachment; ")
    assert f"\n\n{hostile_question}\n\n" in exported.text
    assert "\n\n**注意：**正文 <b>x</b>\n" in exported.text
    page = await client.get(f"{path}/export", params={"format": "html"})
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<strong>注意：</strong>正文 &lt;b&gt;x&lt;/b&gt;" in page.text
    assert "&lt;script&gt;" in page.text
    tags = Seen(page.text).tags
    assert "script" not in {tag for tag, _ in tags}
    assert not [attributes for _, attributes in tags if "src" in attributes or "href" in attributes]
    whole = (await client.get(f"{path}/export", params={"format": "json"})).json()
    shown = (await client.get(path)).json()
    assert whole == {name: value for name, value in shown.items() if name != "earlier"}
    assert (await client.get(f"{path}/export", params={"format": "pdf"})).status_code == 400
    assert (await client.get("/api/conversations/unknown/export")).status_code == 404


def test_seams_and_the_finish_reason_are_in_every_format() -> None:
    message = {"role": "assistant", "content": "x", "created": 0, "finish_reason": "length"}
    message["continued"] = [{"at": 1, "why": "length"}, {"at": 2, "why": "interrupted"}]
    for exported in (export_as("markdown", "t", [message]), export_as("html", "t", [message])):
        assert "After character 1, the answer reached the model's length limit" in exported
        assert "After character 2, the answer was interrupted by a server failure" in exported
        assert "This answer was truncated" in exported
    assert "1970-01-01 00:00 UTC" in export_as("markdown", "t", [message])
