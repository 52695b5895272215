"""The page shows why an answer is incomplete, and offers to generate it again."""

import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser.chat_page import answers, ask, read_announcements, watch_announcements
from tests.fake_upstream import ScriptedUpstream
from tests.processes import holdline

NOTICES = {
    "length": "Truncated at the model’s length limit",
    "content_filter": "Cut off by the model service’s content filter",
    "refusal": "The model declined to answer",
    "tool_calls": "Ended with a tool call, which is not supported",
}
"""The upstream's finish reason, and the notice under the answer."""


async def expect_notice(page: Page, text: str, notice: str) -> None:
    """Expect an incomplete answer, its notice and a labelled button that regenerates it."""
    answer = answers(page).last
    await expect(answer.locator(".message-body")).to_have_text(text)
    await expect(answer.locator(".finish-reason")).to_have_text(notice)
    await expect(answer.get_by_text("Regenerate")).to_be_visible()
    await expect(answer.locator(".failure")).to_be_hidden()


@pytest.mark.parametrize("reason", NOTICES)
async def test_an_incomplete_answer_has_a_notice_and_offers_to_regenerate(
    page: Page, upstream: ScriptedUpstream, question: str, reason: str
) -> None:
    await watch_announcements(page)
    exchange = await ask(page, upstream, question)
    await exchange.send_text("the beginning")
    await exchange.finish(reason)
    await expect_notice(page, "the beginning", NOTICES[reason])
    assert await read_announcements(page) == [NOTICES[reason]]
    await page.reload()
    await expect_notice(page, "the beginning", NOTICES[reason])
    await answers(page).get_by_text("Regenerate").click()
    await (await upstream.exchange(question, 2)).answer("complete")
    await expect(answers(page).locator(".message-body")).to_have_text("complete")
    await expect(answers(page).locator(".finish-reason")).to_be_hidden()
    await expect(answers(page).get_by_text("Regenerate")).to_be_hidden()


async def test_an_answer_that_the_model_restarted_offers_to_regenerate(
    browser: Browser, upstream: ScriptedUpstream, question: str
) -> None:
    model = {"OPENAI_BASE_URL": upstream.base_url, "CHAT_MODEL": "m", "CONTINUE_MODE": "prompt"}
    async with holdline(**model) as server:
        context = await browser.new_context(base_url=server.url)
        page = await context.new_page()
        await page.goto("/")
        exchange = await ask(page, upstream, question)
        opening = f"This is the answer to {question}, which has more than one part: "
        partial = f"{opening}the first part is long"
        await exchange.send_text(partial)
        await expect(answers(page).locator(".message-body")).to_have_text(partial)
        exchange.drop()
        exchange = await upstream.continued(partial)
        await exchange.send_text(f"{opening}it begins with another")
        await exchange.closed.wait()
        for _ in range(2):
            notice = "The model could not continue this answer"
            await expect_notice(page, partial, notice)
            # The answer ends where the continuation failed: nothing follows the seam.
            await expect(answers(page).locator(".continuation-mark")).to_have_count(0)
            await expect(answers(page).locator(".metadata")).not_to_contain_text("continued")
            await page.reload()
        await context.close()


async def test_an_estimated_token_count_is_marked(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    exchange = await ask(page, upstream, question)
    await exchange.send_text("counted by nobody")
    await exchange.finish()
    metadata = answers(page).locator(".metadata")
    await expect(metadata).to_contain_text("≈ ")
    await page.reload()
    await expect(metadata).to_contain_text("≈ ")
    await (await ask(page, upstream, f"{question} again")).answer("counted")
    await expect(answers(page).last.locator(".metadata")).to_contain_text("tokens")
    await expect(answers(page).last.locator(".metadata")).not_to_contain_text("≈")
