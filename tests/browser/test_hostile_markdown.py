"""An answer of any cost keeps the page usable, and changes nothing but its own message."""

import json

import pytest
from playwright.async_api import Browser, Locator, Page, expect

from tests.browser.chat_page import answers, ask, questions
from tests.fake_upstream import ScriptedUpstream
from tests.processes import ROOT, Server

NESTED = json.loads((ROOT / "tests" / "nesting.json").read_text())
"""The cases of tests/chat/export/test_renderer.py, which describes their values."""

UNITS = [
    "//a.b/", "[a]: b\n", "[a]: b '", "[x]: a\n\n[x]\n", "**a ", "**_a ", "**a*b ", "*a", "_a ",
    "~~a ", "`", "`a``", "![[[", "[![a](b)](", "[a](b", "[a](b \"", "[\\", "\\[", "<a ", "<a@",
    "<!--", "&", "&#1", "a@", "a@b.", "http://a ", "www.a.", "|a", "|a|\n|-|\n", "| a | b |\n",
    "[^1]: a\n", "> ", "> a\nb\n", "> - ", "- ", "- a\n", "- a\n b\n", "- a\n\n", "- [ ] a\n",
    "0) a\n", "***\na\n", "===\n", "# ", "```\n", "~~~ a\n", "    a\n", "中**", "**中。", "\u0301",
    "\u202e", "\u200d", "\t", "x\n",
    "__a", "http://a/)", "[a](b)(", "[a]: http://b\n", "&a;", "```md\n```a\n",
]  # fmt: skip
COSTLY = {unit: unit * (19_000 // len(unit)) for unit in UNITS} | {
    "open and closed": "*a " * 6000 + "b*",
    "backticks before a letter": "`" * 19_000 + "a",
    "links with an end": "[a](b" * 3000 + ")",
    "empty cells": "|a" * 6000 + "\n" + "|-" * 6000 + "\n" + "|\n" * 6000,
    "long address": f"[a]: https://{'b' * 15_000}\n\n" + "[a] " * 4000,
    "lazy lines": ("- " * 25 + "a\nb\n") * 500,
    "nested lists": "".join(f"{'  ' * (n % 200)}- a\n" for n in range(400)),
    "one long paragraph": "Some words. " * 10_000,
}

MEASURE = """async ([texts, sizes]) => {
  const { AnswerBody } = await import("/js/markdown/answer_body.js");
  const found = {};
  for (const [name, text] of Object.entries(texts)) {
    const [element, note] = [1, 2].map(() => document.createElement("div"));
    element.className = "message-body";
    document.querySelector("#messages").replaceChildren(note, element);
    const answer = new AnswerBody(element, note);
    let longest = 0;
    const step = async (content, streaming) => {
      const start = performance.now();
      answer.update({ content, streaming });
      element.getBoundingClientRect();
      longest = Math.max(longest, performance.now() - start);
      await new Promise((resolve) => setTimeout(resolve));
    };
    for (const size of sizes) await step(text.slice(0, size), true);
    await step(text, false);
    const elements = element.querySelectorAll("*").length;
    found[name] = { longest, isPlain: !note.hidden, shown: element.textContent, elements };
    element.remove();
  }
  return found;
}"""
MAX_TASK_MS = 4000
"""Far more than the page's own limits, because tests may share the machine. Without limits, the
costliest of these texts take more than ten seconds."""


@pytest.mark.parametrize(
    ("opening", "closing", "times", "tag", "levels", "known", "start", "end"), NESTED
)
async def test_deeper_nesting_is_text(
    page: Page,
    opening: str,
    closing: str,
    times: int,
    tag: str,
    levels: int,
    known: int,
    start: str,
    end: str,
) -> None:
    text = opening * times + "x" + closing * times
    left = times - known
    expected = start * known + opening * left + "x" + closing * left + end * known
    for streamed in (True, False):
        found = await page.evaluate(
            """async ([text, tag, streamed]) => {
              const { StreamingMarkdown } = await import("/js/markdown/streaming_markdown.js");
              const { renderMarkdown } = await import("/js/markdown/render.js");
              const body = document.createElement("div");
              if (streamed) new StreamingMarkdown(body).finish(text);
              else body.append(renderMarkdown(text));
              const depth = (node) => (node ? 1 + depth(node.parentElement.closest(tag)) : 0);
              const levels = [...body.querySelectorAll(tag)].map(depth);
              return [Math.max(0, ...levels), body.textContent.trim()];
            }""",
            [text, tag, streamed],
        )
        assert found == [levels, expected.strip()]


async def test_a_text_of_any_cost_takes_a_bounded_time(page: Page) -> None:
    found = await page.evaluate(MEASURE, [COSTLY, [500, 5000, 12_000, 50_000]])
    slow = {name: one["longest"] for name, one in found.items() if one["longest"] > MAX_TASK_MS}
    assert slow == {}
    for name, one in found.items():
        if one["isPlain"]:
            assert one["shown"] == COSTLY[name], name


@pytest.mark.parametrize(
    ("locale", "note"),
    [
        ("en-GB", "This answer could not be formatted. It is shown as plain text."),
        ("zh-CN", "此回答无法排版，已按纯文本显示。"),
    ],
)
async def test_a_costly_answer_is_plain_text_with_a_note_between_its_neighbours(
    browser: Browser,
    server: Server,
    upstream: ScriptedUpstream,
    question: str,
    locale: str,
    note: str,
) -> None:
    """While it streams, at its end, and after a reload."""
    context = await browser.new_context(base_url=server.url, locale=locale)
    page = await context.new_page()
    await page.goto("/")
    await (await ask(page, upstream, f"{question} 1")).answer("before")
    await expect(answers(page).locator(".message-body")).to_have_text("before")
    exchange = await ask(page, upstream, f"{question} 2")
    costly = "*a " * 6000 + "b* c"
    await exchange.send_text(costly)
    shown = answers(page).nth(1)
    await expect(shown.locator(".plain-text-note")).to_be_visible()
    await expect(shown.locator(".plain-text-note")).to_have_text(note)
    assert await has_text(shown, costly)
    await exchange.finish()
    await (await ask(page, upstream, f"{question} 3")).answer("**after**")
    for _ in range(2):
        await expect(answers(page)).to_have_count(3)
        await expect(shown.locator(".plain-text-note")).to_be_visible()
        assert await has_text(shown, costly)
        for other in (0, 2):
            await expect(answers(page).nth(other).locator(".plain-text-note")).to_be_hidden()
        await expect(answers(page).nth(2).locator("strong")).to_have_text("after")
        await page.reload()
    await context.close()


async def test_many_costly_answers_are_rendered_in_separate_tasks(page: Page) -> None:
    """Each shows its text at once, and the page handles events between them."""
    found = await page.evaluate(
        """async (text) => {
          const { AnswerBody } = await import("/js/markdown/answer_body.js");
          const shown = Array.from({ length: 6 }, () => {
            const [element, note] = [1, 2].map(() => document.createElement("div"));
            note.hidden = true;
            new AnswerBody(element, note).update({ content: text });
            return { element, note };
          });
          const atOnce = shown.every(({ element }) => element.textContent === text);
          const counts = new Set();
          let count;
          do {
            await new Promise((resolve) => setTimeout(resolve));
            counts.add((count = shown.filter(({ note }) => !note.hidden).length));
          } while (count < shown.length);
          return { atOnce, turns: counts.size };
        }""",
        "*a " * 6000 + "b* c",
    )
    assert found["atOnce"]
    assert found["turns"] > 3


async def test_an_answer_is_formatted_after_all_if_other_work_took_the_time(page: Page) -> None:
    found = await page.evaluate(
        """async () => {
          const { AnswerBody } = await import("/js/markdown/answer_body.js");
          const [element, note] = [1, 2].map(() => document.createElement("div"));
          note.hidden = true;
          const now = performance.now.bind(performance);
          let calls = 0;
          performance.now = () => now() + ((calls += 1) > 3 ? 1000 : 0);
          new AnswerBody(element, note).update({ content: "**bold** text" });
          const first = [note.hidden, element.textContent];
          while (!note.hidden) await new Promise((resolve) => setTimeout(resolve));
          return [first, element.innerHTML.trim()];
        }"""
    )
    assert found == [
        [False, "**bold** text"],
        '<p dir="auto"><strong>bold</strong> text</p>',
    ]


async def has_text(message: Locator, text: str) -> bool:
    """Return whether the text of a message is `text`; a comparison would print all of both."""
    return await message.locator(".message-body").text_content() == text


async def test_hostile_thoughts_and_questions_are_text(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    hostile = "> " * 500 + "*a " * 500 + "x"
    exchange = await ask(page, upstream, f"{question} {hostile}")
    await exchange.chunk({"reasoning_content": hostile})
    await exchange.answer("**fine**")
    for _ in range(2):
        await expect(answers(page).locator("strong")).to_have_text("fine")
        await expect(questions(page).locator(".message-body")).to_have_text(f"{question} {hostile}")
        await expect(answers(page).locator(".reasoning-text")).to_have_text(hostile)
        await expect(answers(page).locator(".plain-text-note")).to_be_hidden()
        await page.reload()
