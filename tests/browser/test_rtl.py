"""Show text in right-to-left scripts: each block, and each line, has its own direction."""

from playwright.async_api import Page, expect

from tests.browser.chat_page import answers, ask, questions
from tests.fake_upstream import ScriptedUpstream

ENGLISH, ARABIC, HEBREW = "English words", "كلمات عربية", "מילים"
MIXED = f"""{ENGLISH}

{ARABIC} `code`

# {HEBREW}

- {ENGLISH}
- {ARABIC}
  - {ENGLISH}

1. {HEBREW}

   {ENGLISH}

> {ARABIC}
>
> {ENGLISH}

| {HEBREW} | {ENGLISH} |
|---|---|
| {ENGLISH} | {ARABIC} |

```text
{ARABIC}
```
"""
DIRECTIONS = """(body) => {
  const blocks = body.querySelectorAll("p, h1, li, blockquote, .table-scroll, th, td, code");
  return [...blocks].map((block) => {
    const own = block.cloneNode(true);
    for (const list of own.querySelectorAll("ul")) list.remove();
    const name = block.className || block.localName;
    return [name, own.textContent.trim().split(/\\s/)[0], getComputedStyle(block).direction];
  });
}"""
LINES = """(element) => {
  const range = document.createRange();
  const { left } = element.getBoundingClientRect();
  const text = element.firstChild;
  let at = 0;
  return text.data.split("\\n").map((line) => {
    range.setStart(text, at);
    range.setEnd(text, (at += line.length));
    at += 1;
    return Math.round(range.getBoundingClientRect().left - left);
  });
}"""


async def test_each_block_of_an_answer_has_its_own_direction(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    exchange = await ask(page, upstream, question)
    body = answers(page).locator(".message-body")
    for at in range(0, len(MIXED), 5):
        await exchange.send_text(MIXED[at : at + 5])
    await expect(body).to_contain_text(f"{ARABIC}\n")
    streamed = await body.evaluate(DIRECTIONS)
    await exchange.answer("")
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    expected = [
        ["p", "English", "ltr"], ["p", "كلمات", "rtl"], ["code", "code", "ltr"],
        ["h1", "מילים", "rtl"],
        ["li", "English", "ltr"], ["li", "كلمات", "rtl"], ["li", "English", "ltr"],
        ["li", "מילים", "rtl"], ["p", "מילים", "rtl"], ["p", "English", "ltr"],
        ["blockquote", "كلمات", "rtl"], ["p", "كلمات", "rtl"], ["p", "English", "ltr"],
        ["table-scroll", "מילים", "rtl"], ["th", "מילים", "rtl"], ["th", "English", "ltr"],
        ["td", "English", "ltr"], ["td", "كلمات", "rtl"], ["code", "كلمات", "ltr"],
    ]  # fmt: skip
    assert await body.evaluate(DIRECTIONS) == streamed == expected


async def test_an_answer_has_the_direction_of_its_first_block(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    exchange = await ask(page, upstream, question)
    body = answers(page).locator(".message-body")
    await exchange.send_text("1. ש")
    await expect(body).to_have_text("ש")
    await expect(body.locator("li")).to_have_css("direction", "rtl")
    await exchange.send_text("לום\n2. 12")
    await expect(body.locator("li")).to_have_count(2)
    await expect(body.locator("li").last).to_have_css("direction", "rtl")  # it has no letter
    await exchange.answer("\n\nEnglish too")
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    await expect(body.locator("p")).to_have_css("direction", "ltr")


async def test_each_line_of_a_question_is_aligned_by_its_own_direction(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    text = f"A long line in English {question}\n{ARABIC}\nEnglish"
    await (await ask(page, upstream, text)).answer("fine")
    english, arabic, last = await questions(page).locator(".message-body").evaluate(LINES)
    assert english == last
    assert arabic > english + 50
