"""The page shows why a running answer waits, until it continues."""

import json
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Locator, Page, expect

from tests.browser.chat_page import answers, ask, read_announcements, watch_announcements
from tests.fake_upstream import ScriptedUpstream
from tests.processes import holdline

BUSY = {"error": {"message": "Rate limit reached"}}


def wait_of(page: Page) -> Locator:
    """Locate the wait of the last answer."""
    return answers(page).last.locator(".wait")


def asking_again_in(*seconds: int) -> re.Pattern[str]:
    """Return a pattern of a busy upstream's wait with one of these seconds left."""
    numbers = "|".join(map(str, seconds))
    return re.compile(rf"^The model service is busy\. Asking again in ({numbers}) s…$")


@pytest_asyncio.fixture
async def single_slot(
    browser: Browser, upstream: ScriptedUpstream
) -> AsyncIterator[BrowserContext]:
    """Yield a browser's session with a server whose upstream answers one question at a time."""
    entry = {"base_url": upstream.base_url, "model": "m", "concurrency": 1}
    async with holdline(UPSTREAMS=json.dumps([entry])) as server:
        context = await browser.new_context(base_url=server.url)
        yield context
        await context.close()


async def open_page(context: BrowserContext) -> Page:
    page = await context.new_page()
    await page.goto("/")
    return page


async def queue(page: Page, question: str, position: int) -> None:
    """Ask a question that has to wait for a slot, and wait until the page shows its position."""
    await page.locator("#question").fill(question)
    await page.locator("#question").press("Enter")
    await expect_position(page, position)


async def expect_position(page: Page, position: int) -> None:
    text = f"Waiting for a free slot of the model server: number {position} in the queue."
    await expect(wait_of(page)).to_have_text(text)


async def test_the_wait_for_a_busy_upstream_counts_down_and_is_announced_once(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await page.clock.install()
    await watch_announcements(page)
    (await ask(page, upstream, question)).reply(429, BUSY, {"retry-after": "60"})
    await expect(wait_of(page)).to_have_text(asking_again_in(60, 59, 58, 57, 56))
    await page.clock.run_for(5000)  # less than the time until the frame is repeated
    await expect(wait_of(page)).to_have_text(asking_again_in(55, 54, 53, 52, 51))
    announced = await read_announcements(page)
    assert len(announced) == 1
    assert asking_again_in(60, 59).match(announced[0])


async def test_a_wait_disappears_when_it_is_over(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    (await ask(page, upstream, question)).reply(429, BUSY, {"retry-after": "2"})
    await expect(wait_of(page)).to_have_text(asking_again_in(2, 1))
    exchange = await upstream.exchange(question, 2)
    await expect(wait_of(page)).to_be_hidden()
    await exchange.answer("now it works")
    await expect(answers(page).locator(".message-body")).to_have_text("now it works")
    assert len(upstream.find_requests(question)) == 2


async def test_a_wait_is_stopped_by_the_stop_button(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    (await ask(page, upstream, question)).reply(429, BUSY, {"retry-after": "60"})
    await expect(wait_of(page)).to_be_visible()
    await page.locator("#stop").click()
    await expect(page.locator("[data-streaming]")).to_have_count(0)
    await expect(page.locator(".wait:visible")).to_have_count(0)
    assert len(upstream.find_requests(question)) == 1


async def test_a_wait_is_shown_again_after_a_reload(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    (await ask(page, upstream, question)).reply(429, BUSY, {"retry-after": "60"})
    await expect(wait_of(page)).to_be_visible()
    await expect(page).to_have_url(re.compile("#."))
    await page.reload()
    await expect(wait_of(page)).to_have_text(asking_again_in(*range(30, 61)))
    await page.locator("#stop").click()
    await expect(page.locator("[data-streaming]")).to_have_count(0)


@pytest.mark.parametrize("field", ["content", "reasoning_content"])
async def test_a_queued_answer_shows_its_position_until_it_begins(
    single_slot: BrowserContext, upstream: ScriptedUpstream, question: str, field: str
) -> None:
    pages = [await open_page(single_slot) for _ in range(3)]
    exchange = await ask(pages[0], upstream, f"1 {question}")
    for position, page in enumerate(pages[1:], 1):
        await queue(page, f"{position + 1} {question}", position)
    await exchange.answer("one")
    exchange = await upstream.exchange(f"2 {question}")
    await expect_position(pages[2], 1)
    await exchange.chunk({field: "two"})
    await expect(answers(pages[1])).to_contain_text("two")
    await expect(wait_of(pages[1])).to_be_hidden()
    await pages[2].reload()
    await expect_position(pages[2], 1)
    await exchange.answer("two")
    await (await upstream.exchange(f"3 {question}")).answer("three")
    await expect(answers(pages[2]).locator(".message-body")).to_have_text("three")
    await expect(wait_of(pages[2])).to_be_hidden()


async def test_a_failed_turn_no_longer_shows_its_wait(page: Page) -> None:
    failure = '{"type": "loading", "message": "No."}'
    frames = [
        'event: waiting\ndata: {"why": "loading", "seconds": 60}\n\n',
        f"event: failed\nid: turn-0123456789abcdef.9\ndata: {failure}\n\n",
    ]
    await page.route(
        "**/api/chat_stream/**",
        lambda route: route.fulfill(content_type="text/event-stream", body="".join(frames)),
    )
    await page.locator("#question").fill("hello")
    await page.locator("#question").press("Enter")
    await expect(page.locator(".failure-text")).to_have_text("No.")
    await expect(wait_of(page)).to_be_hidden()
