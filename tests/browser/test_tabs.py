"""The tabs of a browser stay in step, over one connection for events, and share six of HTTP/1.1."""

import asyncio
import re
from typing import Any

import httpx
import pytest
from playwright.async_api import Browser, BrowserContext, Page, expect

from tests.browser.chat_page import answers, ask, ask_and_answer, bodies
from tests.browser.tabs import OpenRequests
from tests.fake_upstream import ScriptedUpstream
from tests.processes import PATIENCE_S, Server

EVENTS = "/api/events/"
STREAM = "/api/chat_stream/"
LAST_ID = "holdline.lastEvent /"
WITHOUT_LOCKS = "Object.defineProperty(Navigator.prototype, 'locks', { get: () => undefined });"


async def open_tab(window: BrowserContext, url: str) -> Page:
    """Open a tab in front of the others."""
    tab = await window.new_page()
    await tab.goto(url)
    await expect(tab.locator("#model option")).not_to_have_count(0)
    return tab


async def open_client(window: BrowserContext, server: Server) -> httpx.AsyncClient:
    """Return a client with the session of a browser, as a program or another browser has."""
    cookies: Any = await window.cookies()
    return httpx.AsyncClient(
        base_url=server.url, cookies={one["name"]: one["value"] for one in cookies}, timeout=60
    )


def titles(page: Page) -> Any:
    """Locate the titles of the listed conversations."""
    return page.locator("#conversations .conversation-title")


async def test_a_second_tab_shows_every_message_of_the_first(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    first, second, third = (f"{number} {question}" for number in (1, 2, 3))
    await ask_and_answer(page, upstream, first, "one")
    tab = await page.context.new_page()
    await tab.goto(page.url)
    await expect(bodies(tab)).to_have_text([first, "one"])
    exchange = await ask(page, upstream, second)
    await exchange.send_text("tw")
    await expect(bodies(tab)).to_have_text([first, "one", second, "tw"])
    await exchange.answer("o")
    await expect(bodies(tab)).to_have_text([first, "one", second, "two"])
    await ask_and_answer(tab, upstream, third, "three")
    for each in (page, tab):
        await expect(bodies(each)).to_have_text([first, "one", second, "two", third, "three"])
        await expect(each.locator("[data-streaming]")).to_have_count(0)
    assert [len(upstream.find_requests(one)) for one in (first, second, third)] == [1, 1, 1]


async def test_a_tab_shows_a_message_that_it_did_not_know_when_it_asked(
    window: BrowserContext, server: Server, upstream: ScriptedUpstream, question: str
) -> None:
    """The second tab is hidden while the first asks, and asks before it has loaded that."""
    first, second, third = (f"{number} {question}" for number in (1, 2, 3))
    one = await open_tab(window, server.url)
    await ask_and_answer(one, upstream, first, "one")
    two = await open_tab(window, one.url)
    await expect(bodies(two)).to_have_text([first, "one"])
    await one.bring_to_front()
    await ask_and_answer(one, upstream, second, "two")
    await expect(bodies(two)).to_have_text([first, "one"])
    await two.route(re.compile("/api/conversations/."), lambda route: route.abort())
    await two.bring_to_front()
    exchange = await ask(two, upstream, third)
    await two.unroute_all()
    await exchange.send_text("three")
    await expect(answers(two).last.locator(".message-body")).to_have_text("three")
    await exchange.answer(".")
    for tab in (two, one):
        await tab.bring_to_front()
        await expect(bodies(tab)).to_have_text([first, "one", second, "two", third, "three."])


async def test_a_question_that_stops_another_tabs_answer_is_shown_in_both(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await ask_and_answer(page, upstream, question, "one")
    tab = await page.context.new_page()
    await tab.goto(page.url)
    await expect(bodies(tab)).to_have_text([question, "one"])
    exchange = await ask(page, upstream, f"2 {question}")
    await exchange.send_text("stopped")
    await expect(answers(tab).last.locator(".message-body")).to_have_text("stopped")
    await (await ask(tab, upstream, f"3 {question}")).answer("three")
    shown = [question, "one", f"2 {question}", "stopped", f"3 {question}", "three"]
    for each in (page, tab):
        await expect(bodies(each)).to_have_text(shown)


async def test_other_tabs_and_browsers_follow_every_change(
    page: Page, browser: Browser, upstream: ScriptedUpstream, question: str
) -> None:
    tab = await page.context.new_page()
    elsewhere = await browser.new_context(storage_state=await page.context.storage_state())
    pages = [tab, await elsewhere.new_page()]
    for other in pages:
        await other.goto(page.url)
        await expect(other.locator("#welcome")).to_be_visible()
    await ask_and_answer(page, upstream, question, "one")
    for other in pages:
        await expect(titles(other)).to_have_text([question])
        await other.locator("#conversations a").click()
        await expect(bodies(other)).to_have_text([question, "one"])
    await answers(page).get_by_role("button", name="Regenerate").click()
    await (await upstream.exchange(question, 2)).answer("two")
    for other in pages:
        await expect(bodies(other)).to_have_text([question, "two"])
    await answers(page).get_by_role("button", name="Previous version").click()
    for other in pages:
        await expect(bodies(other)).to_have_text([question, "one"])
    item = page.locator("#conversations li")
    await item.hover()
    await item.get_by_role("button", name="Rename").click()
    await page.get_by_role("textbox", name="Title").fill("A new title")
    await page.get_by_role("textbox", name="Title").press("Enter")
    for other in pages:
        await expect(titles(other)).to_have_text(["A new title"])
        await expect(other.locator("#title")).to_have_text("A new title")
    await item.hover()
    await item.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog", name="Delete this conversation?")
    await dialog.get_by_role("button", name="Delete").click()
    await expect(page.locator("#status")).to_be_empty()
    for other in pages:
        await expect(titles(other)).to_have_count(0)
        await expect(bodies(other)).to_have_count(0)
        await expect(other.locator("#status")).to_have_text("This conversation no longer exists.")
    await expect(page.locator("#status")).to_be_empty()
    await elsewhere.close()


async def test_stop_and_a_thirteenth_tab_work_besides_twelve_answers(
    window: BrowserContext, server: Server, upstream: ScriptedUpstream, question: str
) -> None:
    """A browser opens six connections to a host; today's servers speak HTTP/1.1."""
    requests = OpenRequests(window)
    tabs, exchanges = [], []
    for number in range(12):
        tabs.append(await open_tab(window, server.url))
        exchanges.append(await ask(tabs[-1], upstream, f"<{number}> {question}"))
        await exchanges[-1].send_text(f"part {number}")
        await expect(answers(tabs[-1]).locator(".message-body")).to_have_text(f"part {number}")
    await requests.settle(STREAM, 1)
    await requests.settle(EVENTS, 1)
    await tabs[-1].locator("#stop").click()
    await exchanges[-1].closed.wait()
    await expect(tabs[-1].locator("[data-streaming]")).to_have_count(0)
    last = await open_tab(window, server.url)
    await expect(titles(last)).to_have_count(12)
    await requests.settle(EVENTS, 1)
    await tabs[0].bring_to_front()
    await exchanges[0].answer(" and the rest")
    await expect(answers(tabs[0]).locator(".message-body")).to_have_text("part 0 and the rest")
    await last.bring_to_front()
    await expect(last.locator("#conversations .running-dot:visible")).to_have_count(10)
    for number, exchange in enumerate(exchanges[1:-1], 1):
        await exchange.answer(".")
        assert len(upstream.find_requests(f"<{number}> {question}")) == 1
    await expect(last.locator("#conversations .running-dot:visible")).to_have_count(0)


async def test_twelve_visible_tabs_hold_three_streams_and_show_the_answer(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    """As in twelve windows side by side: a user does not hide them."""
    requests = OpenRequests(page.context)
    exchange = await ask(page, upstream, question)
    await exchange.send_text("before ")
    await expect(answers(page).locator(".message-body")).to_have_text("before")
    tabs = [page]
    for _ in range(11):
        tabs.append(await page.context.new_page())
        await tabs[-1].goto(page.url)
        await expect(answers(tabs[-1]).locator(".message-body")).to_have_text("before")
    await exchange.send_text("after ")
    for tab in tabs[-3:]:
        await expect(answers(tab).locator(".message-body")).to_have_text("before after")
    await requests.settle(STREAM, 3)
    await tabs[-1].close()
    await requests.settle(STREAM, 3)
    await tabs[0].evaluate("() => window.dispatchEvent(new Event('focus'))")
    await expect(answers(tabs[0]).locator(".message-body")).to_have_text("before after")
    await tabs[0].locator("#stop").click()
    await exchange.closed.wait()
    for tab in tabs[:-1]:
        await expect(answers(tab).locator(".message-body")).to_have_text("before after")
        await expect(tab.locator("[data-streaming]")).to_have_count(0)
    await requests.settle(STREAM, 0)
    assert len(upstream.find_requests(question)) == 1


async def test_a_hidden_tab_releases_its_stream_and_resumes_it_when_it_is_shown(
    window: BrowserContext, server: Server, upstream: ScriptedUpstream, question: str
) -> None:
    requests = OpenRequests(window)
    tab = await open_tab(window, server.url)
    exchange = await ask(tab, upstream, question)
    await exchange.send_text("before ")
    await expect(answers(tab).locator(".message-body")).to_have_text("before")
    other = await open_tab(window, server.url)
    await requests.settle(STREAM, 0)
    await exchange.send_text("hidden ")
    async with tab.expect_request(lambda request: STREAM in request.url) as resumed:
        await tab.bring_to_front()
    assert "last_event_id=" in (await resumed.value).url
    assert question[:8] not in (await resumed.value).url
    await expect(answers(tab).locator(".message-body")).to_have_text("before hidden")
    await expect(tab.locator("#status")).to_be_empty()
    await other.bring_to_front()
    await requests.settle(STREAM, 0)
    await exchange.answer("end")
    await expect(other.locator("#conversations .running-dot:visible")).to_have_count(0)
    await tab.bring_to_front()
    await expect(answers(tab).locator(".message-body")).to_have_text("before hidden end")
    await expect(tab.locator("[data-streaming]")).to_have_count(0)
    assert len(upstream.find_requests(question)) == 1


@pytest.mark.parametrize("length", ["short", "too long for a URL"])
async def test_a_question_begins_even_if_its_tab_is_hidden_at_once(
    window: BrowserContext, server: Server, upstream: ScriptedUpstream, question: str, length: str
) -> None:
    text = question if length == "short" else "x" * 8000 + question
    requests = OpenRequests(window)
    tab = await open_tab(window, server.url)
    await tab.locator("#question").fill(text)
    await tab.locator("#question").press("Enter")
    other = await window.new_page()
    exchange = await upstream.exchange(text)
    await requests.settle(STREAM, 0)
    await exchange.answer("done")
    await other.close()
    await tab.bring_to_front()
    await expect(bodies(tab)).to_have_text([text, "done"])
    assert len(upstream.find_requests(text)) == 1


async def test_another_tab_resumes_the_events_when_the_connected_one_is_closed(
    page: Page, server: Server
) -> None:
    requests = OpenRequests(page.context)
    tab = await page.context.new_page()
    await tab.goto("/")
    await expect(tab.locator("#model option")).not_to_have_count(0)
    await requests.settle(EVENTS, 1)
    async with await open_client(page.context, server) as client:
        await client.post("/api/conversations/", json={"title": "first"})
        for each in (page, tab):
            await expect(titles(each)).to_have_text(["first"])
        await tab.close()
        await client.post("/api/conversations/", json={"title": "second"})
        await expect(titles(page)).to_have_text(["second", "first"])
    await requests.settle(EVENTS, 1)


async def test_without_web_locks_each_visible_tab_has_a_connection_for_events(
    window: BrowserContext, server: Server
) -> None:
    """Web Locks are missing on pages by plain http from another host than this one."""
    await window.add_init_script(WITHOUT_LOCKS)
    requests = OpenRequests(window)
    first = await open_tab(window, server.url)
    second = await open_tab(window, server.url)
    await requests.settle(EVENTS, 1)
    async with await open_client(window, server) as client:
        created = (await client.post("/api/conversations/", json={"title": "one"})).json()
        await expect(titles(second)).to_have_text(["one"])
        await expect(titles(first)).to_have_count(0)
        await first.bring_to_front()
        await expect(titles(first)).to_have_text(["one"])
        await requests.settle(EVENTS, 1)
        await client.patch(f"/api/conversations/{created['id']}", json={"title": "two"})
        await expect(titles(first)).to_have_text(["two"])


async def test_a_page_recovers_from_a_rejected_event_id(page: Page, server: Server) -> None:
    await page.evaluate("(name) => localStorage.setItem(name, 'malformed')", LAST_ID)
    await page.reload()
    async with asyncio.timeout(PATIENCE_S):
        while await page.evaluate("(name) => localStorage.getItem(name)", LAST_ID) == "malformed":
            await asyncio.sleep(0.05)
    async with await open_client(page.context, server) as client:
        await client.post("/api/conversations/", json={"title": "one"})
    await expect(titles(page)).to_have_text(["one"])


async def test_a_page_that_loaded_without_a_session_receives_the_events_of_its_first_one(
    page: Page, server: Server, upstream: ScriptedUpstream, question: str
) -> None:
    """While Redis is down, the page sets no cookie. Its channel has no events, but stays open."""
    await expect(page.locator("#model option")).not_to_have_count(0)
    await page.context.clear_cookies()
    async with page.expect_request(lambda request: EVENTS in request.url):
        await page.evaluate("() => window.dispatchEvent(new Event('focus'))")
    await ask_and_answer(page, upstream, question, "answer")
    async with await open_client(page.context, server) as client:
        await client.post("/api/conversations/", json={"title": "elsewhere"})
    await expect(titles(page)).to_have_text(["elsewhere", question])
