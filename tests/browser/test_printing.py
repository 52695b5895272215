"""Print a conversation: paper cannot be scrolled."""

from playwright.async_api import Page, expect

ROW = "|" + " a cell of a wide table |" * 12 + "\n"
TEXT = (
    f"```\n{'value + ' * 60}end\n{'x' * 400}\n```\n\n"
    f"{ROW}|{'---|' * 12}\n{ROW * 3}\n"
    f"| a | {'b' * 200} |\n|---|---|\n" + "".join(f"| {n} | {n} |\n" for n in range(210))
)
CUT = """() => {
  const cut = ({ scrollWidth, clientWidth, scrollHeight, clientHeight }) =>
    scrollWidth > clientWidth + 1 || scrollHeight > clientHeight + 1;
  const parts = ["#scroller", ".code-block", "pre", ".table-scroll", "td", "th"];
  return parts.filter((part) => [...document.querySelectorAll(part)].some(cut));
}"""


STREAM = """async (text) => {
  const { StreamingMarkdown } = await import("/js/markdown/streaming_markdown.js");
  const template = document.querySelector("#assistant-message");
  const message = template.content.cloneNode(true).firstElementChild;
  message.dataset.role = "assistant";
  document.querySelector("#messages").append(message);
  const writer = new StreamingMarkdown(message.querySelector(".message-body"));
  for (let end = 400; end < text.length; end += 400) writer.write(text.slice(0, end));
  writer.finish(text);
}"""


async def test_a_print_shows_whole_lines_of_code_and_tables(page: Page) -> None:
    await page.evaluate(STREAM, TEXT)
    await expect(page.locator(".chunked")).to_have_count(1)
    await page.emulate_media(media="print")
    await page.set_viewport_size({"width": 718, "height": 1046})  # A4
    assert await page.evaluate("() => document.documentElement.scrollHeight") > 3000
    assert await page.evaluate(CUT) == []
    assert await page.evaluate("() => document.documentElement.scrollWidth") == 718
    for hidden in ("#question", "#sidebar", ".copy-code", ".message-footer"):
        await expect(page.locator(hidden).first).to_be_hidden()
