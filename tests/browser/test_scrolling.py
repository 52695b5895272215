"""Follow the end of an answer, or keep the paragraph that the user reads."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from playwright.async_api import Page, expect

from tests.browser.chat_page import answers, ask, ask_and_answer
from tests.fake_upstream import ScriptedUpstream

POSITION = "document.querySelector('#scroller').scrollTop"
TO_END = "(({ scrollHeight, scrollTop, clientHeight }) => scrollHeight - scrollTop - clientHeight)"
TO_END += "(document.querySelector('#scroller'))"
READ = """() => {
  const { left, top, width } = document.querySelector("#scroller").getBoundingClientRect();
  const read = document.elementFromPoint(left + width / 2, top + 4).closest("p");
  return read && read.textContent.split(" ")[0];
}"""
"""The first word of the paragraph at the top of the visible messages."""

SCROLL = """() => {
  const scroller = document.querySelector("#scroller");
  const read = [...scroller.querySelectorAll("p")].find((p) => p.textContent.includes("graph20 "));
  const { top, height } = read.getBoundingClientRect();
  scroller.scrollTop += top + height / 2 - scroller.getBoundingClientRect().top;
}"""
"""Scroll up to the middle of a paragraph."""

PARAGRAPHS = [f"Paragraph{n} " + "of many words that fill a few lines. " * 9 for n in range(40)]
TEXT = "\n\n".join(PARAGRAPHS)


async def wait_until(page: Page, condition: str) -> None:
    """Wait for a condition; the page's policy allows no expressions, only functions."""
    await page.wait_for_function(f"() => {condition}")


async def turn_wheel(page: Page) -> None:
    await page.mouse.move(640, 300)
    await page.mouse.wheel(0, -12)


async def press_key(page: Page) -> None:
    await page.mouse.click(300, 300)
    await page.keyboard.press("ArrowUp")


async def press_page_up(page: Page) -> None:
    await page.locator("#scroller").evaluate("(scroller) => (scroller.tabIndex = -1)")
    await page.locator("#scroller").focus()
    await page.keyboard.press("PageUp")


REPLACE = """() => {
  const touched = document.elementFromPoint(640, 230);
  touched.replaceWith(touched.cloneNode(true));
}"""


async def drag_finger(page: Page, before_its_end: str = "() => {}") -> None:
    session = await page.context.new_cdp_session(page)
    for number in range(6):
        point = {"x": 640, "y": 200 + 6 * number}
        kind = "touchMove" if number else "touchStart"
        await session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
    await asyncio.sleep(0.2)  # a finger that rests before it leaves does not fling
    await session.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    await page.evaluate(before_its_end)
    await session.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})


async def search(page: Page) -> None:
    """Scroll without an event of an input, as a search in the page does."""
    await page.evaluate("document.querySelector('#scroller').scrollTop -= 300")


@pytest.mark.parametrize(
    "scroll_up",
    [turn_wheel, press_key, press_page_up, drag_finger, search],
    ids=lambda step: step.__name__,
)
async def test_scrolling_up_a_little_stops_following_until_the_end_is_reached(
    page: Page,
    upstream: ScriptedUpstream,
    question: str,
    scroll_up: Callable[[Page], Awaitable[None]],
) -> None:
    exchange = await ask(page, upstream, question)
    await exchange.send_text(TEXT)
    await expect(answers(page)).to_contain_text("Paragraph39")
    await wait_until(page, f"{POSITION} > 1000 && {TO_END} < 2")
    end = await page.evaluate(POSITION)
    await scroll_up(page)
    for number in range(3):  # text that arrives while the scroll is still moving
        await exchange.send_text(f"\n\nLater{number} " + "and more words " * 40)
        await expect(answers(page)).to_contain_text(f"Later{number}")
    await wait_until(page, f"{POSITION} < {end}")
    await expect(page.locator("#jump")).to_be_visible()
    stopped = await page.evaluate(POSITION)
    await exchange.send_text("\n\nAfter that " + "and more words " * 200)
    await expect(answers(page)).to_contain_text("After that")
    assert await page.evaluate(POSITION) <= stopped
    await page.mouse.move(640, 300)
    await page.mouse.wheel(0, 99_999)
    await wait_until(page, f"{TO_END} < 2")
    await exchange.answer("\n\nThe last " + "words " * 400)
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    await wait_until(page, f"{TO_END} < 2")
    await expect(page.locator("#jump")).to_be_hidden()


async def test_following_resumes_after_a_touch_whose_block_was_replaced(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    exchange = await ask(page, upstream, question)
    await exchange.send_text(TEXT)
    await wait_until(page, f"{TO_END} <= 2 && {POSITION} > 0")
    await drag_finger(page, REPLACE)
    await wait_until(page, f"{TO_END} > 2")
    await page.evaluate("document.querySelector('#scroller').scrollTop = 1e9")
    await wait_until(page, f"{TO_END} <= 2")
    await exchange.send_text("\n\nThe last " + "words " * 400)
    await expect(answers(page)).to_contain_text("The last")
    await wait_until(page, f"{TO_END} <= 2")
    await exchange.finish()


async def test_the_paragraph_that_is_read_stays_when_the_window_is_resized(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    """Rotating and zooming resize the window. At the end, the end stays in view."""
    exchange = await ask(page, upstream, question)
    await exchange.send_text(TEXT)
    await expect(answers(page)).to_contain_text("Paragraph39")
    await wait_until(page, f"{TO_END} < 2")
    await page.evaluate(SCROLL)
    await expect(page.locator("#jump")).to_be_visible()
    read = "Paragraph20"
    assert await page.evaluate(READ) == read
    for width, height in ((390, 844), (844, 390), (320, 500), (1280, 800)):
        await page.set_viewport_size({"width": width, "height": height})
        await exchange.send_text("\n\n" + "More words. " * 20)
        await wait_until(page, f"innerWidth === {width} && ({READ})() === '{read}'")
    await page.locator("#jump").click()
    for width, height in ((390, 844), (1280, 800)):
        await page.set_viewport_size({"width": width, "height": height})
        await wait_until(page, f"{TO_END} < 2")
    await exchange.answer("")


async def test_a_conversation_is_reopened_at_the_paragraph_that_was_read(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await (await ask(page, upstream, question)).answer(TEXT)
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    await wait_until(page, f"{TO_END} < 2")
    await page.evaluate(SCROLL)
    await expect(page.locator("#jump")).to_be_visible()
    read = "Paragraph20"
    assert await page.evaluate(READ) == read
    link = page.locator("#conversations a[aria-current]")
    address = await link.get_attribute("href")
    await page.locator("#new-chat").click()
    await expect(answers(page)).to_have_count(0)
    await ask_and_answer(page, upstream, f"other {question}", "another answer")
    await page.locator(f'#conversations a[href="{address}"]').click()
    await wait_until(page, f"({READ})() === '{read}'")
    await page.go_back()
    await expect(answers(page).locator(".message-body")).to_have_text("another answer")
    await page.go_forward()
    await wait_until(page, f"({READ})() === '{read}'")


async def test_a_long_draft_does_not_stop_following(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    exchange = await ask(page, upstream, question)
    await exchange.send_text(TEXT)
    await page.locator("#question").fill("a line\n" * 12)
    await page.locator("#question").press_sequentially("and more")
    await exchange.answer(f"\n\n{TEXT}")
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    await wait_until(page, f"{TO_END} < 2")


async def test_earlier_messages_that_arrive_after_the_user_has_left_and_returned_are_dropped(
    page: Page,
) -> None:
    found = await page.evaluate(
        """async () => {
          const { Chat } = await import("/js/state/chat.js");
          const unsent = { list: async () => [], remove: () => {}, move: () => {} };
          const chat = new Chat(unsent, new Proxy({}, { get: () => () => {} }));
          const respond = (id) => Response.json({
            id: "a", title: "", running: null, earlier: true,
            messages: [{ id, role: "user", content: id, parent: null }],
          });
          let isHeld = false;
          let sendEarlier;
          window.fetch = (url) => new Promise((resolve) => {
            if (url.includes("before=")) sendEarlier = () => resolve(respond("earlier"));
            else if (!isHeld) resolve(respond("last"));
          });
          await chat.open("a");
          const loading = chat.loadEarlier();
          isHeld = true;
          chat.open("b");
          chat.open("a");
          sendEarlier();
          await loading;
          return chat.state.messages.map(({ content }) => content);
        }"""
    )
    assert found == []
