"""Show a model's reasoning before and after its answer begins."""

from playwright.async_api import Page, expect

from tests.browser.chat_page import answers, ask
from tests.fake_upstream import ScriptedUpstream


async def test_reasoning_is_open_until_the_answer_begins(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    exchange = await ask(page, upstream, question)
    box = answers(page).locator(".reasoning")
    text = box.locator(".reasoning-text")
    await exchange.chunk({"reasoning_content": "One thought"})
    await expect(text).to_have_text("One thought")
    await expect(box).to_have_js_property("open", True)
    await expect(box.locator("summary")).to_have_text("Thinking…")
    await exchange.chunk({"reasoning_content": " and another"})
    await expect(text).to_have_text("One thought and another")
    await exchange.send_text("The answer")
    await expect(answers(page).locator(".message-body")).to_have_text("The answer")
    await expect(box).to_have_js_property("open", False)
    await expect(box.locator("summary")).to_have_text("Thoughts")
    await exchange.answer(".")
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    await page.reload()
    await expect(text).to_have_text("One thought and another")
    await expect(box).to_have_js_property("open", False)


async def test_reasoning_that_the_user_opens_or_closes_stays_so(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    for number, clicks in enumerate((1, 2)):  # closed, and opened again
        exchange = await ask(page, upstream, f"{question} {number}")
        box = answers(page).nth(number).locator(".reasoning")
        await exchange.chunk({"reasoning_content": "One thought"})
        await expect(box.locator("summary")).to_have_text("Thinking…")
        for _ in range(clicks):
            await box.locator("summary").click()
        await exchange.chunk({"reasoning_content": " and another"})
        await expect(box.locator(".reasoning-text")).to_have_text("One thought and another")
        await exchange.answer("The answer")
        await expect(page.locator("[data-streaming]")).to_have_count(0)
        await expect(box).to_have_js_property("open", clicks == 2)


async def test_reasoning_that_is_read_stays_open_and_in_its_place(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    exchange = await ask(page, upstream, question)
    text = answers(page).locator(".reasoning-text")
    await exchange.chunk({"reasoning_content": "A thought of a few words.\n" * 90})
    await expect(text).to_contain_text("A thought")
    await expect(page.locator("#jump")).to_be_hidden()
    await page.mouse.move(640, 300)
    await page.mouse.wheel(0, -300)
    await expect(page.locator("#jump")).to_be_visible()
    place = await text.evaluate("(text) => text.getBoundingClientRect().top")
    await exchange.answer("The answer")
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    await expect(answers(page).locator(".reasoning")).to_have_js_property("open", True)
    assert await text.evaluate("(text) => text.getBoundingClientRect().top") == place


async def test_long_reasoning_keeps_the_nodes_of_finished_chunks(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    """The nodes stay when the answer begins, and after a reload the text has the same height."""
    thought = "First one step, then 下一步.\n"
    exchange = await ask(page, upstream, question)
    text = answers(page).locator(".reasoning-text")
    for number in range(1, 6):
        await exchange.chunk({"reasoning_content": thought * 200})
        await expect(text).to_have_js_property("textContent", thought * 200 * number)
        if number == 2:
            kept = await text.locator("> *").first.element_handle()
    assert await text.evaluate("(text, kept) => text.firstElementChild === kept", kept)
    height = await text.evaluate("(text) => text.offsetHeight")
    await exchange.answer("The answer")
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    await expect(text).to_have_js_property("textContent", thought * 1000)
    assert await text.evaluate("(text, kept) => text.firstElementChild === kept", kept)
    await page.reload()
    await answers(page).locator(".reasoning summary").click()
    await expect(text).to_have_js_property("offsetHeight", height)
