"""Answers resume by themselves after faults of connections, tabs, computers and workers."""

import os
import signal

import pytest
from playwright.async_api import Browser, Page, expect

from tests.browser.chat_page import answers, ask, ask_and_answer, bodies
from tests.browser.tcp_link import tcp_link
from tests.config.test_drain import read_notice
from tests.fake_upstream import ScriptedUpstream
from tests.own_redis import own_redis
from tests.processes import Server, find_worker, holdline

# Playwright emulates the focus, so the browser never freezes a page: the test sends its event.
THAW = "() => document.dispatchEvent(new Event('resume'))"


@pytest.mark.parametrize("event", ["sleep", "thaw", "idle"])
async def test_an_answer_resumes_after_its_connection_died_silently(
    browser: Browser, server: Server, upstream: ScriptedUpstream, question: str, event: str
) -> None:
    async with tcp_link(server) as link:
        context = await browser.new_context(base_url=link.url)
        page = await context.new_page()
        await page.clock.install()
        await page.goto("/")
        exchange = await ask(page, upstream, question)
        await exchange.send_text("before ")
        await expect(answers(page).locator(".message-body")).to_have_text("before")
        link.freeze()
        await exchange.send_text("lost ")
        if event == "thaw":
            await page.evaluate(THAW)
        elif event == "sleep":
            await page.clock.fast_forward("20")  # no timer runs, as while a computer sleeps
        else:
            await page.clock.run_for("31")  # all timers run: only the idle timeout can act
        await expect(answers(page).locator(".message-body")).to_have_text("before lost")
        await exchange.answer("and after")
        await expect(answers(page).locator(".message-body")).to_have_text("before lost and after")
        assert len(upstream.find_requests(question)) == 1
        await context.close()


async def test_an_answer_streams_to_every_tab_and_browser_of_its_session(
    page: Page, browser: Browser, upstream: ScriptedUpstream, question: str
) -> None:
    exchange = await ask(page, upstream, question)
    await exchange.send_text("one ")
    await expect(answers(page).locator(".message-body")).to_have_text("one")
    tab = await page.context.new_page()
    elsewhere = await browser.new_context(storage_state=await page.context.storage_state())
    pages = [page, tab, await elsewhere.new_page()]
    for other in pages[1:]:
        await other.goto(page.url)
    for delta, shown in (("two ", "one two"), ("three", "one two three")):
        await exchange.send_text(delta)
        for each in pages:
            await expect(answers(each).locator(".message-body")).to_have_text(shown)
    await exchange.answer(".")
    for each in pages:
        await expect(bodies(each)).to_have_text([question, "one two three."])
        await expect(each.locator("[data-streaming]")).to_have_count(0)
    assert len(upstream.find_requests(question)) == 1
    await elsewhere.close()


async def test_an_idle_tab_shows_another_tabs_question_when_focused(
    page: Page, upstream: ScriptedUpstream, question: str
) -> None:
    await ask_and_answer(page, upstream, question, "first")
    idle = await page.context.new_page()
    await idle.goto(page.url)
    await expect(bodies(idle)).to_have_text([question, "first"])
    await idle.locator("#question").press("ArrowUp")
    await idle.locator(".question-editor textarea").fill("a draft")
    exchange = await ask(page, upstream, f"later {question}")
    await exchange.send_text("part")
    await idle.evaluate("() => window.dispatchEvent(new Event('focus'))")
    await expect(bodies(idle)).to_have_text([question, "first", f"later {question}", "part"])
    await expect(idle.locator("#conversations .running-dot")).to_be_visible()
    await exchange.answer("ial")
    await expect(answers(idle).last.locator(".message-body")).to_have_text("partial")
    await expect(idle.locator(".question-editor textarea")).to_have_value("a draft")
    await expect(
        idle.locator(".question-editor").get_by_role("button", name="Send")
    ).to_be_enabled()
    await idle.close()


async def test_an_answer_continues_after_its_worker_is_killed(
    browser: Browser, upstream: ScriptedUpstream, question: str
) -> None:
    model = {"OPENAI_BASE_URL": upstream.base_url, "CHAT_MODEL": "m"}
    async with holdline(**model, WORKERS="2", LEASE_S="0.5") as server:
        context = await browser.new_context(base_url=server.url)
        page = await context.new_page()
        await page.goto("/")
        exchange = await ask(page, upstream, question)
        partial = f"seen of {question} "
        await exchange.send_text(partial)
        await expect(answers(page).locator(".message-body")).to_have_text(partial.strip())
        os.kill(find_worker(exchange.connection), signal.SIGKILL)
        await (await upstream.continued(partial)).answer("to the end")
        await expect(answers(page).locator(".message-body")).to_have_text(f"{partial}to the end")
        await expect(
            page.get_by_role("img", name="was interrupted by a server failure")
        ).to_be_visible()
        await context.close()


async def test_a_seam_is_marked_at_its_block_with_its_reason(
    browser: Browser, upstream: ScriptedUpstream, question: str
) -> None:
    spare = f'[{{"base_url": "{upstream.base_url}", "model": "spare"}}]'
    model = {"OPENAI_BASE_URL": upstream.base_url, "CHAT_MODEL": "m"}
    async with holdline(**model, UPSTREAMS=spare) as server:
        context = await browser.new_context(base_url=server.url)
        page = await context.new_page()
        await page.goto("/")
        exchange = await ask(page, upstream, question)
        first = f"{'🦭' * 80} {question}\n\n- one\n- two bro"
        await exchange.send_text(first)
        await exchange.finish("length")
        exchange = await upstream.continued(first)
        second = "ken\n\n[a]: https://other.example\n\n"
        await exchange.send_text(second)
        await expect(answers(page).locator("li")).to_have_text(["one", "two broken"])
        exchange.drop()
        exchange = await upstream.continued(first + second)
        assert exchange.body["model"] == "spare"
        await exchange.answer("A [link][a].\n\nThe end.")
        for _ in range(2):
            seams = answers(page).locator(".seam")
            await expect(seams).to_have_count(2)
            assert [(await seam.inner_text()).split() for seam in await seams.all()] == [
                ["one", "two", "broken"],
                ["A", "link."],
            ]
            await expect(
                page.get_by_role("img", name="reached the model’s length limit")
            ).to_be_visible()
            await expect(page.get_by_role("img", name="continued by spare")).to_be_visible()
            await expect(page.get_by_text("continued 2 times")).to_be_visible()
            await page.reload()
        await context.close()


async def test_a_seam_at_any_offset_marks_exactly_one_block(page: Page) -> None:
    found = await page.evaluate(
        """async (text) => {
            const { renderMarkdown } = await import("/js/markdown/render.js");
            const { markSeams } = await import("/js/markdown/continuation_mark.js");
            const unmarked = document.createElement("div");
            unmarked.append(renderMarkdown(text));
            const points = [...text];
            const changed = [];
            const marked = [];
            for (let at = 0; at <= points.length; at += 1) {
                const body = unmarked.cloneNode(true);
                markSeams(body, text, [{ at }]);
                for (const frame of body.querySelectorAll(".seam")) {
                    marked.push(frame.textContent.trim());
                    frame.replaceWith(frame.lastChild);
                }
                if (!body.isEqualNode(unmarked)) changed.push(at);
            }
            const first = [...new Set(marked)];
            return { changed, length: points.length, count: marked.length, marked: first };
        }""",
        "🦭 para\twith\ttabs\n===\n\n[a]: https://e.example\n\n- x\n\ty\n\n\n- z [a]\n\n"
        "```js\nfoo\n\n```\n"
        "after\r\n\r\n| a | b |\n|-|-|\n| 1 | 2 |\n\n"
        "\tcode\n\n> quote\nlazy\n\n***\n\nend\n\n\n",
    )
    assert found["changed"] == []
    assert found["count"] == found["length"] + 1
    first_words = [block.split()[0] if block else "" for block in found["marked"]]
    assert first_words == ["🦭", "xy", "js", "after", "a", "code", "quotelazy", "", "end"]


@pytest.mark.parametrize("length", ["short", "too long for a URL"])
async def test_a_question_to_a_draining_server_is_answered_once_by_another(
    browser: Browser, upstream: ScriptedUpstream, question: str, length: str
) -> None:
    settings = {"OPENAI_BASE_URL": upstream.base_url, "CHAT_MODEL": "m", "DRAIN_S": "600"}
    if length != "short":
        question = "x" * 8000 + question
    async with (
        own_redis() as redis,
        holdline(**settings, REDIS_URL=redis.url) as draining,
        holdline(**settings, REDIS_URL=redis.url) as other,
        tcp_link(draining) as link,
    ):
        context = await browser.new_context(base_url=link.url)
        first = await context.new_page()
        await first.goto("/")
        running = await ask(first, upstream, f"first {question}")
        await running.send_text("part ")
        page = await context.new_page()
        await page.goto("/")
        draining.process.send_signal(signal.SIGTERM)
        assert "Finishing 1 answer," in await read_notice(draining)
        await page.locator("#question").fill(question)
        async with page.expect_response(
            lambda one: "/api/chat_stream/" in one.url and "first" not in one.url
        ) as refused:
            await page.locator("#question").press("Enter")
        assert (await (await refused.value).all_headers())["connection"] == "close"
        assert upstream.find_requests(question) == [running]
        link.move(other)
        await (await upstream.exchange(question, 2)).answer("by the other server")
        await expect(answers(page).locator(".message-body")).to_have_text("by the other server")
        await running.answer("and the rest")
        await expect(answers(first).locator(".message-body")).to_have_text("part and the rest")
        await expect(first.get_by_text("continued")).to_have_count(0)
        assert await draining.process.wait() == 0
        assert len(upstream.find_requests(question)) == 2
        await context.close()
