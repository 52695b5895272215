"""Show text in a right-to-left script."""

from playwright.async_api import Page, expect

from tests.browser.chat_page import answers, ask
from tests.fake_upstream import ScriptedUpstream


async def test_an_rtl_answer_has_its_direction_from_the_first_text(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    exchange = await ask(page, upstream, question)
    body = answers(page).locator(".message-body")
    await exchange.send_text("ש")
    await expect(body).to_have_text("ש")
    await expect(body).to_have_css("direction", "rtl")
    await exchange.answer("לום\n\nEnglish too")
    await expect(body).to_contain_text("English too")
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    await expect(body).to_have_css("direction", "rtl")
