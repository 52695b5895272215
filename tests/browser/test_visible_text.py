"""The web UI shows every letter and digit of an answer, and the marks of prose."""

import random

from playwright.async_api import Page, ViewportSize

from chat.export.rendering import render_file, render_message
from tests.answer_texts import (
    BLOCKS,
    INLINE,
    Answer,
    find_missing,
    generate_answer,
    generate_prose,
    keep_letters,
)
from tests.visible_text import CASES, read_text, simplify

SHOW = """async ([texts, step]) => {
  const { StreamingMarkdown } = await import("/js/markdown/streaming_markdown.js");
  const { renderMarkdown } = await import("/js/markdown/render.js");
  return texts.map((text) => {
    const characters = [...text];
    const [streamed, complete] = [1, 2].map(() => document.createElement("div"));
    const writer = new StreamingMarkdown(streamed);
    const growing = [];
    for (let end = 1; end < characters.length; end += step) {
      writer.write(characters.slice(0, end).join(""));
      growing.push([end, streamed.innerHTML]);
    }
    complete.append(renderMarkdown(text));
    if (!writer.finish(text)) streamed.replaceChildren(renderMarkdown(text));
    return { growing, versions: [streamed.innerHTML, complete.innerHTML] };
  });
}"""
STEP = 3  # characters between two looks at a growing answer


async def test_the_web_ui_shows_the_marks_of_prose(page: Page) -> None:
    """After the stream and after a reload, as in an export."""
    shown = await page.evaluate(SHOW, [[markdown for markdown, _ in CASES], STEP])
    different = [
        (markdown, expected, found)
        for (markdown, expected), one in zip(CASES, shown, strict=True)
        for found in map(simplify, one["versions"])
        if found != expected
    ]
    assert different == []


async def test_every_letter_of_an_answer_is_visible(page: Page) -> None:
    """While it streams, at its end, and after a reload."""
    chance = random.Random(21)
    answers = [Answer(source) for source in INLINE + BLOCKS]
    answers += [generate_answer(chance) for _ in range(150)]
    shown = await page.evaluate(SHOW, [[answer.markdown for answer in answers], STEP])
    for answer, one in zip(answers, shown, strict=True):
        for html in one["versions"]:
            missing = find_missing(answer.find_letters(), keep_letters(read_text(html)))
            assert not missing, (answer.markdown, html)
        for end, html in one["growing"]:
            missing = find_missing(answer.find_letters(end), keep_letters(read_text(html)))
            assert not missing, (answer.markdown[:end], html)


async def test_every_character_of_prose_is_visible(page: Page) -> None:
    chance = random.Random(21)
    texts = [generate_prose(chance) for _ in range(150)]
    shown = await page.evaluate(SHOW, [texts, STEP])
    for text, one in zip(texts, shown, strict=True):
        for html in one["versions"]:
            assert "".join(read_text(html).split()) == "".join(text.split()), html


async def test_a_growing_answer_is_shown_as_if_its_open_markup_were_closed(page: Page) -> None:
    cases = [
        ("a **b", "<p>a <strong>b</strong></p>"),
        ("a `b", "<p>a <code>b</code></p>"),
        ("a [b](https://a.exa", "<p>a b</p>"),
        ('a [b](https://a.example "ti', "<p>a b (ti</p>"),
        ("x**2", "<p>x**2</p>"),
        ("handlers[name](ar", "<p>handlers[name](ar</p>"),
        (
            "1. a\n\n   ```py\n   f(*a, **b)",
            "<ol><li><p>a</p><pre><code>f(*a, **b)</code></pre></li></ol>",
        ),
        ("- a\n  ```sh\n  echo `x", "<ul><li>a<pre><code>echo `x</code></pre></li></ul>"),
        ("> ```\n> h[i](j", "<blockquote><pre><code>h[i](j</code></pre></blockquote>"),
        ("| a | b", "<table><thead><tr><th>a</th><th>b</th></tr></thead></table>"),
        ("42", "<p>42</p>"),
        ("1. a\n42", "<ol><li>a</li></ol>"),
        ("```\n1. a\n42", "<pre><code>1. a\n42</code></pre>"),
        ("```markdown\n```sh\nx\n```\n# y", "<pre><code>```sh\nx\n```\n# y</code></pre>"),
    ]
    shown = await page.evaluate(SHOW, [[f"{text}." for text, _ in cases], 1])
    found = [simplify(one["growing"][-1][1]) for one in shown]
    assert found == [html for _, html in cases]


async def test_a_long_word_stays_in_its_cell_line_and_heading(page: Page) -> None:
    """In the web UI and in an export, on a wide and on a narrow screen."""
    word = "Donaudampfschiff" * 20
    cells = f"| {word} | https://a.example/{word} | `{word}` | next |\n"
    text = f"# {word}\n\n{word}\n\n> {word}\n\n- {word}\n\n{cells}|-|-|-|-|\n{cells}"
    find_wider = """() => [...document.querySelectorAll(":is(.message-body, article.assistant) *")]
      .filter((element) => element.matches("h1, p, li, blockquote, th, td"))
      .filter((element) => element.scrollWidth > element.clientWidth)
      .map((element) => element.localName)"""
    show = """async (text) => {
      const { renderMarkdown } = await import("/js/markdown/render.js");
      const message = document.querySelector("#assistant-message").content.firstElementChild;
      const copy = document.importNode(message, true);
      copy.dataset.role = "assistant";
      copy.querySelector(".message-body").append(renderMarkdown(text));
      document.querySelector("#messages").append(copy);
    }"""
    message = {"role": "assistant", "content": text, "created": 0}
    await page.evaluate(show, text)
    export = await page.context.new_page()
    await export.set_content(render_file("html", "t", [render_message("html", message)]))
    for shown in (page, export):
        for width in (1280, 390):
            await shown.set_viewport_size(ViewportSize(width=width, height=800))
            assert await shown.locator("td").count() == 4
            assert await shown.evaluate(find_wider) == []
