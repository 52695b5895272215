"""Text that runs from right to left, on the page."""

from playwright.async_api import Page, expect

from tests.browser.reading import answers, ask
from tests.fake_upstream import ScriptedUpstream


async def test_an_answer_runs_from_right_to_left_from_its_first_words_on(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    exchange = await ask(page, upstream, question)
    body = answers(page).locator(".message-body")
    await exchange.say("ש")
    await expect(body).to_have_text("ש")
    await expect(body).to_have_css("direction", "rtl")
    await exchange.answer("לום\n\nEnglish too")
    await expect(body).to_contain_text("English too")
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    await expect(body).to_have_css("direction", "rtl")
