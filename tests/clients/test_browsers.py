"""The web UI in three browser engines: whole answers, also if the connection is cut."""

import asyncio
import json

from tests.browser.tcp_link import TcpLink
from tests.clients.browsers import Tab
from tests.fake_upstream import Exchange, ScriptedUpstream
from tests.processes import PATIENCE_S

PIECES = ("# The sky\n\n", "is **blue**, ", "天空 🌌 and `", "dark", "` at night. ")
SHOWN = "The sky\nis blue, 天空 🌌 and dark at night. "
ANSWER = """[...document.querySelectorAll('article[data-role="assistant"] .message-body')].at(-1)"""


async def ask(tab: Tab, upstream: ScriptedUpstream, question: str) -> Exchange:
    """Type a question in a new conversation, send it, and return its request to the upstream."""
    await wait_for(tab, "document.querySelector('#suggestions')?.childElementCount")  # it started
    await tab.evaluate("document.querySelector('#new-chat').click()")
    await tab.evaluate("document.querySelector('#question').focus()")
    await tab.evaluate(f"document.execCommand('insertText', false, {json.dumps(question)})")
    await wait_for(tab, "!document.querySelector('#send').disabled")
    await tab.evaluate("document.querySelector('#send').click()")
    return await upstream.exchange(question)


async def wait_for(tab: Tab, condition: str) -> None:
    """Return when an expression is true in the page."""
    async with asyncio.timeout(PATIENCE_S):
        while not await tab.evaluate(condition):
            await asyncio.sleep(0.05)


async def wait_for_answer(tab: Tab, text: str) -> None:
    """Return when the last answer of the page reads like this, apart from white space."""
    words = json.dumps(" ".join(text.split()))
    await wait_for(tab, f"{ANSWER}?.innerText.trim().replace(/\\s+/g, ' ') === {words}")


async def test_the_page_shows_each_piece_of_an_answer_when_it_arrives(
    tab: Tab, link: TcpLink, upstream: ScriptedUpstream, question: str
) -> None:
    await tab.open(link.url)
    exchange = await ask(tab, upstream, question)
    await exchange.send_text("one ")
    await wait_for_answer(tab, "one")
    await exchange.send_text("and two")
    await wait_for_answer(tab, "one and two")
    await exchange.finish()
    await wait_for(tab, "document.querySelector('[data-streaming]') === null")
    await wait_for_answer(tab, "one and two")
    assert len(upstream.find_requests(question)) == 1


async def test_the_page_resumes_after_a_cut_without_loss_or_repetition(
    tab: Tab, link: TcpLink, upstream: ScriptedUpstream, question: str
) -> None:
    await tab.open(link.url)
    exchange = await ask(tab, upstream, question)
    await exchange.send_text(*PIECES)
    await wait_for_answer(tab, SHOWN)
    cut = link.cut_after(b"the cut is")
    await exchange.send_text("the cut is in this piece. ")
    async with asyncio.timeout(PATIENCE_S):
        await cut.wait()
    await exchange.send_text("The end")
    await exchange.finish()
    await wait_for(tab, "document.querySelector('[data-streaming]') === null")
    await wait_for_answer(tab, f"{SHOWN} the cut is in this piece. The end")
    assert len(upstream.find_requests(question)) == 1
