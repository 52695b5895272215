"""The page explains questions and answers that the moderation flagged."""

from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.browser.chat_page import answers, ask, ask_and_answer, questions
from tests.fake_moderation import FLAGGED, fake_moderation
from tests.fake_upstream import ScriptedUpstream
from tests.processes import holdline


@pytest_asyncio.fixture
async def moderated_page(browser: Browser, upstream: ScriptedUpstream) -> AsyncIterator[Page]:
    """Open the page of a server that checks questions and answers."""
    async with (
        fake_moderation() as moderation,
        holdline(
            OPENAI_BASE_URL=upstream.base_url,
            CHAT_MODEL="m",
            MODERATION="both",
            MODERATION_BASE_URL=moderation.base_url,
        ) as server,
    ):
        context = await browser.new_context(base_url=server.url)
        page = await context.new_page()
        await page.goto("/")
        yield page
        await context.close()


async def test_a_flagged_question_is_explained_and_is_gone_after_a_reload(
    moderated_page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    page = moderated_page
    await ask_and_answer(page, upstream, question, "An answer. ")
    await page.locator("#question").fill(f"{question} {FLAGGED}")
    await page.locator("#question").press("Enter")
    failure = answers(page).last.locator(".failure-text")
    await expect(failure).to_contain_text("flagged the question")
    await page.reload()
    await expect(answers(page)).to_have_count(1)
    await expect(questions(page).locator(".message-body")).to_have_text([question])
    await expect(answers(page).locator(".failure")).to_be_hidden()


async def test_a_flagged_answer_shows_what_had_passed_and_the_reason(
    moderated_page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    page = moderated_page
    exchange = await ask(page, upstream, question)
    await exchange.send_text("It passes. ", f"It is {FLAGGED}. ")
    await exchange.finish()
    await expect(answers(page).locator(".message-body")).to_have_text("It passes.")
    await expect(page.locator(".failure-text")).to_contain_text("flagged the answer")
    await page.reload()
    await expect(answers(page).locator(".message-body")).to_have_text("It passes.")
    await expect(page.locator(".failure-text")).to_contain_text("flagged the answer")
