"""Sign out and delete everything: in the tab that asks for it, and in all others."""

import asyncio

import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser.chat_page import ask, ask_and_answer, bodies
from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S, Server

TITLES = "#conversations .conversation-title"


async def test_signing_out_deletes_everything_in_every_tab(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await ask_and_answer(page, upstream, question, "an answer")
    tab = await page.context.new_page()
    await tab.goto(page.url)
    await expect(bodies(tab)).to_have_text([question, "an answer"])
    await tab.locator("#question").fill("a draft")
    await page.bring_to_front()
    await page.locator("#new-chat").click()
    exchange = await ask(page, upstream, f"{question} again")
    await exchange.send_text("partial")
    await expect(page.locator(TITLES)).to_have_count(2)
    before = {one["value"] for one in await page.context.cookies()}
    await page.locator("#sign-out").click()
    await page.locator("#sign-out-dialog .danger-button").click()
    async with asyncio.timeout(PATIENCE_S):
        await exchange.closed.wait()
    for each in (page, tab):
        await expect(each.locator("#welcome")).to_be_visible()
        await expect(each.locator(TITLES)).to_have_count(0)
        await expect(each.locator("#question")).to_have_value("")
        assert "#" not in each.url
    after = {one["value"] for one in await page.context.cookies()}
    assert not before & after
    await ask_and_answer(page, upstream, f"{question} anew", "another answer")


async def test_cancelling_keeps_everything(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await ask_and_answer(page, upstream, question, "an answer")
    await page.locator("#sign-out").click()
    await page.locator("#sign-out-dialog .plain-button").click()
    await page.reload()
    await expect(bodies(page)).to_have_text([question, "an answer"])


@pytest.mark.parametrize(
    ("locale", "text"),
    [("en", "Sign out and delete everything here"), ("zh-CN", "退出并删除全部内容")],
)
async def test_the_button_is_in_the_language_of_the_page(
    browser: Browser, server: Server, locale: str, text: str
) -> None:
    context = await browser.new_context(base_url=server.url, locale=locale)
    page = await context.new_page()
    await page.goto("/")
    await expect(page.locator("#sign-out")).to_have_text(text)
    await context.close()
