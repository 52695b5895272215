"""Operate the page as a user does, and locate the messages it shows."""

from playwright.async_api import Locator, Page, expect

from tests.fake_upstream import Exchange, ScriptedUpstream

expect.set_options(timeout=30_000)


async def ask(page: Page, upstream: ScriptedUpstream, question: str) -> Exchange:
    """Type a question, send it, and return the request that reaches the upstream."""
    number = len(upstream.find_requests(question)) + 1
    await page.locator("#question").fill(question)
    await page.locator("#question").press("Enter")
    return await upstream.exchange(question, number)


async def ask_and_answer(
    page: Page, upstream: ScriptedUpstream, question: str, *texts: str
) -> None:
    """Ask a question, answer it with these deltas, and wait for the complete answer."""
    await (await ask(page, upstream, question)).answer(*texts)
    await expect(answers(page).last.locator(".message-body")).to_have_text("".join(texts))
    await expect(page.locator("[data-streaming]")).to_have_count(0)


def answers(page: Page) -> Locator:
    """Locate all answers, in order."""
    return page.locator('article.message[data-role="assistant"]')


def questions(page: Page) -> Locator:
    """Locate all questions, in order."""
    return page.locator('article.message[data-role="user"]')


def bodies(page: Page) -> Locator:
    """Locate the texts of all messages, in order."""
    return page.locator(".message-body")
