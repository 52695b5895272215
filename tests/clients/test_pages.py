"""Pages of other origins in Chromium: client libraries for pages, and those of tutorials."""

import asyncio
import json
import re

from playwright.async_api import Page, expect

from tests.browser.tcp_link import TcpLink
from tests.clients.documented import URL, read_program, read_tutorials
from tests.clients.site import MARKED, Site
from tests.fake_upstream import Exchange, ScriptedUpstream
from tests.processes import PATIENCE_S, ROOT, Server
from tests.proxies.doors import API_KEY

PIECES = ("  The sky,\n\n", "    it ", "is …\u2028", "天空 🌌 ", "data: blue\n", "\n", "- end")
LAST_BYTES = b"the cut is"
RENDERED = "The sky is blue."
MARKDOWN = ("# The", " sky\n\n", "is ", "**blue**", ".")


def read_tutorial(name: str, url: str) -> str:
    """Return the page of a tutorial, changed as docs/clients.md says."""
    html = (ROOT / "tests" / "clients" / "pages" / f"{name.lower()}.html").read_text()
    address, replacement = read_tutorials()[name]
    assert html.count(f'"{address}"') == 1
    html = html.replace(f'"{address}"', f'"{replacement.replace(URL, url)}"')
    if url.startswith("https:") and "/v1/" in replacement:  # behind a proxy, /v1 needs a key
        html = html.replace("headers: {", f'headers: {{ Authorization: "Bearer {API_KEY}",')
    return html


async def open_tutorial(page: Page, site: Site, name: str, url: str) -> None:
    """Open the page of a tutorial on another site than Holdline's."""
    path = site.add_page(name, read_tutorial(name, url))
    await page.goto(site.origins[1] + path)


async def open_own_tutorial(page: Page, name: str, url: str) -> None:
    """Open the page of a tutorial on Holdline's origin, as if a proxy served both."""
    html = read_tutorial(name, url)
    await page.route("**/page", lambda route: route.fulfill(body=html, content_type="text/html"))
    await page.route("**/marked.js", lambda route: route.fulfill(path=MARKED))
    await page.goto(f"{url}/page")


async def ask(page: Page, upstream: ScriptedUpstream, question: str) -> Exchange:
    """Send a question from the page of a tutorial."""
    await page.locator("#question").fill(question)
    await page.locator("#send").click()
    return await upstream.exchange(question)


async def send_with_cut(link: TcpLink, exchange: Exchange) -> str:
    """Answer, and cut the connection meanwhile. Return the answer."""
    await exchange.send_text(*PIECES)
    cut = link.cut_after(LAST_BYTES)
    await exchange.send_text(f"{LAST_BYTES.decode()} in this piece. ")
    async with asyncio.timeout(PATIENCE_S):
        await cut.wait()
    await exchange.send_text(*PIECES)
    await exchange.finish()
    return f"{''.join(PIECES)}{LAST_BYTES.decode()} in this piece. {''.join(PIECES)}"


async def wait_for_value(page: Page, expression: str, value: str) -> None:
    """Return when a JavaScript expression has this value."""
    await page.wait_for_function(f"{expression} === {json.dumps(value)}")


async def test_fetch_event_source_resumes_after_a_cut_without_loss_or_repetition(
    page: Page, link: TcpLink, site: Site, upstream: ScriptedUpstream, question: str
) -> None:
    program = read_program("fetch-event-source", link.url, question)
    path = site.add_program("fetch-event-source", *program)
    await page.goto(site.origins[0] + path)
    text = "document.querySelector('#answer').textContent"
    exchange = await upstream.exchange(question)
    await exchange.send_text("one ")
    await wait_for_value(page, text, "one ")
    await wait_for_value(page, text, "one " + await send_with_cut(link, exchange))
    assert len(upstream.find_requests(question)) == 1


async def test_deep_chat_resumes_after_a_cut_without_loss_or_repetition(
    page: Page, link: TcpLink, site: Site, upstream: ScriptedUpstream, question: str
) -> None:
    path = site.add_program("deep-chat", *read_program("deep-chat", link.url, question))
    await page.goto(site.origins[0] + path)
    await page.locator("#text-input").fill(question)
    await page.locator("#text-input").press("Enter")
    text = "document.querySelector('deep-chat').getMessages().at(-1)?.text"
    exchange = await upstream.exchange(question)
    await exchange.send_text("one ")
    await wait_for_value(page, text, "one ")
    await wait_for_value(page, text, "one " + await send_with_cut(link, exchange))
    assert len(upstream.find_requests(question)) == 1


async def test_the_sanic_tutorials_page_renders_an_answer(
    page: Page, server: Server, site: Site, upstream: ScriptedUpstream, question: str
) -> None:
    await open_tutorial(page, site, "Sanic", server.url)
    exchange = await ask(page, upstream, question)
    await exchange.send_text("one\n")
    await wait_for_value(page, "document.querySelector('#answer').innerHTML", "one<br>")
    await exchange.answer("# two")
    await expect(page.locator("#answer h1")).to_have_text("two")
    assert len(upstream.find_requests(question)) == 1


async def test_the_sanic_tutorials_page_resumes_after_a_cut_on_holdlines_own_origin(
    page: Page, link: TcpLink, upstream: ScriptedUpstream, question: str
) -> None:
    await open_own_tutorial(page, "Sanic", link.url)
    exchange = await ask(page, upstream, question)
    await exchange.send_text("one ")
    await wait_for_value(page, "document.querySelector('#answer').innerHTML", "one ")
    cut = link.cut_after(LAST_BYTES)
    await exchange.send_text("the cut is here ")
    async with asyncio.timeout(PATIENCE_S):
        await cut.wait()
    await exchange.send_text("and two\n")
    text = "one the cut is here and two<br>"
    await wait_for_value(page, "document.querySelector('#answer').innerHTML", text)
    await exchange.finish()
    text = "<p>one the cut is here and two</p>\n"
    await wait_for_value(page, "document.querySelector('#answer').innerHTML", text)
    assert len(upstream.find_requests(question)) == 1


async def test_the_django_tutorials_page_appends_each_piece_of_an_answer(
    page: Page, server: Server, site: Site, upstream: ScriptedUpstream, question: str
) -> None:
    await open_tutorial(page, site, "Django", server.url)
    exchange = await ask(page, upstream, question)
    shown = ""
    # No piece ends with white space: `innerText +=` of the page drops what it does not show.
    for piece in ("The", " 天", "空", " 🌌 is\n", "blue."):
        await exchange.send_text(piece)
        shown += piece
        await wait_for_value(page, "document.querySelector('#answer').innerText", shown)
    await exchange.finish()
    assert len(upstream.find_requests(question)) == 1


async def test_the_django_tutorials_address_is_not_opened_as_a_page(
    page: Page, server: Server, upstream: ScriptedUpstream, question: str
) -> None:
    url = f"{server.url}/api/chat_stream/?format=text&prompt={question}"
    response = await page.goto(url)
    assert response is not None
    assert response.status == 403
    await expect(page.locator("body")).to_contain_text("cannot be opened in the browser")
    assert upstream.find_requests(question) == []


async def test_the_node_tutorials_page_renders_an_answer_that_the_server_continues(
    page: Page, server: Server, site: Site, upstream: ScriptedUpstream, question: str
) -> None:
    await open_tutorial(page, site, "Node", server.url)
    exchange = await ask(page, upstream, question)
    await exchange.send_text("# The", " sky")
    await wait_for_value(page, "text", "# The sky")
    await exchange.finish("length")
    continued = await upstream.continued("# The sky")
    await continued.answer("\n\nis", " **blue", "**.")
    await expect(page.locator("#answer h1")).to_have_text("The sky")
    await expect(page.locator("#answer strong")).to_have_text("blue")
    await wait_for_value(page, "messages.at(-1).content", "# The sky\n\nis **blue**.")
    assert len(upstream.find_requests(question)) == 1


async def test_closing_the_node_tutorials_page_stops_the_answer(
    page: Page, server: Server, site: Site, upstream: ScriptedUpstream, question: str
) -> None:
    await open_tutorial(page, site, "Node", server.url)
    exchange = await ask(page, upstream, question)
    await exchange.send_text("one")
    await wait_for_value(page, "text", "one")
    await page.close()
    async with asyncio.timeout(PATIENCE_S):
        await exchange.closed.wait()


async def test_the_flask_tutorials_page_appends_each_piece_of_an_answer(
    page: Page, server: Server, site: Site, upstream: ScriptedUpstream, question: str
) -> None:
    await open_tutorial(page, site, "Flask", server.url)
    exchange = await ask(page, upstream, question)
    shown = ""
    for piece in PIECES:
        await exchange.send_text(piece)
        shown += piece
        await wait_for_value(page, "document.querySelector('#answer').textContent", shown)
    await exchange.finish()
    assert len(upstream.find_requests(question)) == 1


async def test_the_tornado_tutorials_page_reconnects_after_a_cut(
    page: Page, link: TcpLink, site: Site
) -> None:
    cut = link.cut_after(b'"reset"')
    await open_tutorial(page, site, "Tornado", link.url)
    async with asyncio.timeout(PATIENCE_S):
        await cut.wait()
    await expect(page.locator("#state")).to_have_text("error")
    await expect(page.locator("#state")).to_have_text("open")
    await expect(page.locator("#messages li")).to_have_text([re.compile('"reset"')])


async def test_the_tornado_tutorials_page_shows_the_events_of_its_session_on_holdlines_own_origin(
    page: Page, server: Server, upstream: ScriptedUpstream, question: str
) -> None:
    await page.goto(server.url)  # opens the session
    await open_own_tutorial(page, "Tornado", server.url)
    await expect(page.locator("#state")).to_have_text("open")
    await page.evaluate(f"void fetch('/api/chat_stream/?message={question}')")
    await (await upstream.exchange(question)).answer("one")
    for name in ("reset", "turn", "end"):
        item = page.locator("#messages li").filter(has_text=f'"type":"{name}"')
        await expect(item).to_have_count(1)
