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
    await box.locator("summary").click()
    await exchange.chunk({"reasoning_content": " and another"})
    await expect(text).to_have_text("One thought and another")
    await expect(box).to_have_js_property("open", False)  # the user closed it
    await box.locator("summary").click()
    await exchange.send_text("The answer")
    await expect(answers(page).locator(".message-body")).to_have_text("The answer")
    await expect(box).to_have_js_property("open", False)
    await expect(box.locator("summary")).to_have_text("Thoughts")
    await exchange.answer(".")
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    await page.reload()
    await expect(text).to_have_text("One thought and another")
    await expect(box).to_have_js_property("open", False)


async def test_long_reasoning_keeps_the_nodes_of_finished_chunks(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    """Chunks are merged when the answer begins, without a change of height."""
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
    await answers(page).locator(".reasoning summary").click()
    await expect(text).to_have_js_property("offsetHeight", height)
