"""Operate the page as a user does, and locate the messages it shows."""

from typing import Any

from playwright.async_api import Locator, Page, expect

from tests.fake_upstream import Exchange, ScriptedUpstream

STREAM = "**/api/chat_stream/**"

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


async def watch_announcements(page: Page) -> None:
    """Begin to record what screen readers announce: the changes of every live region."""
    await page.evaluate(
        """() => {
            window.announced = [];
            const regions = "[role=status], [role=alert], [aria-live]";
            const observer = new MutationObserver((changes) => {
                for (const { target } of changes) {
                    const node = target.nodeType === Node.TEXT_NODE ? target.parentElement : target;
                    const text = node.closest(regions)?.textContent;
                    if (text) announced.push(text);
                }
            });
            const options = { childList: true, characterData: true, subtree: true };
            observer.observe(document.body, options);
        }"""
    )


async def read_announcements(page: Page) -> list[str]:
    """Return the recorded announcements, and forget them."""
    found: list[str] = await page.evaluate("() => announced.splice(0)")
    return found


async def replace_response(page: Page, url: str, **response: Any) -> None:
    """Give this response to the page's requests for `url`, and none of the earlier ones."""
    await page.unroute_all()
    await page.route(url, lambda route: route.fulfill(**response))


async def ask_in_a_new_chat(page: Page) -> None:
    await page.locator("#new-chat").click()
    await page.locator("#question").fill("问题")
    await page.locator("#question").press("Enter")
