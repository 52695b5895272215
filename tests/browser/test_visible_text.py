"""The web UI shows every letter and digit of an answer, and the marks of prose."""

from playwright.async_api import Page

from tests.visible_text import CASES, simplify

RENDER = """async (texts) => {
  const { StreamingMarkdown } = await import("/js/markdown/streaming_markdown.js");
  const { renderMarkdown } = await import("/js/markdown/render.js");
  return texts.map((text) => {
    const [streamed, complete] = [1, 2].map(() => document.createElement("div"));
    const writer = new StreamingMarkdown(streamed);
    for (let end = 3; end < text.length; end += 3) writer.write(text.slice(0, end));
    complete.append(renderMarkdown(text));
    if (!writer.finish(text)) streamed.replaceChildren(renderMarkdown(text));
    return [streamed.innerHTML, complete.innerHTML];
  });
}"""


async def test_the_web_ui_shows_the_marks_of_prose(page: Page) -> None:
    """After the stream and after a reload, as in an export."""
    shown = await page.evaluate(RENDER, [markdown for markdown, _ in CASES])
    different = [
        (markdown, expected, found)
        for (markdown, expected), versions in zip(CASES, shown, strict=True)
        for found in map(simplify, versions)
        if found != expected
    ]
    assert different == []
